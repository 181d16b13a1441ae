import json
import os
import resource

import pytest

from ytvis import files
from ytvis.files import InputError, NotAList, NotJSON, atomic_write, make_folder, read_json_list


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
    assert after == umask  # it was only looked at


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
