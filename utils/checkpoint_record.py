"""What a checkpoint says about itself: config, classes, data, iteration, scores, versions.

The record is a file of JSON in the archive that `torch.save` writes, beside the tensors' own: `torch.load` ignores it,
so the content stays a plain state dict. It is lost when the tensors are loaded and saved again; names and shapes then
still tell the network (`utils.checkpoint_shapes`).
"""

import json
import platform
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import IO, Any, Self

import torch

from ytvis.annotations import is_id, is_plain
from ytvis.files import InputError
from ytvis.messages import excerpt, shown

FILE_NAME = "stmask.json"
LARGEST = 2**20  # bytes
LARGEST_NUMBER = 2**53
LONGEST_TEXT = 1000  # characters
DEEPEST = 3  # lists in lists of a config key


def is_text(value: Any) -> bool:
    """Whether it is text of one line, and no longer than names are."""
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and is_plain(value)


def is_stem(value: Any) -> bool:
    """Whether it is text that file names can begin with, as those of checkpoints do with their config's name."""
    return is_text(value) and not value.startswith(".") and not set(value) & {"/", "\\"}


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def is_count(value: Any) -> bool:
    return isinstance(value, int) and is_number(value) and value >= 0


def is_setting(value: Any, depth: int = 0) -> bool:
    """Whether it may be the value of a config key: a number, text, or lists of them."""
    if isinstance(value, list | tuple):
        return depth < DEEPEST and all(is_setting(item, depth + 1) for item in value)
    return isinstance(value, bool) or is_text(value) or is_number(value)


def _list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(holds, value))


def _dict_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(is_text(key) and holds(item) for key, item in value.items())


def _or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _part(default: Any, meaning: str, holds: Callable[[Any], bool]) -> Any:
    """A field of the record: its default, what `show` calls it, and which values it takes."""
    kind = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return field(**kind, metadata={"meaning": meaning, "holds": holds})


def _versions() -> dict[str, str]:
    return {"torch": torch.__version__.partition("+")[0], "python": platform.python_version()}


@dataclass(frozen=True)
class CheckpointRecord:
    """What a checkpoint says about itself. Whatever is not known is empty or None. Every record can be read again.

    `category_ids[i]` and `category_names[i]` are those that the data set's file has for class i of `class_names`, None
    where it lacks the class. `keys` are the config keys by which the named config differs from the defaults; `changed`
    are those by which the trained one differs from the named.

    Raises:
        InputError: a value cannot be in a record.
    """

    config: str = _part("", "config", is_stem)
    changed: Mapping[str, Any] = _part(dict, "keys that differ from it", _dict_of(is_setting))
    class_names: tuple[str, ...] = _part((), "classes", _list_of(is_text))
    category_ids: tuple[int | None, ...] = _part((), "category ids", _list_of(_or_none(is_id)))
    category_names: tuple[str | None, ...] = _part((), "category names", _list_of(_or_none(is_text)))
    data: Mapping[str, str] = _part(dict, "data", _dict_of(is_text))
    iteration: int | None = _part(None, "iteration", _or_none(is_count))
    epoch: int | None = _part(None, "epoch", _or_none(is_count))
    scores: Mapping[str, float] = _part(dict, "last validation", _dict_of(is_number))
    training: Mapping[str, Any] = _part(dict, "training", _dict_of(is_setting))
    versions: Mapping[str, str] = _part(dict, "versions", _dict_of(is_text))
    keys: Mapping[str, Any] = _part(dict, "keys of the config", _dict_of(is_setting))

    def __post_init__(self) -> None:
        for part in fields(self):
            value = getattr(self, part.name)
            if not part.metadata["holds"](value):
                raise InputError(
                    f"{part.name} is {shown(value, 60)}, which a checkpoint cannot hold; names are text of one line, "
                    f"of at most {LONGEST_TEXT} characters"
                )
        for name in ("category_ids", "category_names"):
            if len(getattr(self, name)) not in (0, len(self.class_names)):
                raise InputError(f"{name} has another length than class_names")
        if len(self.to_json()) > LARGEST:
            raise InputError(f"what a checkpoint says about itself cannot be larger than {LARGEST >> 20} MiB")

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The record of JSON text; names that are unknown here, a later version's, are left out.

        Raises:
            InputError, ValueError: it is not a record; the message says why in a few words.
        """
        try:
            values = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(values, dict):
            raise ValueError("it is not a JSON object")
        known = {part.name for part in fields(cls)}
        taken = {name: value for name, value in values.items() if name in known}
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in taken.items()})

    def to_json(self) -> bytes:
        """JSON text that `from_json` reads; `versions` are the present ones."""
        return json.dumps({**asdict(self), "versions": _versions()}, ensure_ascii=False, indent=1).encode("utf-8")

    def __str__(self) -> str:
        """Some lines: what is known, each under its name."""
        lines = []
        for part in fields(self):
            value = getattr(self, part.name)
            if value in (None, "", ()) or value == {} or part.name == "keys":
                continue
            if isinstance(value, Mapping):
                value = "".join(f"\n    {key} = {_as_text(item)}" for key, item in value.items())
            elif isinstance(value, tuple):
                value = ", ".join("–" if item is None else str(item) for item in value)
            separator = "" if str(value).startswith("\n") else " "
            lines.append(f"{part.metadata['meaning']}:{separator}{value}")
        return "\n".join(lines)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"it holds {word}")


def _as_text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def add_record(file: IO[bytes], record: CheckpointRecord) -> None:
    """Adds `record` to the archive that `torch.save` has just written to `file`, which can be read too."""
    file.flush()
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(f"{_folder(archive)}{FILE_NAME}"), record.to_json())


def read_record(path: str | Path) -> CheckpointRecord | None:
    """The record in the checkpoint `path`; None if it has none, or is not a file that can have one.

    Raises:
        InputError: there is one, but it cannot be used.
    """
    try:
        archive = zipfile.ZipFile(path)
    except Exception:  # a damaged archive raises almost anything; loading its tensors says what is wrong with it
        return None
    with archive:
        name = f"{_folder(archive)}{FILE_NAME}"
        if name not in archive.NameToInfo:
            return None
        try:
            entry = archive.getinfo(name)
            if entry.file_size > LARGEST or entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"it is larger than {LARGEST >> 20} MiB, or compressed")
            return CheckpointRecord.from_json(archive.read(entry))
        except Exception as error:
            reason = excerpt(error, 200) or type(error).__name__
            raise InputError(
                f"{path}: what it says about itself ({FILE_NAME}) cannot be used: {reason}; load its tensors and "
                "torch.save them to go on without"
            ) from None


def _folder(archive: zipfile.ZipFile) -> str:
    """The folder that all entries of torch's archives are in, with its slash."""
    first = next(iter(archive.namelist()), "")
    return first[: first.find("/") + 1]
