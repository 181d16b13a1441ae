"""Checkpoints: plain state dicts under telling names, loaded safely and written whole.

python -m utils.checkpoint results/train_demo/latest weights/STMask_demo.pth --half    # weights to give away
"""

import hashlib
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.weight_sources import find_weights, how_to_get, is_remote, named_in_table, weights_folder
from ytvis.command_line import Parser, run_command
from ytvis.files import InputError, atomic_write
from ytvis.messages import excerpt

StateDict = dict[str, Tensor]
SEARCH_WORDS = ("latest", "interrupt")
MOST_SHARED = 4  # times the size of its file that a checkpoint's tensors may take: some share their numbers
DTYPES = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64))
LONGEST_NAME = 80  # characters of a name from a file in a message

_NAME = re.compile(r"(?P<model>.+?)(_(?P<epoch>\d+)_(?P<iteration>\d+))?(?P<interrupted>_interrupt)?\.pth")


@dataclass(frozen=True)
class CheckpointName:
    """The parts of a file name `<model>[_<epoch>_<iteration>][_interrupt].pth`; epoch and iteration are 0 if absent."""

    model: str
    epoch: int = 0
    iteration: int = 0
    interrupted: bool = False

    @classmethod
    def parse(cls, path: str | Path) -> "CheckpointName | None":
        """The parts of the name of `path`, or None if it does not end in .pth."""
        match = _NAME.fullmatch(Path(path).name)
        if match is None:
            return None
        return cls(
            match["model"], int(match["epoch"] or 0), int(match["iteration"] or 0), match["interrupted"] is not None
        )


def config_name_of(path: str | Path, weight_names: Mapping[str, str]) -> str:
    """The config that a checkpoint's file name stands for in `weight_names` (name of a model's weights → config).

    Raises:
        InputError: the name stands for none.
    """
    name = CheckpointName.parse(path)
    if name is None or name.model not in weight_names:
        raise InputError(
            f"{path}: the file name does not tell which model this is; add --config=NAME "
            "(`python -m data.config` lists the names)"
        )
    return weight_names[name.model]


def find_checkpoint(
    path: str | Path, weight_names: Mapping[str, str], config_name: str | None = None, as_start: bool = False
) -> Path:
    """The file that `path` names: itself, what `[folder/]latest` and `[folder/]interrupt` stand for, or a download.

    The former are the file of a known model (of `config_name`, if given) in the folder, by default `weights`, with the
    highest iteration; `interrupt` considers interrupted ones only. Addresses and bare names of the model table are
    those of `utils.weight_sources`; torchvision's weights are no trained model, only taken `as_start` of a training.

    Raises:
        InputError: none there, or of several models and no `config_name` (the message names one of each), or a download
            that fails.
    """
    if is_remote(path):
        if path.lower().startswith("torchvision:") and not as_start:
            raise InputError(f"{path}: is a start for a training, no trained model; say --set train.pretrained={path}")
        return find_weights(path)
    folder, path = _searched_folder(path), Path(path)
    if os.path.exists(path):
        return path
    if path.name not in SEARCH_WORDS:
        return _in_table(path, weight_names)
    found: dict[str, list[tuple[int, float, Path]]] = {}
    for file in sorted(folder.glob("*.pth")):
        name = CheckpointName.parse(file)
        model = weight_names.get(name.model) if name else None
        wanted = model is not None and config_name in (None, model)
        if wanted and (name.interrupted or path.name == "latest"):
            found.setdefault(model, []).append((name.iteration, file.stat().st_mtime, file))
    if not found:
        kind = "interrupted " if path.name == "interrupt" else ""
        raise InputError(f"{folder}: no {kind}checkpoint{f' of {config_name}' if config_name else ''} there")
    best = [max(candidates)[-1] for candidates in found.values()]
    if len(best) > 1:
        raise InputError(f"{folder}: checkpoints of several models there; name one: {', '.join(map(str, best))}")
    return best[0]


def _in_table(path: Path, weight_names: Mapping[str, str]) -> Path:
    """For a path without a file: the file that a bare name of the model table, or weights/NAME, stands for.

    Of a bare name the file is downloaded if it is on the hub; it need not exist otherwise.
    """
    stem = path.name.removesuffix(".pth")
    if path.name == str(path):
        if named_in_table(stem):
            return find_weights(stem)
        return weights_folder() / f"{stem}.pth" if stem in weight_names else path
    elsewhere = weights_folder() / path.name
    return elsewhere if path.parent == Path("weights") and os.path.isfile(elsewhere) else path


def load_state_dict(path: str | Path) -> StateDict:
    """The state dict in the file `path`, on the CPU; nothing in the file is executed.

    Names written by DataParallel lose their "module." prefix.

    Raises:
        InputError: no such file, not a checkpoint, not a plain state dict, with tensors that the file does not hold the
            numbers of, or with values that are not finite.
    """
    path = Path(path)
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise InputError(f"{path}: no such file (in {path.parent}: {_neighbours(path.parent)}); {how_to_get(path)}")
    state = _load(path, "download or save it again")
    plain = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not plain or not state:
        raise InputError(f"{path}: not a plain state dict (name → tensor); save `model.state_dict()`")
    return {name.removeprefix("module."): value for name, value in state.items()}


def _neighbours(folder: Path, most: int = 10) -> str:
    """The names of the checkpoints in a folder, as far as it can be read."""
    try:
        names = sorted(file.name for file in folder.glob("*.pth"))
    except OSError:
        names = []
    return _examples(names, most) or "no .pth file"


def _load(path: Path, advice: str) -> Any:
    """What `torch.save` wrote to a file, on the CPU; nothing in it is executed, and every tensor in it is an ordinary
    one with finite values, which together are no larger than the file makes plausible.

    Raises:
        InputError: it is anything else; the message ends with `advice`.
    """
    size = os.path.getsize(path)
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > size:  # torch does not compress
                    raise ValueError
        with warnings.catch_warnings(action="ignore"):  # of kinds of tensors that are refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise almost anything; its advice would be to load unsafely
        kind = type(error).__name__
        raise InputError(f"{path}: not a checkpoint that loads safely ({kind}); {advice}") from None
    tensors = list(_tensors(content))
    for name, value in tensors:
        if value.dtype not in DTYPES or value.layout != torch.strided or value.is_nested or value.is_meta:
            raise InputError(f"{path}: {name} is no ordinary tensor of real numbers; {advice}")
    if sum(value.numel() * value.element_size() for _, value in tensors) > MOST_SHARED * size + 2**20:
        raise InputError(f"{path}: its tensors are larger than the file: their numbers are not there; {advice}")
    for name, value in tensors:
        if not value.isfinite().all():
            raise InputError(f"{path}: {name} holds values that are not finite; take a checkpoint from before that")
    return content


def _tensors(content: Any) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of all tensors in nested dicts, lists and tuples, each container once."""
    waiting, seen = [("it", content)], set()
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(excerpt(key, LONGEST_NAME), item) for key, item in items]


def save_state_dict(state: Mapping[str, Tensor], path: str | Path) -> None:
    """Writes a plain state dict, whole or not at all.

    Raises:
        InputError: it cannot be written there, the disk is full, say.
    """
    _save({name: value.detach().cpu() for name, value in state.items()}, path)


def save_training_state(state: Mapping, checkpoint: str | Path) -> None:
    """Writes what training needs beside the weights to go on: `<checkpoint without .pth>.state`.

    Raises:
        InputError: as `save_state_dict`.
    """
    _save(dict(state), Path(checkpoint).with_suffix(".state"))


def _save(content: dict, path: str | Path) -> None:
    with atomic_write(path, "wb") as file:
        torch.save(content, file)


def load_training_state(checkpoint: str | Path) -> dict[str, Any] | None:
    """What `save_training_state` wrote beside `checkpoint`, or None if there is nothing.

    Raises:
        InputError: the file is damaged, or holds something else.
    """
    path = Path(checkpoint).with_suffix(".state")
    if not os.path.isfile(path):
        return None
    advice = "delete it to resume with the weights only"
    state = _load(path, advice)
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise InputError(f"{path}: holds no state of a training; {advice}")
    return state


def fingerprint(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Mismatch:
    """How a checkpoint differs from what a network expects: names of tensors; whole numbers count as another shape."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.reshaped)

    def __str__(self) -> str:
        """One line: how many tensors are missing, unexpected and of another shape, with examples."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return "; ".join(f"{len(names)} {kind} ({_examples(names)})" for kind, names in kinds.items() if names)


def compare(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Mismatch:
    """How the tensors of `state` differ from those `expected`, by name and shape.

    `num_batches_tracked`, which nothing reads and old checkpoints lack, is not missed.
    """
    return Mismatch(
        missing=tuple(k for k in expected if k not in state and not k.endswith("num_batches_tracked")),
        unexpected=tuple(k for k in state if k not in expected),
        reshaped=tuple(k for k in expected if k in state and not _is_alike(state[k], expected[k])),
    )


def _is_alike(value: Tensor, expected: Tensor) -> bool:
    """Whether a tensor is of the expected shape, and of floating-point numbers if that is expected."""
    return value.shape == expected.shape and value.is_floating_point() >= expected.is_floating_point()


def publish(source: Path, target: Path, half: bool = False) -> None:
    """Writes the checkpoint `source` to `target`, with `half` its floating point tensors in half the size (float16).

    Networks take such weights as they are and compute in their own precision.

    Raises:
        InputError: `source` cannot be used, or with `half` a weight is too large for float16.
    """
    state = load_state_dict(source)
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        for name, value in state.items():
            if not value.isfinite().all():
                raise InputError(f"{source}: {name} has values that float16 cannot hold; leave --half away")
    save_state_dict(state, target)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser("python -m utils.checkpoint", "Write a checkpoint's weights, to give them away.")
    parser.add_argument(
        "source", help="checkpoint, or [FOLDER/]latest of a folder with those of one model (default: weights)"
    )
    parser.add_argument("target", type=Path, help="file to write; its name should tell the config (weights/README.md)")
    parser.add_argument("--half", action="store_true", help="as float16: half the size")
    options = parser.parse_args(arguments)

    def work() -> None:
        parsed = map(CheckpointName.parse, _searched_folder(options.source).glob("*.pth"))
        source = find_checkpoint(options.source, {name.model: name.model for name in parsed if name})
        publish(source, options.target, options.half)
        size = os.path.getsize(options.target) / 2**20
        print(f"{options.target}: {size:.1f} MiB, sha256 {fingerprint(options.target)}")

    return run_command("utils.checkpoint", work)


def _searched_folder(path: str | Path) -> Path:
    """Where `find_checkpoint` looks for what `path` stands for: weights, unless it names a folder, as ./latest does."""
    return Path(os.path.dirname(path) or "weights")


def _examples(names: Sequence[str], count: int = 2) -> str:
    return ", ".join(excerpt(name, LONGEST_NAME) for name in names[:count]) + (", …" if len(names) > count else "")


if __name__ == "__main__":
    sys.exit(main())
