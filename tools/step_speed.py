"""Times training: a step with each deformable convolution, its slowest operators, and steps with the loader.

    python -m tools.step_speed --config=STMask_plus_resnet50_ada_config --batch_size=1 --set=train.pretrained=
    python -m tools.step_speed --config=STMask_plus_resnet50_ada_config --device=cuda --precision=bf16 --num_workers=14

A step is train.py's: forward pass, losses, backward pass and optimiser, on the first clips of its data set. The
backends alternate in one process. Compare the CPU seconds where other work runs on the machine. Then the usual backend
takes steps on the first clips again, and as many on the batches of train.py's loader; the share of the loader is how
much of the time of a step it adds. Operators are those of the CPU.
"""

import json
import sys
import time
from collections.abc import Iterable
from itertools import repeat
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from data.classes import config_for
from data.clips import ClipDataset, ClipSampler, SampleKey, make_clip_loader
from data.config import Config, dataset_overrides, overrides_from
from data.dataset import YTVISDataset
from layers.deform_conv import available_backends, deform_backend, runs_on
from stmask import STMask
from train import Trainer, collate_for
from utils.device import describe_machine, pick_device, synchronize
from utils.distributed import World
from utils.precision import check_precision
from utils.structures import ClipBatch
from utils.training_settings import TrainSettings
from ytvis.command_line import Parser, positive, run_command
from ytvis.files import atomic_write

SHOWN_OPERATORS = 12


def main(argv: list[str] | None = None) -> int:
    return run_command("step_speed", lambda: run(argv))


def run(argv: list[str] | None) -> None:
    parser = Parser("python -m tools.step_speed", __doc__)
    parser.add_argument("--config", metavar="NAME", required=True, help="config name")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a config key")
    parser.add_argument("--train_dataset", metavar="NAME", help="another data set than the config's")
    TrainSettings.add_options(parser, "batch_size", "accumulate", "precision", "compile", "seed", "num_workers")
    parser.add_argument("--device", help="cpu, cuda, … (default: the GPU if there is one)")
    parser.add_argument("--rounds", type=positive, default=3, help="steps of each kind (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=Path("step.json"), help="default: %(default)s")
    options = parser.parse_args(argv)
    of_dataset = dataset_overrides(options.train_dataset) if options.train_dataset else {}
    config = config_for(options.config, overrides_from(options.set, {}, of_dataset))
    settings = TrainSettings.from_options(options)
    device = pick_device(options.device)
    check_precision(settings.precision, device)
    measured = measure(config, settings, device, options.rounds)
    with atomic_write(options.output, "w") as file:
        json.dump(measured, file, indent=1)
    for name, times in measured["seconds"].items():
        ratio = measured["seconds"]["torchvision"]["cpu"] / times["cpu"]
        print(f"{name:>12}: {times['wall']:8.2f} s, of the CPU {times['cpu']:8.2f} s, {ratio:.2f} times")
    for name, operators in measured["operators"].items():
        print(f"{name}: " + ", ".join(f"{key} {part:.1%}" for key, part in operators.items()))
    print(
        "with the loader ({num_workers} processes): {clips_per_second:.2f} clips per second; a step takes {step:.3f} s "
        "and without the loader {step_alone:.3f} s, its share is {share_of_loader:.1%}".format(**measured["training"])
    )


def measure(config: Config, settings: TrainSettings, device: torch.device, rounds: int) -> dict:
    """{"machine", "config", "size_hw", "seconds": {backend: {"wall", "cpu"}}, "operators": {backend: {name: part}},
    "training": see `measure_training`}.

    Times are those of the fastest step after one that warms up; operators are the slowest of one more step.
    """
    world = World(device)
    clips = ClipDataset.from_config(config, YTVISDataset.from_config(config, "train"), as_pictures=world.is_queued)
    keys = [SampleKey(number, settings.seed) for number in range(settings.samples_per_step)]
    batch = collate_for(config, world)([clips[key] for key in keys])
    torch.manual_seed(settings.seed)
    trainer = Trainer(STMask.from_config(config), settings, len(clips), world)

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
        "training": measure_training(trainer, clips, batch, rounds),
    }


def measure_training(trainer: Trainer, clips: ClipDataset, batch: ClipBatch, rounds: int) -> dict[str, float]:
    """{"num_workers", "step_alone", "step", "clips_per_second", "share_of_loader"} of `rounds` steps on `batch`, and of
    as many on the loader's batches, both after a first step that is not timed; times in seconds."""
    settings, world = trainer.settings, trainer.world
    is_gpu = world.device.type == "cuda"
    sampler = ClipSampler(len(clips), settings.samples_per_step, settings.seed, num_iterations=rounds + 1)
    collate = collate_for(trainer.model.config, world)
    loader = make_clip_loader(clips, sampler, settings.num_workers, is_gpu, collate)
    alone = seconds_per_step(trainer, repeat(batch.pin_memory() if is_gpu else batch, rounds + 1))
    together = seconds_per_step(trainer, loader)
    return {
        "num_workers": settings.num_workers,
        "step_alone": alone,
        "step": together,
        "clips_per_second": settings.samples_per_step / together,
        "share_of_loader": max(0.0, 1 - alone / together),
    }


def seconds_per_step(trainer: Trainer, batches: Iterable[ClipBatch]) -> float:
    """The mean time from the end of the first step to that of the last one; the device's queue is not stopped."""
    batches = iter(batches)
    trainer.step(next(batches))
    synchronize(trainer.model.device)
    begin = time.perf_counter()
    count = sum(1 for _ in map(trainer.step, batches))
    synchronize(trainer.model.device)
    return (time.perf_counter() - begin) / count


if __name__ == "__main__":
    sys.exit(main())
