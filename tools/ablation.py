"""Measures each part of the method on the demo data set: each row adds a part, with the same budget and seeds.

    make train-demo                                                      # trains the features that all runs start from
    python -m tools.ablation --start results/train_demo/full/latest --training_set data/ShapesVIS_1000 --jobs 2
    python -m tools.ablation --table                                     # prints the finished runs

Every run calls `train.py` and `eval.py` with one thread on small frames. All start from the same backbone, pyramid and
prototypes, as published models start from COCO's, with a fresh head and temporal net. Finished runs are skipped, and
interrupted ones resume. The table is Markdown: mean ± half the difference between seeds.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from data.config import WEIGHT_NAMES, get_config
from tools.recipe import measure_scores
from utils.checkpoint import find_checkpoint, load_state_dict, save_state_dict
from ytvis.score.groups import evaluate_occluded
from ytvis.score.ytvos import load_pair

CONFIG = "STMask_demo_config"
FRESH = ("prediction_layers.", "TemporalNet.")  # the compared parts, which do not start from the checkpoint
NO_FUSION = ["temporal_fusion.enabled=false"]
ROWS = {
    "square kernels": ["head.square_kernels=true", "head.calibration=none", *NO_FUSION],
    "FCA": ["head.calibration=none", *NO_FUSION],
    "FCA + FCB ali": ["head.calibration=ali", *NO_FUSION],
    "FCA + FCB ada": ["head.calibration=ada", *NO_FUSION],
    "FCA + FCB ada + TF (the demo)": [],
    "the demo, centerness_kernel_major on": ["quirks.centerness_kernel_major=true"],
    "the demo, ohem_weights_by_position on": ["quirks.ohem_weights_by_position=true"],
}
START = "start.pth"
# The published weights of the tracker and scores of tracks; the demo's are tuned for its shipped network.
COMMON = [
    *("input.size_hw=128,224", "tracking.match_coeff=0,1,2,0", "tracking.new_object_iou=0.3"),
    "postprocess.length_power=0",
]
COLUMNS = ("AP", "AP50", "AR10", "AP occluded", "HOTA")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("results/ablation"), help="folder of the runs")
    parser.add_argument("--start", metavar="FILE", help="checkpoint with the features that all runs start from")
    parser.add_argument("--training_set", type=Path, default=Path(get_config(CONFIG).dataset.root), metavar="DIR")
    parser.add_argument("--max_iter", type=int, default=350, help="iterations of every run (default: %(default)s)")
    parser.add_argument("--batch_size", type=int, default=2, help="clips a step (default: %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds, one run for each (default: 0 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only print the table of the finished runs")
    options = parser.parse_args()
    if not options.table:
        if not options.start:
            parser.error("pass --start=FILE, a checkpoint of the demo's network")
        options.output.mkdir(parents=True, exist_ok=True)
        state = load_state_dict(find_checkpoint(options.start, WEIGHT_NAMES))
        features = {name: value for name, value in state.items() if not name.startswith(FRESH)}
        save_state_dict(features, options.output / START)
        runs = [(row, seed) for seed in options.seeds for row in ROWS]
        with ThreadPoolExecutor(options.jobs) as pool:
            list(pool.map(lambda run: train_and_score(*run, options), runs))
    print(table(options.output, options.seeds))
    return 0


def train_and_score(row: str, seed: int, options: argparse.Namespace) -> None:
    """Trains and scores a run; does nothing if its metrics.json exists."""
    folder = run_folder(options.output, row, seed)
    if (folder / "metrics.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    common = [f"--config={CONFIG}", *(f"--set={key}" for key in (*COMMON, *ROWS[row])), "--num_workers=1"]
    train = [
        *(f"--batch_size={options.batch_size}", f"--max_iter={options.max_iter}", f"--seed={seed}"),
        "--set=train.warmup_iterations=100",  # that of the documented runs, although they are shorter than the recipe
        *(f"--ann_file={options.training_set}/annotations/train.json",),
        *(f"--image_root={options.training_set}/train/JPEGImages", f"--set=train.pretrained={options.output / START}"),
        *(f"--save_folder={folder}", "--keep_latest", "--save_interval=50"),
    ]
    if list(folder.glob("*.pth")):
        train.append("--resume=latest")
    results = folder / "results.json"
    with open(folder / "run.log", "a", encoding="utf-8") as log:
        call = {"stdout": log, "stderr": log, "check": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
        subprocess.run([sys.executable, "train.py", *common, *train], **call)
        subprocess.run(
            [sys.executable, "eval.py", *common, f"--trained_model={folder}/latest", f"--mask_det_file={results}"],
            **call,
        )
    metrics = score(str(results))
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n")
    print(f"{row}, seed {seed}: " + " ".join(f"{k} {100 * v:.1f}" for k, v in metrics.items()), file=sys.stderr)


def score(results: str) -> dict[str, float]:
    """The columns of the table for one results file, 0…1."""
    dataset = get_config(CONFIG).dataset
    truth = Path(dataset.root) / dataset.valid.ann_file[0]
    occluded = float(evaluate_occluded(*load_pair(truth, results)).stats[0])
    return {**measure_scores(truth, results), "AP occluded": occluded}


def table(output: Path, seeds: list[int]) -> str:
    """The Markdown table of all runs in `output`."""
    lines = [f"| | seeds | {' | '.join(COLUMNS)} |", "|---|---|" + "---|" * len(COLUMNS)]
    for row in ROWS:
        files = [run_folder(output, row, seed) / "metrics.json" for seed in seeds]
        runs = [json.loads(file.read_text()) for file in files if file.exists()]
        if runs:
            cells = [cell([100 * run[column] for run in runs]) for column in COLUMNS]
            lines.append(f"| {row} | {len(runs)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values: list[float]) -> str:
    """Mean ± half the spread."""
    return f"{sum(values) / len(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"


def run_folder(output: Path, row: str, seed: int) -> Path:
    """The folder of a run's files."""
    return output / f"{row.replace(' ', '_').replace('(', '').replace(')', '').replace(',', '')}_{seed}"


if __name__ == "__main__":
    sys.exit(main())
