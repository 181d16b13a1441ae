import errno
import json
import os
import resource
import time
from pathlib import Path

import pytest

from ytvis import files
from ytvis.files import (
    InputError,
    NotAList,
    NotJSON,
    atomic_write,
    atomic_writes,
    list_folder,
    make_folder,
    natural_key,
    open_input,
    put_aside,
    read_bytes,
    read_json,
    read_json_list,
    read_text,
)


def test_a_disk_without_room_is_one_line_and_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    message = r"a\.txt: cannot be written: File too large; choose another place"
    try:
        with pytest.raises(InputError, match=message), atomic_write(path) as file:
            file.write("x" * 10**6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_block_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        (tmp_path / "nowhere").read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_text_is_written_as_utf8(tmp_path):
    path = tmp_path / "notes.txt"
    with atomic_write(path) as file:
        file.write("Größe ≥ 1\n")
    assert path.read_bytes() == "Größe ≥ 1\n".encode()


def test_bytes_are_written_as_they_are(tmp_path):
    path = tmp_path / "data.bin"
    with atomic_write(path, "wb") as file:
        file.write(b"\x00\r\n\xff")
    assert path.read_bytes() == b"\x00\r\n\xff"


def test_nothing_written_gives_an_empty_file(tmp_path):
    with atomic_write(tmp_path / "empty"):
        pass
    assert (tmp_path / "empty").read_bytes() == b""


def test_the_old_content_is_there_until_the_block_ends(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("old and longer")
    with atomic_write(path) as file:
        file.write("new")
        file.flush()
        assert path.read_text() == "old and longer"
    assert path.read_text() == "new"
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("mode, part", [("w", "half"), ("wb", b"half")])
def test_an_exception_keeps_the_old_content_and_leaves_nothing_behind(tmp_path, mode, part, error):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(error), atomic_write(path, mode) as file:
        file.write(part)
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["results.json"]


def test_an_exception_creates_no_file(tmp_path):
    with pytest.raises(ValueError), atomic_write(tmp_path / "results.json"):
        raise ValueError
    assert os.listdir(tmp_path) == []


def test_a_rename_that_fails_leaves_nothing_behind(tmp_path):
    taken = tmp_path / "taken"
    with pytest.raises(InputError, match="taken: cannot be written"), atomic_write(taken) as file:
        file.write("text")
        (taken / "inside").mkdir(parents=True)
    assert os.listdir(tmp_path) == ["taken"]


def test_a_folder_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="it is a folder; name a file"), atomic_write(tmp_path):
        pytest.fail("written")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["file/a.txt", "file/folder/a.txt", f"{'long' * 100}.txt"])
def test_where_nothing_can_be_put_is_bad_input(tmp_path, name):
    (tmp_path / "file").write_text("old")
    with pytest.raises(InputError, match="cannot be .*; choose another place") as caught, atomic_write(tmp_path / name):
        pytest.fail("written")
    assert str(caught.value).startswith(str(tmp_path)) and "\n" not in str(caught.value)
    assert (tmp_path / "file").read_text() == "old" and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="to root every folder is open")
def test_a_folder_that_may_not_be_written_to_is_bad_input(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"), atomic_write(tmp_path / "a.txt"):
        pytest.fail("written")


def test_what_goes_wrong_inside_the_block_is_not_of_the_target(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_write(tmp_path / "a.txt"):
        (tmp_path / "gone").read_text()


def test_a_folder_is_made_or_refused(tmp_path):
    for _ in range(2):
        assert make_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(InputError, match=f"{path}: cannot be made a folder"):
            make_folder(path)


def test_missing_folders_are_made(tmp_path):
    path = tmp_path / "a" / "b" / "c.txt"
    with atomic_write(path) as file:
        file.write("deep")
    assert path.read_text() == "deep"


def test_a_bare_name_and_text_for_a_path_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_write("bare.txt") as file:
        file.write("here")
    assert (tmp_path / "bare.txt").read_text() == "here"


@pytest.mark.skipif(os.name != "posix", reason="permissions as on POSIX")
@pytest.mark.parametrize("umask, permissions", [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path, umask, permissions):
    path = tmp_path / "results.json"
    before = os.umask(umask)
    try:
        with atomic_write(path) as file:
            file.write("text")
        after = os.umask(umask)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == permissions
    assert after == umask  # it was only read


def test_writers_side_by_side_do_not_mix(tmp_path):
    path = tmp_path / "results.json"
    with atomic_write(path) as first:
        first.write("first")
        with atomic_write(path) as second:
            second.write("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.parametrize("chunk", [1, 2, 3, 17, 1000])
def test_a_json_list_is_read_the_same_in_pieces_of_any_length(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(files, "CHUNK", chunk)
    entry = {"name": 'a "quoted" \\ line\n é', "score": 0.5, "masks": [None, {"size": [4, 6], "counts": "i0"}]}
    value = [entry, 3.25, None, {}, [], -7, "text", entry, True, 1e-30]
    path = tmp_path / "results.json"
    for text in (
        json.dumps(value),
        json.dumps(value, indent=3),
        f"\n [\n{json.dumps(value, ensure_ascii=False)[1:]} \n",
    ):
        path.write_text(text, "utf-8")
        assert list(read_json_list(path)) == value
        assert list(read_json_list(path, object_hook=len)) == [3, 3.25, None, 0, [], -7, "text", 3, True, 1e-30]
    path.write_text(" [ ] ")
    assert list(read_json_list(path)) == []


def test_entries_before_a_fault_in_a_json_list_come_first(tmp_path):
    path = tmp_path / "results.json"
    path.write_text("[1, 2, nonsense that goes on and on]")
    entries = read_json_list(path)
    assert [next(entries), next(entries)] == [1, 2]
    with pytest.raises(NotJSON, match=r"results\.json: is not a JSON file: .*nonsense") as caught:
        next(entries)
    assert caught.value.problem.startswith("Expecting value")
    path.write_text('{"results": []}')
    with pytest.raises(NotAList, match="begins with"):
        next(read_json_list(path))


# ---------------------------------------------------------------------------------------------------- unlucky files


@pytest.fixture
def unlucky(tmp_path):
    """Paths at which there is no file to read, each of its own kind."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    names = ["pipe", "loop", "folder", "missing", "file/below", "x" * 300, "a/" * 3000 + "b", "NUL\0", "half\ud800"]
    return [*(tmp_path / name for name in names), "/dev/zero", ""]


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as on POSIX")
def test_what_is_no_readable_file_is_refused_at_once(unlucky):
    for path in unlucky:
        for function in (open_input, read_bytes, read_text, read_json, lambda path: list(read_json_list(path))):
            with pytest.raises(InputError, match="cannot be read: "):
                function(path)
    for path in unlucky:
        if not str(path).endswith("folder"):
            with pytest.raises(InputError, match="cannot be listed: "):
                list_folder(path)


@pytest.mark.skipif(os.name != "posix", reason="pipes as on POSIX")
def test_what_is_no_file_is_not_written_over(unlucky, tmp_path):
    for path in unlucky:
        if path and Path(path).name not in ("missing", "loop"):
            with pytest.raises(InputError, match="cannot be (written|made a folder): "), atomic_write(path):
                pytest.fail("written")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "loop", "pipe"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_link_to_a_file_is_followed(tmp_path):
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link") == "text"
    assert list_folder(tmp_path) == ["file", "link"]


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / ("ä" * 125 + ".json")  # 255 bytes
    with atomic_write(path) as file:
        file.write("text")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name != "posix", reason="limits as on POSIX")
def test_a_full_disk_is_named_where_a_writer_hides_it(tmp_path):
    path = tmp_path / "model.pth"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        expected = pytest.raises(InputError, match="model.pth: cannot be written: File too large; choose another place")
        with expected, atomic_write(path, "wb") as file:
            try:
                file.write(b"x" * 10**6)
            except OSError:
                raise RuntimeError("unexpected position") from None  # as torch.save does
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["model.pth"]


@pytest.mark.skipif(os.name != "posix", reason="limits as on POSIX")
@pytest.mark.parametrize("sizes", [(10, 3000), (3000, 10)])  # less than a buffer, so written at the end only
def test_of_several_files_none_appears_if_one_finds_the_disk_full(tmp_path, sizes):
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    paths[0].write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        name = paths[sizes.index(3000)].name
        with (
            pytest.raises(InputError, match=f"{name}: cannot be written: File too large"),
            atomic_writes(paths) as files,
        ):
            for file, size in zip(files, sizes, strict=True):
                file.write("x" * size)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert paths[0].read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with atomic_writes(paths) as files:
        for file, path in zip(files, paths, strict=True):
            file.write(path.name)
    assert [path.read_text() for path in paths] == ["a.txt", "b.txt"]


def test_errors_of_the_system_while_writing_are_bad_input(tmp_path, monkeypatch):
    for name, number in (("fsync", errno.EIO), ("chmod", errno.EPERM), ("replace", errno.EROFS)):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, raising(OSError(number, os.strerror(number))))
            expected = pytest.raises(InputError, match=f"a.txt: cannot be written: {os.strerror(number)}")
            with expected, atomic_write(tmp_path / "a.txt") as file:
                file.write("text")
        assert os.listdir(tmp_path) == []


def raising(error):
    def function(*arguments):
        raise error

    return function


def test_halves_of_surrogate_pairs_are_escaped_in_text(tmp_path):
    with atomic_write(tmp_path / "a.txt") as file:
        file.write("half \ud800")
    assert (tmp_path / "a.txt").read_bytes() == b"half \\ud800"


def test_a_file_is_put_aside_under_a_free_name(tmp_path):
    for number in (1, 2):
        (tmp_path / "log.jsonl").write_text(str(number))
        assert put_aside(tmp_path / "log.jsonl") == tmp_path / f"log.{number}.jsonl"
    (tmp_path / "out.json.partial").touch()
    (tmp_path / "out.1.json").touch()
    assert put_aside(tmp_path / "out.json.partial", ".partial").name == "out.2.json.partial"
    with pytest.raises(InputError, match="cannot be written"):
        put_aside(tmp_path / "gone")


# ---------------------------------------------------------------------------------------------------- encodings, JSON


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_and_json_are_read_in_every_unicode_encoding(tmp_path, encoding):
    path = tmp_path / "file"
    path.write_bytes("größer\r\n≥ 1\n".encode(encoding))
    if encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):  # the others need text that begins with ASCII
        assert read_text(path) == "größer\n≥ 1\n"
    path.write_bytes('["größer", {"a": "≥"}]'.encode(encoding))
    assert read_text(path).startswith('["größer"')
    assert read_json(path) == list(read_json_list(path)) == ["größer", {"a": "≥"}]


def test_other_encodings_are_refused_with_advice(tmp_path):
    path = tmp_path / "file"
    path.write_bytes('["größer"]'.encode("latin-1"))
    for function in (read_text, read_json, lambda path: list(read_json_list(path))):
        with pytest.raises(InputError, match="file: .*byte 0xf6 cannot be read as utf-8; save it as UTF-8"):
            function(path)


@pytest.mark.parametrize(
    "text",
    [
        *("[NaN, Infinity, -Infinity]", "[1e400, -1e400, 1e-400, -0.0]", '[{"a": 1, "a": 2}]', '["\\ud800\\u0000"]'),
        *("[1" + "0" * 400 + "]", "[[[[[1]]]], {}]", " [ ] ", "[true, false, null]"),
    ],
)
def test_both_json_readers_take_the_same(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    expected = repr(json.loads(text))
    assert repr(read_json(path)) == repr(list(read_json_list(path))) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[1" + "0" * 5000 + "]", "a number of thousands of digits"),
        ("[" * 100_000, "nested too deeply"),
        ('[{"a":' * 50_000, "nested too deeply"),
        *(("[1,]", "."), ("[1", "."), ("[1] x", "."), ("[01]", "."), ("['a']", "."), ('["\n"]', "."), ("[1 2]", ".")),
        *(('["a', "."), ("[1,", "."), ("[,1]", "."), ("[nan]", "."), ("[1}", ".")),
    ],
    ids=lambda value: value[:10],
)
def test_both_json_readers_refuse_the_same(tmp_path, text, problem):
    path = tmp_path / "a.json"
    path.write_text(text)
    for function in (read_json, lambda path: list(read_json_list(path))):
        with pytest.raises(NotJSON, match=f"^{path}: is not a JSON file: .*{problem}") as caught:
            function(path)
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


def test_an_entry_takes_no_time_for_those_after_it(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 10**6)
    path = tmp_path / "a.json"
    path.write_text("[" + "0," * 200_000 + "0]")
    begin = time.process_time()
    assert sum(1 for _ in read_json_list(path)) == 200_001
    assert time.process_time() - begin < 6  # a copy of the rest for each would take minutes


def test_names_with_thousands_of_digits_are_sorted_too():
    names = ["a" + "9" * 5000, "a10", "a9", "a010", "b"]
    assert sorted(names, key=natural_key) == ["a9", "a010", "a10", "a" + "9" * 5000, "b"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x1f\x8b\x08\x00", "it is compressed by gzip; unpack it"),
        (b"PK\x03\x04....", "it is a ZIP archive; unpack it"),
        (b"<!DOCTYPE html>", "it is XML or a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path, content, problem):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    for function in (read_json, lambda path: list(read_json_list(path))):
        with pytest.raises(NotJSON, match=problem):
            function(path)


@pytest.mark.parametrize(
    ("text", "problem"), [("", "it is empty"), (" \n", "it is empty"), ('{"a": [1, ', "is cut off")]
)
def test_a_file_that_ends_too_early_is_named(tmp_path, text, problem):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(NotJSON, match=problem):
        read_json(path)
