"""Runs the commands on damaged files and odd arguments, and checks how they end.

    python -m tools.fuzz --count 2000 --seed 1
    python -m tools.fuzz --kinds annotations,checkpoints --count 200 --keep fuzz_failures

Each input is a valid one with damage that depends on the seed and the number alone (`tools.mutations`), and runs in its
own process. It fails if the process prints a traceback, ends by a signal, takes longer than --seconds or more than
--megabytes above its memory at the start, or ends with exit code 2 without an error in its last line. --keep stores the
files of failed inputs. It needs Linux.
"""

import contextlib
import io
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

import eval as eval_command
import train as train_command
from data.config import get_config
from data.dataset import YTVISDataset
from stmask import STMask
from tools.mutations import mutate_bytes, mutate_json
from utils import checkpoint as checkpoint_command
from ytvis.__main__ import main as ytvis_command
from ytvis.command_line import Parser
from ytvis.files import InputError
from ytvis.masks import encode_masks

HEIGHT, WIDTH, LENGTH = 32, 48, 3
CONFIG = "STMask_demo_config"
TINY = ["--config", CONFIG, "--set", "input.size_hw=32,64", "--device", "cpu", "--num_workers", "0"]
PICTURES = (".jpg", ".png", ".webp", ".bmp", ".tif", ".gif")
WORDS = (
    *(
        "",
        "-1",
        "0",
        "1e400",
        "nan",
        "9" * 5000,
        "x" * 100_000,
        "é",
        "a\nb",
        "a\0b".replace("\0", "\\0"),
        "--",
        "-",
        "/",
    ),
    *("/dev/null", "/dev/zero", "/proc/self/mem", ".", "..", "x/" * 2000, "loop", "fifo", "missing.json", "out"),
)


@dataclass(frozen=True)
class Case:
    """One input: the function to run in its own process, and the command line as typed by a user."""

    text: str
    run: Callable[[], int | None]


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `fault` is empty if it ended correctly."""

    fault: str
    code: int
    output: str


# ------------------------------------------------------------------------------------------------ valid files


def write_seeds(folder: Path) -> None:
    """A small data set, results, sources of each format, pictures and checkpoints, all valid, in `folder`."""
    rng = np.random.default_rng(0)
    names = [[f"{video}/{frame:05d}.jpg" for frame in range(LENGTH)] for video in ("one", "two")]
    for name in [name for video in names for name in video]:
        path = folder / "frames" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = cv2.resize(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), (WIDTH, HEIGHT))
        cv2.imwrite(str(path), picture)
    masks = np.zeros((LENGTH, HEIGHT, WIDTH), bool)
    for frame in range(LENGTH):
        masks[frame, 4:20, 4 + frame : 24] = True
    rles = encode_masks(masks)
    runs = {"size": [HEIGHT, WIDTH], "counts": [10, 20, HEIGHT * WIDTH - 30]}
    polygon = [[5.0, 5.0, 25.0, 5.0, 25.0, 20.0]]
    size = {"width": WIDTH, "height": HEIGHT}
    track = {"iscrowd": 0, "bboxes": [[4.0, 4.0, 20.0, 16.0], None, None], "areas": [320.0, 304.0, None]}
    annotations = {
        "info": {"description": "small"},
        "videos": [{"id": i + 1, **size, "length": LENGTH, "file_names": names[i]} for i in range(2)],
        "categories": [{"id": 1, "name": "circle"}, {"id": 2, "name": "ring"}],
        "annotations": [
            {"id": 1, "video_id": 1, "category_id": 1, "segmentations": [*rles[:2], None], **track},
            {"id": 2, "video_id": 1, "category_id": 2, "segmentations": [polygon, None, runs], **track},
            {"id": 3, "video_id": 2, "category_id": 2, "segmentations": [None, polygon, rles[2]], **track},
        ],
    }
    coco = {
        "images": [{"id": i + 1, **size, "file_name": name} for i, name in enumerate(names[0])],
        "categories": annotations["categories"],
        "annotations": [
            {"id": i + 1, "image_id": i + 1, "category_id": 1, "track_id": 5, "iscrowd": 0, "segmentation": value}
            | {"bbox": [5, 5, 20, 15], "area": 150.0}
            for i, value in enumerate((polygon, rles[1], runs))
        ],
    }
    results = [
        {"video_id": 1, "category_id": 1, "score": 0.9, "segmentations": [*rles[:2], None]},
        {"video_id": 1, "category_id": 2, "score": 0.4, "segmentations": [None, None, rles[2]]},
        {"video_id": 2, "category_id": 2, "score": 0.7, "segmentations": list(rles), "scores": [0.7, 0.7, 0.7]},
    ]
    for name, content in (("ann", annotations), ("coco", coco), ("results", results)):
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    for to in ("labelme", "davis", "mots", "yolo"):
        images = ["--images", str(folder / "frames")] if to == "labelme" else []
        with contextlib.redirect_stdout(io.StringIO()):
            ytvis_command(["convert", "ytvis", str(folder / "ann.json"), str(folder / to), "--to", to, *images])
    shutil.copytree(folder / "frames", folder / "yolo" / "images")
    (folder / "cvat.xml").write_text(CVAT, "utf-8")
    for ending in PICTURES:
        Image.fromarray(picture).save(folder / f"picture{ending}")
    torch.manual_seed(0)
    with torch.inference_mode():
        state = {name: value.clone() for name, value in STMask.from_config(tiny_config()).state_dict().items()}
    torch.save(state, folder / "STMask_demo.pth")


CVAT = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><name>one</name><size>{LENGTH}</size><start_frame>0</start_frame><stop_frame>{LENGTH - 1}</stop_frame>
<original_size><width>{WIDTH}</width><height>{HEIGHT}</height></original_size></task></meta>
<track id="0" label="circle"><box frame="0" outside="0" xtl="4" ytl="4" xbr="20" ybr="16" occluded="0" keyframe="1"/>
<polygon frame="1" outside="0" points="4,4;20,4;20,16" occluded="0" keyframe="1"/>
<mask frame="2" outside="0" rle="0, 6, 3" left="2" top="2" width="3" height="3" occluded="0" keyframe="1"/></track>
</annotations>
"""


def tiny_config():
    """The config of the network whose checkpoints are damaged."""
    return get_config(CONFIG, {"input.size_hw": (32, 64)})


# ------------------------------------------------------------------------------------------------ cases


def damaged_json(path: Path, target: Path, rng: random.Random) -> None:
    """Writes a damaged copy of the JSON file `path`."""
    if rng.random() < 0.8:
        text = mutate_json(json.loads(path.read_text("utf-8")), rng, rng.choice((1, 1, 2, 4)))
        target.write_text(text, "utf-8")
    else:
        target.write_bytes(mutate_bytes(path.read_bytes(), rng))


def command(name: str, main: Callable[[list[str]], int], arguments: Sequence[str]) -> Case:
    """The case of a command line."""
    arguments = [str(argument) for argument in arguments]
    return Case(f"{name} {shlex.join(argument[:200] for argument in arguments)}", lambda: main(arguments))


def annotations_case(seeds: Path, folder: Path, rng: random.Random) -> Case:
    """A damaged annotation file, for every command that reads one, and for training's reader."""
    file = folder / "ann.json"
    damaged_json(seeds / rng.choice(("ann.json", "ann.json", "coco.json")), file, rng)
    frames, results = seeds / "frames", seeds / "results.json"
    lines = [
        ["check", file],
        ["check", file, "--images", frames],
        ["check", results, "--ann_file", file],
        ["score", file, results],
        [
            "convert",
            "ytvis",
            file,
            folder / "out",
            "--to",
            rng.choice(("labelme", "coco", "davis", "mots", "yolo", "ytvis")),
        ],
        ["convert", "coco", file, folder / "out.json"],
        ["browse", file, "--images", frames, "--output", folder / "sheet.png"],
        ["report", file, results, folder / "report"],
        ["view", results, "--images", frames, "--ann_file", file, "--export", folder / "page", "--no_browser"],
        ["merge", file, seeds / "ann.json", folder / "merged.json"],
    ]
    if rng.random() < 0.2:
        return Case(f"YTVISDataset({file})", lambda: load_everything(file, frames))
    return command("ytvis", ytvis_command, rng.choice(lines))


def load_everything(file: Path, frames: Path) -> int:
    """Reads the truth of all frames of an annotation file, as training does; 2 if it is refused."""
    try:
        dataset = YTVISDataset(file, frames, ("circle", "ring"))
        for video in dataset.videos:
            for frame in dataset.annotated_frames(video.video_id):
                dataset.frame_annotations(video.video_id, frame)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def results_case(seeds: Path, folder: Path, rng: random.Random) -> Case:
    """A damaged results file, for every command that reads one."""
    file, truth, frames = folder / "results.json", seeds / "ann.json", seeds / "frames"
    damaged_json(seeds / "results.json", file, rng)
    lines = [
        ["check", file, "--ann_file", truth],
        ["score", truth, file],
        ["score", truth, seeds / "results.json", "--compare", file],
        ["report", truth, file, folder / "report", "--images", frames],
        ["view", file, "--images", frames, "--ann_file", truth, "--export", folder / "page", "--no_browser"],
        ["view", file, "--images", frames / "one", "--export", folder / "page", "--no_browser"],
    ]
    return command("ytvis", ytvis_command, rng.choice(lines))


def source_case(seeds: Path, folder: Path, rng: random.Random) -> Case:
    """A damaged file among the sources of a conversion."""
    kind = rng.choice(("labelme", "davis", "mots", "yolo", "cvat"))
    source = folder / kind
    if kind == "cvat":
        source = folder / "cvat.xml"
        source.write_bytes(mutate_bytes((seeds / "cvat.xml").read_bytes(), rng))
    else:
        shutil.copytree(seeds / kind, source)
        files = sorted(path for path in source.rglob("*") if path.is_file())
        path = rng.choice(files)
        if path.suffix == ".json":
            damaged_json(path, path, rng)
        else:
            path.write_bytes(mutate_bytes(path.read_bytes(), rng))
    images = ["--images", seeds / "frames"] if rng.random() < 0.5 else []
    return command("ytvis", ytvis_command, ["convert", kind, source, folder / "out.json", *images])


def picture_case(seeds: Path, folder: Path, rng: random.Random) -> Case:
    """A damaged picture among the frames of a data set, or of your own folder of frames."""
    ending = rng.choice(PICTURES)
    frames = folder / "frames"
    shutil.copytree(seeds / "frames", frames)
    damaged = mutate_bytes((seeds / f"picture{ending}").read_bytes(), rng)
    (frames / "one" / "00001.jpg").write_bytes(damaged)
    truth, results = seeds / "ann.json", seeds / "results.json"
    lines = [
        ["check", truth, "--images", frames],
        ["browse", truth, "--images", frames, "--output", folder / "sheet.png"],
        ["report", truth, results, folder / "report", "--images", frames],
        ["convert", "ytvis", truth, folder / "out", "--to", "labelme", "--images", frames],
    ]
    if rng.random() < 0.3:
        own = ["--trained_model", "random", *TINY[:-2], "--images", f"{frames / 'one'}:{folder / 'out'}"]
        return command("eval.py", eval_command.main, own)
    return command("ytvis", ytvis_command, rng.choice(lines))


def checkpoint_case(seeds: Path, folder: Path, rng: random.Random) -> Case:
    """A damaged checkpoint."""
    file = folder / "STMask_demo.pth"
    if rng.random() < 0.4:
        file.write_bytes(mutate_bytes((seeds / file.name).read_bytes(), rng))
    else:
        state = torch.load(seeds / file.name, weights_only=True)
        for _ in range(rng.choice((1, 1, 3))):
            damage_state(state, rng)
        torch.save(rng.choice((state, state, state, {"state_dict": state}, [state], None, 7)), file)
    if rng.random() < 0.5:
        return command("python -m utils.checkpoint", checkpoint_command.main, [file, folder / "out.pth", "--half"])
    return Case(f"STMask.from_pretrained({file})", lambda: load_checkpoint(file))


def load_checkpoint(file: Path) -> int:
    """Loads a checkpoint; 2 if it is refused."""
    try:
        STMask.from_pretrained(file, tiny_config(), "cpu")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def damage_state(state: dict, rng: random.Random) -> None:
    """Changes one entry of a state dict."""
    name = rng.choice(list(state))
    value = state[name]
    odd = (
        lambda: torch.empty(1).expand(60_000, 60_000),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.sparse_coo_tensor([[0], [0]], [1.0], (60_000, 60_000), check_invariants=True),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
        lambda: torch.ones(3, dtype=torch.complex64),
        lambda: torch.full_like(value, float("nan")) if value.is_floating_point() else value,
        lambda: value.flatten()[:1],
        lambda: value.expand(2, *value.shape),
        lambda: value.to(torch.int64),
        lambda: {"nested": value},
        lambda: [value, None],
        lambda: "text",
        lambda: 10**400,
        lambda: None,
    )
    kind = rng.randrange(4)
    if kind == 0:
        del state[name]
    elif kind == 1:
        state[rng.choice(("module." + name, "x" * 5000, "a\nb", "\ud800", 5, "", None))] = value
    else:
        state[name] = rng.choice(odd)()


def line_case(seeds: Path, folder: Path, rng: random.Random) -> Case:
    """A command line with odd words."""
    os.chdir(folder)
    with contextlib.suppress(FileExistsError):
        os.symlink("loop", folder / "loop")
        os.mkfifo(folder / "fifo")
    truth, results, frames = seeds / "ann.json", seeds / "results.json", seeds / "frames"
    lines = {
        "check": [truth, "--images", frames],
        "convert": [rng.choice(("labelme", "coco", "davis", "mots", "yolo", "cvat", "ytvis")), truth, "out.json"],
        "score": [truth, results],
        "compare": [truth, results, results],
        "report": [truth, results, "report"],
        "browse": [truth, "--images", frames, "--output", "sheet.png"],
        "view": [results, "--images", frames, "--ann_file", truth],
        "merge": [truth, truth, "merged.json"],
        "split": [truth],
    }
    which = rng.choice((*lines, *lines, "eval.py", "train.py"))
    words = [str(word) for word in lines.get(which, ())]
    if which == "eval.py":
        words = ["--trained_model", "random", *TINY, "--ann_file", str(truth), "--image_root", str(frames)]
        words += ["--mask_det_file", "out.json"]
    if which == "train.py":
        words = [*TINY, "--max_iter", "1", "--batch_size", "1", "--save_folder", "out"]
        words += ["--ann_file", str(truth), "--image_root", str(frames)]
    for _ in range(rng.choice((1, 1, 2))):
        place = rng.randrange(len(words) + 1)
        if rng.random() < 0.8 and place < len(words):
            words[place] = rng.choice(WORDS)
        else:
            words.insert(place, rng.choice((*WORDS, "--images", "--set", "--columns", "--port", "--help", "--resume")))
    if which in ("eval.py", "train.py"):
        return command(which, {"eval.py": eval_command, "train.py": train_command}[which].main, words)
    if which == "view":  # without it the server runs until it is interrupted
        words += ["--export", "page"]
    return command("ytvis", ytvis_command, [which, *words])


KINDS = {
    "annotations": annotations_case,
    "results": results_case,
    "sources": source_case,
    "pictures": picture_case,
    "checkpoints": checkpoint_case,
    "lines": line_case,
}


# ------------------------------------------------------------------------------------------------ running them


def run_case(case: Case, folder: Path, seconds: float, megabytes: float) -> Outcome:
    """Runs a case in its own process, with `folder` as its working directory."""
    output = folder / ".output"
    begin = time.monotonic()
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        code = 70
        try:
            os.write(writer, str(_memory(1)).encode())
            descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), "utf-8", "replace", line_buffering=True)
            sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), "utf-8", "replace", line_buffering=True)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(folder)
            signal.alarm(int(seconds) + 1)
            _limit_memory(2 * megabytes)
            code = case.run() or 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status, usage = os.wait4(process, 0)
    start = float(os.read(reader, 100))
    os.close(reader)
    os.close(writer)
    took = time.monotonic() - begin
    code = os.waitstatus_to_exitcode(status)
    text = output.read_text("utf-8", "replace") if output.exists() else ""
    grown = usage.ru_maxrss / 1024 - start
    return Outcome(fault_of(code, text, took, grown, seconds, megabytes), code, text)


def _limit_memory(megabytes: float) -> None:
    """Limits the address space of this process to `megabytes` more than it has."""
    limit = int((_memory(0) + megabytes) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _memory(kind: int) -> float:
    """Megabytes of this process: 0 of address space, 1 resident."""
    return int(Path("/proc/self/statm").read_text().split()[kind]) * resource.getpagesize() / 2**20


def fault_of(code: int, text: str, took: float, grown: float, seconds: float, megabytes: float) -> str:
    """The fault in how a command ended; "" if it ended correctly."""
    if took > seconds:
        return f"took {took:.0f} s"
    if code < 0:
        return f"died of signal {-code}"
    if "Traceback (most recent call last)" in text:
        return "printed a traceback"
    if code not in (0, 1, 2, 130):
        return f"ended with exit code {code}"
    if grown > megabytes:
        return f"took {grown:.0f} MB"
    lines = text.rstrip("\n").split("\n")
    if code == 2 and "error:" not in lines[-1]:
        return "ended with exit code 2, and its last line is not an error"
    if max(map(len, lines)) > 4000:
        return "printed a line of more than 4000 characters"
    return ""


def fuzz(kinds: Sequence[str], count: int, seed: int, seconds: float, megabytes: float, keep: Path | None) -> Counter:
    """{fault: its count} for `count` inputs of `kinds` in turn; prints each failure as it happens."""
    faults: Counter[str] = Counter()
    torch.set_num_threads(1)  # a pool of threads does not survive a fork
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as temporary, contextlib.chdir(temporary):
        seeds = Path(temporary, "seeds")
        seeds.mkdir()
        write_seeds(seeds)
        for number in tqdm(range(count), "inputs", unit="input", mininterval=2):
            kind = kinds[number % len(kinds)]
            folder = Path(temporary, "case")
            folder.mkdir()
            case = KINDS[kind](seeds, folder, random.Random(f"{kind} {seed} {number}"))
            outcome = run_case(case, folder, seconds, megabytes)
            os.chdir(temporary)
            faults[outcome.fault] += 1
            if outcome.fault:
                tail = "\n    ".join(outcome.output.rstrip().split("\n")[-4:])
                print(f"{kind} {seed} {number}: {outcome.fault}: {case.text[:500]}\n    {tail[:2000]}", flush=True)
                if keep is not None:
                    shutil.copytree(folder, keep / f"{kind}_{seed}_{number}", symlinks=True, ignore=_no_fifos)
            shutil.rmtree(folder)
    return faults


def _no_fifos(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m tools.fuzz`: prints the failures; returns 1 if any input failed."""
    parser = Parser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=600, help="number of inputs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the inputs (default: %(default)s)")
    parser.add_argument(
        "--kinds", default=",".join(KINDS), help="kinds of inputs, separated by commas (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=60, help="longest time of an input (default: %(default)s)")
    parser.add_argument("--megabytes", type=float, default=2000, help="most memory of an input (default: %(default)s)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="folder to store the files of failed inputs in")
    options = parser.parse_args(arguments)
    kinds = options.kinds.split(",")
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        parser.error(f"unknown kind {unknown[0]!r}; choose from {', '.join(KINDS)}")
    keep = options.keep and options.keep.absolute()
    faults = fuzz(kinds, options.count, options.seed, options.seconds, options.megabytes, keep)
    fine = faults.pop("", 0)
    print(
        f"{options.count} inputs, {fine} ended correctly",
        *(f"{n} {fault}" for fault, n in faults.items()),
        sep="; ",
    )
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
