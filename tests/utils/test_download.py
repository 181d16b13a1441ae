import errno
import hashlib
import os
import shutil
import socket
import subprocess
from collections import namedtuple

import pytest

from tests.processes import start
from tests.serving import hang, page, redirect, serving
from utils import download
from utils.download import RemoteFile, check_address, fetch
from ytvis.files import InputError

CONTENT = b"PK\x03\x04" + bytes(range(256)) * 4000  # begins as a checkpoint does; about a megabyte
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/models/a.pth"
CODE = (  # of a process that downloads
    "import sys; from pathlib import Path; from utils.download import RemoteFile, fetch; "
    "fetch(RemoteFile(sys.argv[1], Path(sys.argv[2])))"
)


@pytest.fixture(scope="module")
def running():
    with serving() as server:
        yield server


@pytest.fixture
def server(running, monkeypatch):
    """A server with one file and no memory of other tests; no proxy is between."""
    monkeypatch.setenv("no_proxy", "*")
    for known in (running.answers, running.cuts, running.tags, running.requests):
        known.clear()
    running.files = {PATH: CONTENT}
    return running


@pytest.fixture
def remote(server, tmp_path):
    """The server's file."""
    return RemoteFile(server.url + PATH, tmp_path / "weights" / "a.pth")


def names(remote):
    """What is in the folder of the download."""
    return sorted(os.listdir(remote.target.parent))


def refused(remote):
    """The one line that says why `remote` cannot be had; nothing is under its final name."""
    with pytest.raises(InputError) as caught:
        fetch(remote)
    message = str(caught.value)
    assert message.isprintable() and "\n" not in message
    assert not remote.target.exists()
    return message


def by_hand(remote):
    return f"or fetch it by other means and save it as {remote.target}"


def test_a_file_comes_whole_and_once(server, remote):
    assert fetch(remote) == remote.target
    assert remote.target.read_bytes() == CONTENT
    assert names(remote) == ["a.pth"]
    assert fetch(remote) == remote.target
    assert len(server.requests) == 1


@pytest.mark.parametrize("pin", [SHA256, SHA256.upper(), SHA256[:8]])
def test_its_hash_is_checked_when_it_comes_and_when_it_is_there(remote, pin):
    pinned = RemoteFile(remote.url, remote.target, pin)
    assert fetch(pinned).read_bytes() == CONTENT
    remote.target.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="delete it to download it again"):
        fetch(pinned)
    assert remote.target.exists()


def test_another_hash_is_refused_and_nothing_of_it_kept(remote):
    message = refused(RemoteFile(remote.url, remote.target, "0" * 64))
    assert SHA256 in message and "0" * 64 in message and by_hand(remote) in message
    assert names(remote) == []


# ---------------------------------------------------------------------------------------------------- cuts


def test_a_cut_connection_goes_on_by_itself(server, remote):
    server.cuts[PATH] = [300_000, 200_000]
    assert fetch(remote).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=300000-", "bytes=500000-"]


def test_what_came_is_kept_for_the_next_run(server, remote):
    server.cuts[PATH] = [300_000, 0]
    message = refused(remote)
    assert "the connection was cut" in message and "continue after 0.3 MiB" in message and by_hand(remote) in message
    assert names(remote) == ["a.pth.origin.part", "a.pth.part"]
    assert fetch(remote).read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == "bytes=300000-"
    assert names(remote) == ["a.pth"]


def test_a_file_that_changed_meanwhile_begins_again(server, remote):
    server.cuts[PATH] = [300_000, 0]
    refused(remote)
    server.files[PATH] = new = CONTENT[::-1].join((b"PK\x03\x04", b""))
    server.tags[PATH] = '"second"'
    assert fetch(remote).read_bytes() == new


def test_a_part_of_another_address_is_not_taken(server, remote):
    server.cuts[PATH] = [300_000, 0]
    refused(remote)
    server.files["/other.pth"] = other = CONTENT[:500_000]
    assert fetch(RemoteFile(f"{server.url}/other.pth", remote.target)).read_bytes() == other


def test_a_part_without_a_version_begins_again(server, remote):
    server.tags[PATH] = 'W/"weak"'
    server.cuts[PATH] = [300_000]
    assert fetch(remote).read_bytes() == CONTENT
    assert all("Range" not in headers for _, headers in server.requests)


@pytest.mark.parametrize("extra", [b"", b"more than there is"])
def test_a_part_that_is_whole_already_begins_again(server, remote, extra):
    server.cuts[PATH] = [300_000, 0]
    refused(remote)
    download._part(remote.target).write_bytes(CONTENT + extra)
    assert fetch(remote).read_bytes() == CONTENT


def test_another_part_than_asked_for_is_refused(server, remote):
    server.cuts[PATH] = [300_000, 0]
    refused(remote)

    def wrong(handler):
        handler.answer(206, CONTENT[:10], {"Content-Range": f"bytes 0-9/{len(CONTENT)}", "ETag": '"first"'})

    server.answers[PATH] = wrong
    assert "another part" in refused(remote)
    del server.answers[PATH]
    assert fetch(remote).read_bytes() == CONTENT


def test_processes_at_once_download_once(server, remote):
    processes = [start(["-c", CODE, remote.url, remote.target], no_proxy="*") for _ in range(3)]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert remote.target.read_bytes() == CONTENT
    assert len(server.requests) == 1 and names(remote) == ["a.pth"]


# ---------------------------------------------------------------------------------------------------- what is no file


def test_a_missing_file(server, remote):
    message = refused(RemoteFile(f"{server.url}/none.pth", remote.target))
    assert "HTTP 404: the server has no such file" in message and by_hand(remote) in message
    assert names(remote) == []


@pytest.mark.parametrize("status, word", [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (429, "later"), (500, "later")])
def test_other_refusals_of_a_server(server, remote, status, word):
    server.answers[PATH] = lambda handler: handler.answer(status, b"no", {})
    message = refused(remote)
    assert f"HTTP {status}" in message and word in message and by_hand(remote) in message


@pytest.mark.parametrize(
    "content",
    [
        *(b"<!DOCTYPE html><html></html>", b"  <Error>AccessDenied</Error>"),
        *(b'{"error": "no"}', b"version https://git-lfs.github.com/spec/v1\n", b"PK", b""),
    ],
)
def test_what_does_not_begin_as_a_checkpoint_is_refused(server, remote, content):
    server.files[PATH] = content
    if not content:
        server.answers[PATH] = lambda handler: handler.answer(200, b"", {})
    message = refused(remote)
    assert ("a web page" if b"<" in content else "no checkpoint") in message and by_hand(remote) in message
    assert names(remote) == []


def test_a_web_page_is_refused_unread(server, remote):
    server.answers[PATH] = page
    message = refused(remote)
    assert "is a web page, not the file itself" in message and by_hand(remote) in message


def test_a_file_that_says_it_is_too_large(server, remote, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", len(CONTENT) - 1)
    assert "larger than the" in refused(remote)
    assert names(remote) == []


def test_a_file_that_is_larger_than_it_says(server, remote, monkeypatch):
    monkeypatch.setattr(download, "MOST_BYTES", len(CONTENT) - 1)

    def chunked(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(CONTENT), CONTENT))

    server.answers[PATH] = chunked
    assert "larger than the" in refused(remote)
    monkeypatch.undo()
    monkeypatch.setenv("no_proxy", "*")
    assert fetch(remote).read_bytes() == CONTENT


def test_a_file_of_unknown_length_is_taken_with_a_hash_only(server, remote):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.answers[PATH] = endless
    assert "the file's length" in refused(remote)
    assert fetch(RemoteFile(remote.url, remote.target, SHA256)).read_bytes() == CONTENT


# ---------------------------------------------------------------------------------------------------- connections


def test_a_redirect_is_followed_and_the_token_not_told_to_others(server, remote):
    with serving() as elsewhere:
        elsewhere.files["/b"] = CONTENT
        server.answers[PATH] = redirect(f"{elsewhere.url}/b")
        fetch(RemoteFile(remote.url, remote.target, token="secret"))
        assert server.requests[0][1]["Authorization"] == "Bearer secret"
        assert "Authorization" not in elsewhere.requests[0][1]
    assert remote.target.read_bytes() == CONTENT


def test_a_redirect_on_the_same_server_keeps_the_token(server, remote):
    server.files["/b"] = CONTENT
    server.answers[PATH] = redirect("/b")
    fetch(RemoteFile(remote.url, remote.target, token="secret"))
    assert [headers["Authorization"] for _, headers in server.requests] == ["Bearer secret"] * 2


def test_what_the_hub_says_of_the_hash_is_checked(server, remote):
    server.files["/b"] = CONTENT
    server.answers[PATH] = redirect("/b", X_Linked_ETag=f'"{"0" * 64}"')
    assert SHA256 in refused(remote)
    server.answers[PATH] = redirect("/b", X_Linked_ETag=f'"{SHA256}"')
    assert fetch(remote).read_bytes() == CONTENT


def test_redirects_in_a_circle(server, remote):
    server.answers[PATH] = redirect(PATH)
    message = refused(remote)
    assert "redirects in a loop" in message and by_hand(remote) in message


@pytest.mark.parametrize("place", ["http://example.org/a.pth", "file:///etc/passwd", "ftp://127.0.0.1/a"])
def test_a_redirect_to_no_https_is_refused(server, remote, place):
    server.answers[PATH] = redirect(place)
    assert by_hand(remote) in refused(remote)


def test_a_server_that_hangs(server, remote, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)
    server.answers[PATH] = hang
    message = refused(remote)
    assert "the server did not answer for 0.2 seconds" in message and by_hand(remote) in message


def test_a_server_that_hangs_amid_the_file(server, remote, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT_S", 0.2)

    def stop_amid(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        handler.wfile.write(CONTENT[:1000])
        hang(handler)

    server.answers[PATH] = stop_amid
    assert "the server did not answer for 0.2 seconds" in refused(remote)
    del server.answers[PATH]
    assert fetch(remote).read_bytes() == CONTENT


def test_nobody_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    remote = RemoteFile(f"http://127.0.0.1:{port}/a.pth", tmp_path / "a.pth")
    message = refused(remote)
    assert "cannot be reached" in message and "check the network" in message and by_hand(remote) in message


def test_a_name_that_no_server_has(tmp_path, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message = refused(RemoteFile("https://example.org/a.pth", tmp_path / "a.pth"))
    assert "cannot be reached (Name or service not known); check the network" in message


@pytest.mark.parametrize(
    "url",
    [
        *("http://example.org/a.pth", "ftp://example.org/a.pth", "file:///a.pth", "https://", "https:a.pth"),
        *("https://user:word@example.org/a.pth", "https://example.org/a b.pth", "https://exämple.org/a.pth"),
        *("https://example.org:port/a.pth", "https://[/a.pth", "https://example.org/a\n.pth"),
    ],
)
def test_an_address_that_is_none(url):
    with pytest.raises(InputError):
        check_address(url)


# ---------------------------------------------------------------------------------------------------- disks


def test_a_disk_without_room_is_seen_before(server, remote, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 1000, 1000))
    message = refused(remote)
    assert "the disk is full" in message and "STMASK_WEIGHTS" in message
    assert names(remote) == []


def test_a_disk_that_fills_up_meanwhile(server, remote, monkeypatch):
    real = open

    class Full:
        """A file that takes 100 000 bytes."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            if os.fstat(self.file.fileno()).st_size + len(content) > 100_000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(content)

    opened = lambda path, mode: Full(real(path, mode)) if "a" in mode else real(path, mode)  # noqa: E731
    monkeypatch.setattr(download, "open", opened, raising=False)
    message = refused(remote)
    assert message.startswith(f"{remote.target}: cannot be written: No space left on device; make room")


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made a folder"):
        fetch(RemoteFile(server.url + PATH, tmp_path / "file" / "a.pth"))


def test_a_folder_in_the_place_of_the_file(remote):
    remote.target.mkdir(parents=True)
    with pytest.raises(InputError, match="a.pth: cannot be written"):
        fetch(remote)


def test_messages_and_log_leave_out_the_query(server, remote, caplog):
    caplog.set_level("INFO")
    message = refused(RemoteFile(f"{server.url}/none.pth?key=secret", remote.target))
    assert message.startswith(f"{server.url}/none.pth?…: HTTP 404")
    assert "/none.pth" in caplog.text and "secret" not in message + caplog.text


def test_a_download_that_is_killed_goes_on(server, remote):
    """A process that ends amid a download leaves what came, and lets the next one in."""

    def wait(handler):
        handler.send_response(200)
        for name, value in (("Content-Length", str(len(CONTENT))), ("ETag", '"first"')):
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(CONTENT[:300_000])
        hang(handler)

    server.answers[PATH] = wait
    process = start(["-c", CODE, remote.url, remote.target], no_proxy="*")
    part = download._part(remote.target)
    for _ in range(600):
        if part.exists() and part.stat().st_size == 300_000:
            break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.05)
    process.kill()
    process.communicate()
    server.answers.clear()
    assert fetch(remote).read_bytes() == CONTENT
    assert server.requests[-1][1]["Range"] == "bytes=300000-"
