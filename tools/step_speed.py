"""Times a training step with each deformable convolution, and lists its slowest operators.

    python -m tools.step_speed --config=STMask_plus_resnet50_ada_config --batch_size=1 --set=train.pretrained=

A step is train.py's: forward pass, losses, backward pass and optimiser, on the first clips of its data set. The
backends alternate in one process. Compare the CPU seconds where other work runs on the machine.
"""

import json
import time
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from data.classes import config_for
from data.clips import ClipDataset, SampleKey, collate_clips
from data.config import Config, dataset_overrides, overrides_from
from data.dataset import YTVISDataset
from layers.deform_conv import available_backends, deform_backend, runs_on
from stmask import STMask
from train import Trainer
from utils.device import describe_machine, pick_device, synchronize
from utils.distributed import World
from utils.training_settings import TrainSettings
from ytvis.command_line import Parser, positive
from ytvis.files import atomic_write

SHOWN_OPERATORS = 12


def main() -> None:
    parser = Parser("python -m tools.step_speed", __doc__)
    parser.add_argument("--config", metavar="NAME", required=True, help="config name")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config key")
    parser.add_argument("--train_dataset", metavar="NAME", help="another data set than the config's")
    TrainSettings.add_options(parser, "batch_size", "accumulate", "precision", "compile", "seed")
    parser.add_argument("--device", help="cpu, cuda, … (default: the GPU if there is one)")
    parser.add_argument("--rounds", type=positive, default=3, help="steps on each backend (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("step.json"), help="default: %(default)s")
    options = parser.parse_args()
    of_dataset = dataset_overrides(options.train_dataset) if options.train_dataset else {}
    config = config_for(options.config, overrides_from(options.set, {}, of_dataset))
    settings = TrainSettings.from_options(options)
    measured = measure(config, settings, pick_device(options.device), options.rounds)
    with atomic_write(options.output, "w") as file:
        json.dump(measured, file, indent=1)
    for name, times in measured["seconds"].items():
        ratio = measured["seconds"]["torchvision"]["cpu"] / times["cpu"]
        print(f"{name:>12}: {times['wall']:8.2f} s, of the CPU {times['cpu']:8.2f} s, {ratio:.2f} times")
    for name, operators in measured["operators"].items():
        print(f"{name}: " + ", ".join(f"{key} {part:.1%}" for key, part in operators.items()))


def measure(config: Config, settings: TrainSettings, device: torch.device, rounds: int) -> dict:
    """{"machine", "config", "size_hw", "seconds": {backend: {"wall", "cpu"}}, "operators": {backend: {name: part}}}.

    Times are those of the fastest step after one that warms up; operators are the slowest of one more step.
    """
    clips = ClipDataset.from_config(config, YTVISDataset.from_config(config, "train"))
    keys = [SampleKey(number, settings.seed) for number in range(settings.samples_per_step)]
    batch = collate_clips([clips[key] for key in keys])
    torch.manual_seed(settings.seed)
    trainer = Trainer(STMask.from_config(config), settings, len(clips), World(device))

    def step(backend: str) -> None:
        with deform_backend(backend):
            trainer.step(batch)
        synchronize(device)

    names = [name for name in available_backends() if name != "mmcv" and runs_on(name, device)]
    times: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds + 1):
        for name in names:
            wall, cpu = time.perf_counter(), time.process_time()
            step(name)
            times[name].append({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
    operators = {}
    for name in names:
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            step(name)
        rows = sorted(profiler.key_averages(), key=lambda row: -row.self_cpu_time_total)
        total = sum(row.self_cpu_time_total for row in rows)
        operators[name] = {row.key: row.self_cpu_time_total / total for row in rows[:SHOWN_OPERATORS]}
    return {
        "machine": describe_machine(trainer.model.device),
        "config": config.name,
        "size_hw": list(config.input.size_hw),
        "seconds": {
            name: {clock: min(row[clock] for row in rows[1:]) for clock in ("wall", "cpu")}
            for name, rows in times.items()
        },
        "operators": operators,
    }


if __name__ == "__main__":
    main()
