"""Finds weights by a name of the model table, or an address of the Hugging Face hub, torchvision or any https host.

    python -m utils.weight_sources yolact_plus_resnet50_54_800000                # a name of weights/README.md
    python -m utils.weight_sources torchvision:resnet50.IMAGENET1K_V2
    python -m utils.weight_sources hf:OWNER/REPO/FILE@REVISION
    python -m utils.weight_sources https://example.org/mine.pth#sha256=…

Each is downloaded once, into weights/ or the folder in the environment variable STMASK_WEIGHTS, and checked by its
SHA-256 where that is known. Use the same words wherever a checkpoint is expected: --trained_model, --resume, --set
train.pretrained, STMask.from_pretrained. The variables HF_ENDPOINT and HF_TOKEN are those of the hub's own tools.
"""

import hashlib
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote, unquote, urlsplit

from utils.download import RemoteFile, check_address, fetch
from utils.logging import setup_logging
from ytvis.command_line import Parser, run_command
from ytvis.files import InputError
from ytvis.messages import excerpt

HUB = "https://huggingface.co"
AUTHORS = "https://github.com/MinghanLi/STMask"

# Names of the model table whose files are on the hub.
ON_THE_HUB = MappingProxyType(
    {
        "yolact_plus_resnet50_54_800000": "hf:dbolya/yolact-plus-resnet50/yolact_plus_resnet50_54_800000.pth",
        "yolact_plus_base_54_800000": "hf:dbolya/yolact-plus-base/yolact_plus_base_54_800000.pth",
    }
)
# Names of STMask's authors on Google Drive, which sends large files to browsers only.
ON_GOOGLE_DRIVE = frozenset(
    (
        *("STMask_r50_FCA+TF", "STMask_r50_ali", "STMask_r50_ada"),
        *("STMask_r101_FCA+TF", "STMask_r101_ali", "STMask_r101_ada"),
        *("STMask_plus_resnet50", "STMask_plus_resnet50_ali", "STMask_plus_resnet50_ada"),
        *("STMask_plus_base", "STMask_plus_base_ali", "STMask_plus_base_ada"),
        *("yolact_plus_resnet50_54", "yolact_plus_resnet50_ali_54", "yolact_plus_resnet50_ada_54"),
        *("yolact_plus_base_54", "yolact_plus_base_ali_54", "yolact_plus_baseada_54"),
    )
)
FROM_TORCHVISION = ("resnet18", "resnet34", "resnet50", "resnet101", "maskrcnn_resnet50_fpn_v2")

_REMOTE = re.compile(r"(hf|torchvision|https?):", re.IGNORECASE)
_PART = re.compile(r"[^\W.][\w.+@=,~() -]*", re.ASCII)  # in a path built here: no "..", nothing hidden
_HASH = re.compile(r"[0-9a-fA-F]{8,64}")


def weights_folder() -> Path:
    """The folder of downloads: weights, or the variable STMASK_WEIGHTS."""
    return Path(os.environ.get("STMASK_WEIGHTS") or "weights")


def is_remote(word: str | os.PathLike) -> bool:
    """Whether `word` is an address and not a path: hf:…, torchvision:…, https://…"""
    return isinstance(word, str) and _REMOTE.match(word) is not None and not os.path.exists(word)


def remote_file(word: str) -> RemoteFile:
    """The remote file of an address, with its local place.

    Raises:
        InputError: it is not such an address.
    """
    kind, _, rest = word.partition(":")
    address, _, pin = word.partition("#")
    if pin and not (pin.startswith("sha256=") and _HASH.fullmatch(pin.removeprefix("sha256="))):
        raise InputError(f"{excerpt(word, 200)}: write sha256= and at least 8 hexadecimal digits after #")
    pin = pin.removeprefix("sha256=")
    if kind.lower() == "hf":
        return _on_the_hub(address.partition(":")[2], pin)
    if kind.lower() == "torchvision":
        return _from_torchvision(rest)
    return _at_address(address, pin)


def named_in_table(name: str | os.PathLike) -> str | None:
    """The name of the model table, without .pth, that ends a file's name or path; None if it is not in the table."""
    name = os.path.basename(os.fspath(name)).removesuffix(".pth")
    return name if name in ON_THE_HUB or name in ON_GOOGLE_DRIVE else None


def is_given(path: str | os.PathLike) -> bool:
    """Whether a file's name is one of weights that others trained: of the model table, or YOLACT's, which is not
    trained here."""
    return named_in_table(path) is not None or os.path.basename(path).lower().startswith("yolact_")


def how_to_get(path: str | os.PathLike) -> str:
    """Advice for a missing checkpoint `path`, as the end of a message."""
    name = named_in_table(path)
    if name in ON_THE_HUB:
        return f"`python -m utils.weight_sources {name}` downloads it"
    if name is not None:
        return f"download it by hand from the model table of {AUTHORS} (Google Drive), and save it under this name"
    return "see weights/README.md"


def find_weights(word: str) -> Path:
    """Returns the file of an address or of a name of the model table; downloads it if it is missing.

    Raises:
        InputError: it is neither, or the file cannot be downloaded.
    """
    if is_remote(word):
        return fetch(remote_file(word))
    name = named_in_table(word)
    target = weights_folder() / f"{name}.pth"
    if name in ON_THE_HUB:
        return fetch(remote_file(ON_THE_HUB[name]))
    if name is not None and os.path.isfile(target):
        return target
    if name is not None:
        raise InputError(f"{target}: not found; {how_to_get(target)}")
    known = ", ".join(sorted(ON_THE_HUB))
    raise InputError(
        f"{excerpt(word, 200)}: not hf:…, torchvision:… or https://…, and not a name of the table ({known})"
    )


def _on_the_hub(rest: str, pin: str) -> RemoteFile:
    """OWNER/REPO/FILE[@REVISION]; the file may be in folders of the repository."""
    rest, _, revision = rest.partition("@")
    parts = rest.split("/")
    if len(parts) < 3 or not all(map(_PART.fullmatch, parts + (revision.split("/") if revision else []))):
        raise InputError(f"hf:{excerpt(rest, 200)}: write hf:OWNER/REPO/FILE or hf:OWNER/REPO/FILE@REVISION")
    owner, repository, *file = parts
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    url = f"{endpoint}/{owner}/{repository}/resolve/{quote(revision or 'main', safe='')}/{quote('/'.join(file))}"
    folder = repository if not revision else f"{repository}@{revision.replace('/', '_')}"
    target = weights_folder().joinpath("huggingface", owner, folder, *file)
    if f"hf:{rest}" in ON_THE_HUB.values() and not revision:
        target = weights_folder() / file[-1]
    return RemoteFile(url, target, pin, os.environ.get("HF_TOKEN", ""))


def _from_torchvision(rest: str) -> RemoteFile:
    """MODEL[.VARIANT]; the default variant is torchvision's. The file's name ends with the beginning of its SHA-256."""
    from torchvision.models import get_model_weights

    name, _, variant = rest.partition(".")
    if name not in FROM_TORCHVISION:
        known = ", ".join(FROM_TORCHVISION)
        raise InputError(f"torchvision:{excerpt(rest, 200)}: cannot start a training here; choose from {known}")
    variants = get_model_weights(name)
    if variant and variant not in variants.__members__:
        known = ", ".join(f"torchvision:{name}.{known}" for known in variants.__members__)
        raise InputError(f"torchvision:{excerpt(rest, 200)}: unknown variant; choose from {known}")
    url = variants[variant or "DEFAULT"].url
    file = url.rpartition("/")[2]
    return RemoteFile(url, weights_folder() / file, file.removesuffix(".pth").rpartition("-")[2])


def _at_address(url: str, pin: str) -> RemoteFile:
    """Any address; the file's folder is built from the host and the path, so that two addresses never share one."""
    check_address(url)
    parts = urlsplit(url)
    path = [unquote(part) for part in parts.path.split("/")[1:]]
    if not path or not all(_PART.fullmatch(part) for part in path):
        raise InputError(
            f"{excerpt(url, 200)}: the address does not end with a file's name, or has unsupported characters"
        )
    *folders, file = path
    if parts.query:
        folders.append(hashlib.sha256(parts.query.encode()).hexdigest()[:8])
    host = parts.netloc.replace(":", "_").replace("[", "").replace("]", "")
    return RemoteFile(url, weights_folder().joinpath(host, *folders, file), pin)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = Parser("python -m utils.weight_sources", __doc__)
    parser.add_argument("source", nargs="+", help="name of the model table, hf:…, torchvision:… or https://…")
    options = parser.parse_args(arguments)
    setup_logging()

    def work() -> None:
        for source in options.source:
            path = find_weights(source)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            print(f"{path}: {os.path.getsize(path) / 2**20:.1f} MiB, sha256 {digest}")

    return run_command("utils.weight_sources", work)


if __name__ == "__main__":
    sys.exit(main())
