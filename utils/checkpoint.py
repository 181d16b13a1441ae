"""Checkpoints: plain state dicts under telling names, loaded safely and written whole.

python -m utils.checkpoint results/train_demo/latest weights/STMask_demo.pth --half    # weights to give away
python -m utils.checkpoint show weights/STMask_demo.pth                                # what is known of them

What a checkpoint says about itself is in it too (`utils.checkpoint_record`).
"""

import hashlib
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.checkpoint_record import CheckpointRecord, add_record, read_record
from utils.checkpoint_shapes import keys_of
from utils.weight_sources import find_weights, how_to_get, is_given, is_remote, named_in_table, weights_folder
from ytvis.annotations import match_categories, read_categories
from ytvis.command_line import Parser, run_command
from ytvis.files import InputError, atomic_write
from ytvis.messages import excerpt

StateDict = dict[str, Tensor]
SEARCH_WORDS = {"latest": "", "interrupt": "interrupted ", "best": "best "}  # and the kind of checkpoint they find
MOST_SHARED = 4  # times the size of its file that a checkpoint's tensors may take: some share their numbers
DTYPES = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64))
LONGEST_NAME = 80  # characters of a name from a file in a message

_NAME = re.compile(
    r"(?P<model>.+?)(_(?P<epoch>\d+)_(?P<iteration>\d+))?((?P<interrupted>_interrupt)|(?P<best>_best))?\.pth"
)
# What wrappers put before the names: DataParallel in front, torch.compile also before those of a part.
_WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")


@dataclass(frozen=True)
class CheckpointName:
    """The parts of a file name `<model>[_<epoch>_<iteration>][_interrupt|_best].pth`; numbers are 0 if absent."""

    model: str
    epoch: int = 0
    iteration: int = 0
    interrupted: bool = False
    best: bool = False

    @classmethod
    def parse(cls, path: str | Path) -> "CheckpointName | None":
        """The parts of the name of `path`, or None if it does not end in .pth."""
        match = _NAME.fullmatch(Path(path).name)
        if match is None:
            return None
        numbers = (int(match[name] or 0) for name in ("epoch", "iteration"))
        return cls(match["model"], *numbers, match["interrupted"] is not None, match["best"] is not None)

    def is_called(self, word: str) -> bool:
        """Whether `word` of `SEARCH_WORDS` can stand for a file of this name."""
        return self.best if word == "best" else not self.best and (self.interrupted or word == "latest")


def find_checkpoint(
    path: str | Path, weight_names: Mapping[str, str], config_name: str | None = None, as_start: bool = False
) -> Path:
    """The file that `path` names: itself, what `[folder/]latest`, `interrupt` or `best` stands for, or a download.

    The words stand for files of a known model (of `config_name`, if given) in the folder, by default that of downloads:
    the one with the highest iteration; among interrupted ones; or the one with the best score of a validation. Files
    that others trained (`is_given`) only count where there is no other. Addresses and bare names of the model table are
    those of `utils.weight_sources`; torchvision's weights are only taken `as_start` of a training.

    Raises:
        InputError: there is none, or there are some of several models and no `config_name` (the message names one of
            each), or a download fails.
    """
    if is_remote(path):
        if path.lower().startswith("torchvision:") and not as_start:
            raise InputError(
                f"{path}: is only a start for a training, not a trained model; use it as --set train.pretrained={path}"
            )
        return find_weights(path)
    folders, path = _searched_folders(path), Path(path)
    if os.path.isfile(path):
        return path
    if path.name not in SEARCH_WORDS:
        return _in_table(path, weight_names)
    where = " and ".join(map(str, folders))
    found: dict[tuple[bool, str], list[tuple[int, float, Path]]] = {}
    unfit: dict[str, list[str]] = {}
    for file in sorted(file for folder in folders for file in folder.glob("*.pth")):
        reason = _reason_against(file, path.name, weight_names, config_name)
        if reason:
            unfit.setdefault(reason, []).append(file.name)
            continue
        name = CheckpointName.parse(file)
        given = is_given(file) or (name.iteration == 0 and not name.best)
        candidates = found.setdefault((given, weight_names[name.model]), [])
        candidates.append((name.iteration, file.stat().st_mtime, file))
    if not found:
        kind = SEARCH_WORDS[path.name]
        seen = "; ".join(f"{reason}: {_examples(names, 3)}" for reason, names in unfit.items())
        raise InputError(
            f"{where}: no {kind}checkpoint{f' of {config_name}' if config_name else ''} there; "
            + (f"name a file instead; {seen}" if seen else "there is no .pth file")
        )
    given_alone = all(given for given, _ in found)
    best = [max(candidates)[-1] for (given, _), candidates in found.items() if given == given_alone]
    if len(best) > 1:
        raise InputError(f"{where}: checkpoints of several models there; name one: {', '.join(map(str, best))}")
    return best[0]


def _reason_against(file: Path, word: str, weight_names: Mapping[str, str], config_name: str | None) -> str:
    """Why `word` of `SEARCH_WORDS` cannot stand for `file`; empty if it can."""
    name = CheckpointName.parse(file)
    model = weight_names.get(name.model) if name else None
    if not os.path.isfile(file):
        return "no file"
    if model is None:
        return "its name is that of no config"
    if config_name not in (None, model):
        return f"of {model}"
    if name.is_called(word):
        return ""
    if name.best:
        return "the best of a validation"
    return "not interrupted" if word == "interrupt" else "not the best of a validation"


def _in_table(path: Path, weight_names: Mapping[str, str]) -> Path:
    """For a path without a file: the file that a bare name of the model table, or weights/NAME, stands for.

    The file of a bare name is downloaded if it is on the hub; otherwise the result need not exist.
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

    The prefixes of DataParallel and torch.compile, "module." and "_orig_mod.", are removed from the names.

    Raises:
        InputError: the file does not exist, is not a checkpoint or not a plain state dict, has tensors without their
            numbers, or values that are not finite.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; name a file in it (there: {_neighbours(path)}), or {path}/latest")
    if not os.path.isfile(path):  # Path.is_file raises where the name is too long
        raise InputError(f"{path}: no such file (in {path.parent}: {_neighbours(path.parent)}); {how_to_get(path)}")
    state = _load(path, "download or save it again")
    plain = isinstance(state, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items())
    if not plain or not state:
        raise InputError(f"{path}: not a plain state dict (name → tensor); save `model.state_dict()`")
    return {_WRAPPERS.sub("", name): value for name, value in state.items()}


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
            raise InputError(f"{path}: {name} is not an ordinary tensor of real numbers; {advice}")
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


def save_state_dict(state: Mapping[str, Tensor], path: str | Path, record: CheckpointRecord | None = None) -> None:
    """Writes a plain state dict, whole or not at all, with what it says about itself, if given.

    Raises:
        InputError: it cannot be written there, the disk is full, say.
    """
    _save({name: value.detach().cpu() for name, value in state.items()}, path, record)


def save_training_state(state: Mapping, checkpoint: str | Path) -> None:
    """Writes what training needs beside the weights to go on: `<checkpoint without .pth>.state`.

    Raises:
        InputError: as `save_state_dict`.
    """
    _save(dict(state), Path(checkpoint).with_suffix(".state"))


def _save(content: dict, path: str | Path, record: CheckpointRecord | None = None) -> None:
    with atomic_write(path, "w+b") as file:
        torch.save(content, file)
        if record is not None:
            add_record(file, record)


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


def publish(
    source: Path,
    target: Path,
    half: bool = False,
    config: str = "",
    class_names: Sequence[str] = (),
    ann_file: Path | None = None,
) -> None:
    """Writes the checkpoint `source` to `target`, with `half` its floating point tensors in half the size (float16).

    Networks take such weights as they are and compute in their own precision. What `source` says about itself goes
    along; `config`, `class_names` and `ann_file`, the file whose category ids the classes have, are for one that lacks
    or mistakes them.

    Raises:
        InputError: `source` cannot be used, or with `half` a weight is too large for float16, or there is another
            number of class names than of classes, or `ann_file` cannot be read or has other classes.
    """
    state = load_state_dict(source)
    record = read_record(source) or CheckpointRecord()
    if config:
        record = replace(record, config=config)
    if class_names:
        expected = keys_of(state).get("num_classes", len(class_names))
        if expected != len(class_names):
            raise InputError(f"{source}: has {expected} classes, and --class_names {len(class_names)}")
        record = replace(record, class_names=tuple(class_names), category_ids=(), category_names=())
    if ann_file is not None:
        record = with_categories(record, ann_file)
    if half:
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        for name, value in state.items():
            if not value.isfinite().all():
                raise InputError(f"{source}: {name} has values that float16 cannot hold; leave --half away")
    save_state_dict(state, target, record)


def with_categories(record: CheckpointRecord, ann_file: Path) -> CheckpointRecord:
    """`record` with the category ids and names that an annotation file has for its classes.

    Raises:
        InputError: the file cannot be read, its classes are others, or the record has none.
    """
    if not record.class_names:
        raise InputError("the checkpoint does not say its classes; give them with --class_names")
    categories = read_categories(ann_file)
    by_label = {label: number for number, label in match_categories(categories, record.class_names, ann_file).items()}
    ids = tuple(by_label.get(label) for label in range(1, len(record.class_names) + 1))
    return replace(record, category_ids=ids, category_names=tuple(categories.get(number) for number in ids))


def describe(path: Path) -> str:
    """Some lines of what a checkpoint says about itself, and of what the names and shapes of its tensors tell.

    Raises:
        InputError: the file cannot be used.
    """
    state = load_state_dict(path)
    record = read_record(path)
    numbers = sum(value.numel() for value in state.values())
    lines = [f"{path}: {len(state)} tensors, {numbers / 1e6:.2f} M numbers"]
    lines.append(str(record) if record else "says nothing about itself")
    told = "".join(f"\n    {key} = {value}" for key, value in keys_of(state).items())
    lines.append(f"keys found from its tensors:{told}" if told else "its tensors do not belong to any network here")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments[:1] == ["show"]:
        return _show(arguments[1:])
    parser = Parser(
        "python -m utils.checkpoint",
        "Write a checkpoint's weights, to give them away, with what they say about themselves.",
        epilog="python -m utils.checkpoint show FILE prints what is known of a checkpoint",
    )
    _add_source(parser, "source")
    parser.add_argument("target", type=Path, help="file to write; its name should tell the config (weights/README.md)")
    parser.add_argument("--half", action="store_true", help="as float16: half the size")
    parser.add_argument("--config", metavar="NAME", help="config, of a file that does not tell it")
    parser.add_argument("--class_names", metavar="NAME,…", help="its classes, in the order of the labels")
    parser.add_argument(
        "--ann_file", type=Path, metavar="FILE", help="annotation file that it was trained on: its category ids"
    )
    options = parser.parse_args(arguments)

    def work() -> None:
        names = [name.strip() for name in (options.class_names or "").split(",") if name.strip()]
        source = _source(options.source)
        publish(source, options.target, options.half, options.config or "", names, options.ann_file)
        size = os.path.getsize(options.target) / 2**20
        print(f"{options.target}: {size:.1f} MiB, sha256 {fingerprint(options.target)}")

    return run_command("utils.checkpoint", work)


def _show(arguments: Sequence[str]) -> int:
    """The command `show`; returns the exit code."""
    parser = Parser(
        "python -m utils.checkpoint show", "Print what is known of a checkpoint: what it says about itself."
    )
    _add_source(parser, "file")
    options = parser.parse_args(arguments)
    return run_command("utils.checkpoint", lambda: print(describe(_source(options.file))))


def _add_source(parser: Parser, name: str) -> None:
    words = f"[FOLDER/]{', '.join(SEARCH_WORDS)} of a folder with those of one model (default: weights)"
    parser.add_argument(name, help=f"checkpoint, or {words}")


def _source(word: str) -> Path:
    """The checkpoint that `word` stands for, of any model."""
    parsed = (CheckpointName.parse(file) for folder in _searched_folders(word) for file in folder.glob("*.pth"))
    return find_checkpoint(word, {name.model: name.model for name in parsed if name})


def _searched_folders(path: str | Path) -> list[Path]:
    """Where `find_checkpoint` looks for what `path` stands for: where downloads are and in weights, unless it names a
    folder, as ./latest does."""
    folder = os.path.dirname(path)
    return [Path(folder)] if folder else list(dict.fromkeys((weights_folder(), Path("weights"))))


def _examples(names: Sequence[str], count: int = 2) -> str:
    return ", ".join(excerpt(name, LONGEST_NAME) for name in names[:count]) + (", …" if len(names) > count else "")


if __name__ == "__main__":
    sys.exit(main())
