"""Downloads checkpoints: a file has its final name only when it is whole and checked.

The content so far is in `<file>.part`, and its origin in `<file>.origin.part`; an interrupted download continues from
there, in the same run or the next, if the server still has the same file.
"""

import hashlib
import http.client
import json
import logging
import os
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import IO, BinaryIO
from urllib.parse import urlsplit

from tqdm import tqdm

from ytvis.files import InputError, atomic_write, make_folder, open_input, read_json, writing
from ytvis.messages import excerpt

try:
    import fcntl
except ImportError:  # Windows: two processes that download the same file at once are not locked there
    fcntl = None

logger = logging.getLogger(__name__)

MOST_BYTES = 2 * 2**30  # limit for a checkpoint; those of ResNet-101 have 200 MiB
TIMEOUT_S = 30.0  # without a byte
MOST_ATTEMPTS = 5  # as long as each receives something
CHUNK = 2**18
SECONDS_BETWEEN_LINES = 10.0  # of progress, without a terminal
LOOPBACK = ("127.0.0.1", "::1", "localhost")
CHECKPOINT_BEGINS = (b"PK\x03\x04", b"\x80")  # of the files of torch.save: a zip archive, before torch 1.6 a pickle

PROBLEMS = {  # of HTTP
    401: "the server needs authentication: the repository does not exist, or is closed and needs the variable HF_TOKEN",
    403: "the server denies access; closed repositories of the hub need the variable HF_TOKEN",
    404: "the server has no such file; check the name",
    410: "the server no longer has the file",
    429: "too many requests; try again later",
}


@dataclass(frozen=True)
class RemoteFile:
    """A checkpoint at an address, and its local file.

    `sha256` is the beginning of its SHA-256, or all of it, in hexadecimal; empty if unknown. A `token` is sent to the
    host of `url` only.
    """

    url: str
    target: Path
    sha256: str = ""
    token: str = field(default="", repr=False)

    def problem(self, what: str) -> InputError:
        """An error of one line with advice for fetching the file by hand."""
        return InputError(f"{self.address}: {what}; or fetch it by other means and save it as {self.target}")

    @property
    def address(self) -> str:
        """The address for messages, without the query, which may contain a key."""
        path, query, _ = self.url.partition("?")
        return excerpt(path, 200) + ("?…" if query else "")


def fetch(remote: RemoteFile) -> Path:
    """Returns the file of `remote`; downloads it if it is missing.

    Raises:
        InputError: it cannot be downloaded or written, is not a checkpoint, is too large, or has another SHA-256.
    """
    check_address(remote.url)
    make_folder(remote.target.parent)
    while not os.path.isfile(remote.target):
        with _partial(remote.target) as file:
            if file is None:  # another process was faster
                continue
            _fill(remote, file)
            _check_hash(remote, _part(remote.target))
            os.fsync(file.fileno())
            if fcntl is None:
                file.close()  # Windows does not rename open files
            with writing(remote.target):
                os.replace(_part(remote.target), remote.target)
            _origin(remote.target).unlink(missing_ok=True)
            logger.info("%s: downloaded, %.1f MiB", remote.target, os.path.getsize(remote.target) / 2**20)
            return remote.target
    _check_hash(remote, remote.target)
    return remote.target


def check_address(url: str) -> None:
    """Raises InputError unless `url` is a well-formed https address, or http of this machine itself."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InputError(f"{excerpt(url, 200)}: not an address") from None
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and host in LOOPBACK)):
        raise InputError(f"{excerpt(url, 200)}: only https:// addresses are downloaded")
    if parts.username is not None or not url.isascii() or not url.isprintable() or " " in url:
        raise InputError(f"{excerpt(url, 200)}: not an address of printable ASCII without a user's name")


# ---------------------------------------------------------------------------------------------------- the partial file


def _part(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


def _origin(target: Path) -> Path:
    return target.with_name(f"{target.name}.origin.part")


@contextmanager
def _partial(target: Path) -> Iterator[BinaryIO | None]:
    """The partial file of `target`, open for appending and reading, locked for this process; None if `target` appeared
    while it waited. An empty one is removed."""
    path = _part(target)
    try:
        file = open(path, "a+b")  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "the name is not valid for a file"
        raise InputError(f"{path}: cannot be written: {reason}; choose another folder by STMASK_WEIGHTS") from None
    with file:
        if fcntl is not None:
            with suppress(OSError):  # some network file systems have no locks
                fcntl.flock(file, fcntl.LOCK_EX)
        ours = os.path.exists(path) and os.path.samestat(os.fstat(file.fileno()), os.stat(path))
        try:
            yield file if ours and not os.path.isfile(target) else None
        finally:
            if ours and os.path.exists(path) and os.path.getsize(path) == 0:
                with suppress(OSError):
                    path.unlink()
                    _origin(target).unlink(missing_ok=True)


def _validator(remote: RemoteFile) -> str | None:
    """The server's tag for the version of the partial file; None if unknown."""
    try:
        origin = read_json(_origin(remote.target))
    except InputError:
        return None
    known = isinstance(origin, dict) and origin.get("url") == remote.url
    validator = origin.get("validator") if known else None
    return validator if isinstance(validator, str) and validator.isprintable() else None


def _check_hash(remote: RemoteFile, path: Path) -> None:
    """Raises InputError unless the file has the expected SHA-256; the download is then deleted."""
    if not remote.sha256:
        return
    with open_input(path) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found.startswith(remote.sha256.lower()):
        return
    if path == remote.target:
        raise InputError(f"{path}: its sha256 is {found}, not {remote.sha256}; delete it to download it again")
    path.unlink()
    _origin(remote.target).unlink(missing_ok=True)
    raise remote.problem(f"the download has the sha256 {found}, not {remote.sha256}, and is not kept; try again")


# ---------------------------------------------------------------------------------------------------- the connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to allowed addresses, and sends the token to no other host.

    `sha256` is the one that the Hugging Face hub gives before it redirects to the file, empty if none.
    """

    sha256 = ""

    def redirect_request(self, request, file, code, message, headers, url):
        try:
            check_address(url)
        except InputError:
            raise urllib.error.URLError(f"it leads to {excerpt(url, 100)}, which is not an https address") from None
        linked = headers.get("X-Linked-ETag", "").strip('"')
        if len(linked) == 64:
            self.sha256 = linked
        new = super().redirect_request(request, file, code, message, headers, url)
        if new is not None and urlsplit(url)[:2] != urlsplit(request.full_url)[:2]:
            new.remove_header("Authorization")
        return new


def _fill(remote: RemoteFile, file: BinaryIO) -> None:
    """Downloads the missing part of the partial file.

    Raises:
        InputError: as `fetch`. After an error of the connection the part so far is kept.
    """
    logger.info("%s: downloads %s", remote.target, remote.address)
    for attempt in range(1, MOST_ATTEMPTS + 1):
        begin = _size(file)
        try:
            redirects = _Redirects()
            with _request(remote, file, redirects) as response:
                total = _begin(remote, file, response)
                _receive(remote, file, response, total)
            if redirects.sha256:
                _check_hash(RemoteFile(remote.url, remote.target, redirects.sha256), _part(remote.target))
            return
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416 and begin:  # the file is no longer than the partial one: begin again
                file.truncate(0)
                continue
            raise remote.problem(_http_problem(error.code)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            came = _size(file)
            problem = _connection_problem(error)
            if came <= begin or attempt == MOST_ATTEMPTS:
                rest = f"; run the same command to continue after {came / 2**20:.1f} MiB" if came else ""
                raise remote.problem(f"{problem}{rest}") from None
            logger.warning("%s: %s after %.1f MiB; continues", remote.target, problem, came / 2**20)
    raise remote.problem("the server does not send the missing part; try again")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _request(remote: RemoteFile, file: BinaryIO, redirects: _Redirects) -> http.client.HTTPResponse:
    """The server's answer to a request of the missing part of the partial file."""
    headers = {"User-Agent": "stmask", "Accept-Encoding": "identity"}
    if remote.token:
        headers["Authorization"] = f"Bearer {remote.token}"
    validator = _validator(remote) if _size(file) else None
    if validator:
        headers.update({"Range": f"bytes={_size(file)}-", "If-Range": validator})
    request = urllib.request.Request(remote.url, headers=headers)
    return urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT_S)


def _begin(remote: RemoteFile, file: BinaryIO, response: http.client.HTTPResponse) -> int | None:
    """Prepares the partial file for the answer; returns the whole file's size, or None if unknown."""
    headers = response.headers
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise remote.problem("is a web page, not the file itself; use the address of its download button")
    if response.status == 206:
        span, _, whole = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        if span.partition("-")[0] != str(_size(file)) or not whole.isdecimal():
            file.truncate(0)
            raise remote.problem("the server sends another part than requested; try again")
        total = int(whole)
    else:
        file.truncate(0)
        length = headers.get("Content-Length")
        total = int(length) if length is not None else None
        if total is None and not response.chunked and not remote.sha256:
            raise remote.problem(
                "the server does not give the file's length, so an incomplete download cannot be detected"
            )
        with atomic_write(_origin(remote.target)) as origin:
            json.dump({"url": remote.url, "validator": _version(headers)}, origin)
    if total is not None:
        _check_size(remote, total)
        missing = total - _size(file)
        free = shutil.disk_usage(remote.target.parent).free
        if missing > free:
            raise _full(remote, missing - free)
    return total


def _version(headers: Message) -> str | None:
    """The identifier of this version of the file: a strong ETag, or the date of the last change."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _receive(remote: RemoteFile, file: BinaryIO, response: http.client.HTTPResponse, total: int | None) -> None:
    """Appends the answer's content to the partial file."""
    size, last_line = _size(file), time.monotonic()
    checked = size > 0
    with tqdm(total=total, initial=size, unit="B", unit_scale=True, desc=remote.target.name, disable=None) as bar:
        while chunk := response.read1(CHUNK):
            size += len(chunk)
            _check_size(remote, size)
            _append(remote, file, chunk)
            bar.update(len(chunk))
            if bar.disable and time.monotonic() - last_line >= SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                logger.info("%s: %.1f of %s MiB", remote.target, size / 2**20, f"{total / 2**20:.1f}" if total else "?")
            if not checked and size >= 4:
                _check_beginning(remote, file)
                checked = True
    if not checked:
        _check_beginning(remote, file)
    if total is not None and size != total:
        raise ConnectionError("the connection was cut")


def _append(remote: RemoteFile, file: IO[bytes], chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{remote.target}: cannot be written: {reason}; make room, or choose another folder by STMASK_WEIGHTS"
        raise InputError(message) from None


def _check_beginning(remote: RemoteFile, file: BinaryIO) -> None:
    """Raises InputError, and empties the partial file, unless it begins like a checkpoint."""
    file.seek(0)
    beginning = file.read(100)
    if beginning.startswith(CHECKPOINT_BEGINS):
        return
    file.truncate(0)
    text = excerpt(beginning.decode("ascii", "replace"), 40)
    kind = "a web page" if beginning.lstrip()[:1] == b"<" else "no checkpoint"
    raise remote.problem(f"is {kind} (it begins with {text!r}); check the address")


def _check_size(remote: RemoteFile, size: int) -> None:
    if size > MOST_BYTES:
        raise remote.problem(f"is larger than the {MOST_BYTES / 2**20:.0f} MiB that a checkpoint may have")


# ---------------------------------------------------------------------------------------------------- errors


def _full(remote: RemoteFile, missing: int) -> InputError:
    return InputError(
        f"{remote.target}: the disk is full: {missing / 2**20 + 0.1:.1f} MiB are missing; make room, or choose another "
        "folder by STMASK_WEIGHTS"
    )


def _http_problem(code: int) -> str:
    if 300 <= code < 400:
        return "the server redirects in a loop, or without an address"
    return f"HTTP {code}: {PROBLEMS.get(code, 'the server has a problem; try again later')}"


def _connection_problem(error: Exception) -> str:
    """A short description of an error of the connection."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, TimeoutError):
        return f"the server did not answer for {TIMEOUT_S:g} seconds"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the server's certificate cannot be trusted ({excerpt(reason.verify_message)})"
    if isinstance(error, urllib.error.URLError) and isinstance(reason, OSError):
        return f"cannot be reached ({excerpt(reason.strerror or reason)}); check the network"
    if isinstance(reason, ConnectionError | http.client.IncompleteRead):
        return "the connection was cut"
    return excerpt(reason) or type(reason).__name__
