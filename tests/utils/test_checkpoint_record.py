"""What a checkpoint says about itself, written and read, damaged and hostile."""

import json
import zipfile

import pytest
import torch

from utils.checkpoint import load_state_dict, main, save_state_dict
from utils.checkpoint_record import LARGEST, CheckpointRecord, read_record
from ytvis.files import InputError

STATE = {"a": torch.arange(6.0)}
RECORD = CheckpointRecord(
    config="mine",
    changed={"input.size_hw": [64, 96], "x": 1.5, "y": True, "z": "text"},
    class_names=("ball", "bär"),
    category_ids=(3, None),
    category_names=("ball", None),
    data={"name": "mine", "split": "train"},
    iteration=7,
    epoch=1,
    scores={"AP": -1.0, "iteration": 6},
    training={"batch_size": 2},
    keys={"head.kernels": [[3, 3], [3, 5]]},
)


def saved(path, content, **how):
    """A checkpoint with `content` (bytes) as its record."""
    save_state_dict(STATE, path)
    with zipfile.ZipFile(path, "a", **how) as archive:
        archive.writestr("archive/stmask.json", content)
    return path


def refused(path):
    with pytest.raises(InputError) as caught:
        read_record(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: what it says about itself") and message.isprintable() and len(message) < 600
    return message


def test_what_is_written_is_read_again(tmp_path):
    save_state_dict(STATE, tmp_path / "a.pth", RECORD)
    read = read_record(tmp_path / "a.pth")
    assert read.versions["torch"] and read.versions["python"]
    assert read.to_json() == RECORD.to_json()
    assert read.class_names == RECORD.class_names and read.category_ids == (3, None)
    assert torch.equal(load_state_dict(tmp_path / "a.pth")["a"], STATE["a"])
    assert zipfile.ZipFile(tmp_path / "a.pth").testzip() is None


@pytest.mark.parametrize("name", ["👨\u200d👩\u200d👧", "a\u00a0b", "犬\u3000猫", "سگ\u200cها", "\u202bab", "x" * 1000])
@pytest.mark.parametrize("category_id", [0, -3, 2**63 - 1])
def test_what_an_annotation_file_may_have_can_be_written_and_read(tmp_path, name, category_id):
    record = CheckpointRecord("mine", {}, (name,), (category_id,), (name,))
    save_state_dict(STATE, tmp_path / "a.pth", record)
    read = read_record(tmp_path / "a.pth")
    assert (read.class_names, read.category_ids, read.category_names) == ((name,), (category_id,), (name,))


@pytest.mark.parametrize(
    "values",
    [
        {"class_names": ("x" * 1001,)},
        {"class_names": ("a\nb",)},
        {"class_names": ("a",), "category_ids": (1, 2)},
        {"class_names": tuple(f"{number:0100}" for number in range(20_000))},
        {"data": {"ann_file": "tr\udcffain.json"}},
        {"scores": {"AP": float("nan")}},
        {"changed": {"input.size_hw": None}},
    ],
)
def test_a_record_that_could_not_be_read_again_is_none(values):
    with pytest.raises(InputError) as caught:
        CheckpointRecord("mine", **values)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300


def test_it_can_be_read_without_our_code(tmp_path):
    save_state_dict(STATE, tmp_path / "a.pth", RECORD)
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/stmask.json")]
        assert json.loads(archive.read(name))["class_names"] == ["ball", "bär"]


def test_files_without_one_have_none(tmp_path):
    save_state_dict(STATE, tmp_path / "a.pth")
    torch.save(STATE, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "b.pth").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "c.pth").touch()
    zipfile.ZipFile(tmp_path / "d.pth", "w").close()
    for name in ("a.pth", "old.pth", "b.pth", "c.pth", "d.pth", "none.pth", "."):
        assert read_record(tmp_path / name) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"3",
        b"\xff\xfe{}",
        b'{"config": "\xff"}',
        b'{"config": 3}',
        b'{"config": "a\\u0000b"}',
        b'{"config": "\\ud800"}',
        b'{"config": "a\\nb"}',
        b'{"config": "../../x"}',
        b'{"config": "/tmp/x"}',
        b'{"config": "C:\\\\x"}',
        b'{"class_names": "ball"}',
        b'{"class_names": {"a": 1}}',
        b'{"class_names": [1, 2]}',
        b'{"class_names": ["a"], "category_ids": [1, 2]}',
        b'{"class_names": ["a"], "category_ids": [-9223372036854775809]}',
        b'{"class_names": ["a"], "category_ids": [true]}',
        b'{"changed": []}',
        b'{"changed": {"a": null}}',
        b'{"changed": {"a": {}}}',
        b'{"changed": {"a": [[[[1]]]]}}',
        b'{"changed": {"a": 1e999}}',
        b'{"changed": {"a": 100000000000000000000}}',
        b'{"iteration": -1}',
        b'{"iteration": 1.5}',
        b'{"iteration": "7"}',
        b'{"scores": {"AP": NaN}}',
        b'{"scores": {"AP": "high"}}',
        b'{"scores": {"AP": ' + b"9" * 5000 + b"}}",
        b'{"data": {"name": 3}}',
        b'{"training": {"a": {"b": 1}}}',
        b'{"x": ' + b"[" * 100_000,
        b'{"config": "' + b"x" * 2000 + b'"}',
        b'{"class_names": [' + b'"a",' * 300_000 + b'"a"]}',
    ],
)
def test_hostile_content_is_one_line(tmp_path, content):
    refused(saved(tmp_path / "a.pth", content))


def test_names_of_a_later_version_are_passed_over(tmp_path):
    assert read_record(saved(tmp_path / "a.pth", b'{"config": "mine", "later": {"x": [1]}}')).config == "mine"


def test_a_large_or_compressed_record_is_not_read(tmp_path):
    assert "MiB" in refused(saved(tmp_path / "a.pth", b" " * (LARGEST + 1)))
    bomb = saved(tmp_path / "b.pth", b" " * 1000, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in refused(bomb)


def test_a_flipped_bit_is_found(tmp_path):
    path = tmp_path / "a.pth"
    save_state_dict(STATE, path, RECORD)
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"mine"', b'"dine"', 1))
    refused(path)


def test_a_converted_checkpoint_takes_its_record_along(tmp_path, capsys):
    save_state_dict(STATE, tmp_path / "a.pth", RECORD)
    assert main([str(tmp_path / "a.pth"), str(tmp_path / "b.pth"), "--half"]) == 0
    assert read_record(tmp_path / "b.pth").to_json() == RECORD.to_json()
    assert load_state_dict(tmp_path / "b.pth")["a"].dtype == torch.float16


def test_what_a_file_does_not_tell_is_given_when_it_is_converted(tmp_path, capsys):
    save_state_dict(STATE, tmp_path / "a.pth")
    line = [str(tmp_path / "a.pth"), str(tmp_path / "b.pth"), "--config=mine", "--class_names=ball, red box"]
    assert main(line) == 0
    record = read_record(tmp_path / "b.pth")
    assert record.config == "mine" and record.class_names == ("ball", "red box")
    assert main(["show", str(tmp_path / "b.pth")]) == 0
    printed = capsys.readouterr().out
    assert "config: mine" in printed and "classes: ball, red box" in printed and "torch = " in printed
