import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from data.config import WEIGHT_NAMES
from utils.checkpoint import (
    CheckpointName,
    compare,
    find_checkpoint,
    fingerprint,
    load_state_dict,
    main,
    save_state_dict,
)
from ytvis.files import InputError


def one_line(caught):
    """The message of a caught InputError, which is to be one line without terminal codes."""
    message = str(caught.value)
    assert message.isprintable()
    return message


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "path, expected",
    [
        ("STMask_plus_base.pth", CheckpointName("STMask_plus_base")),
        ("STMask_plus_base_config.pth", CheckpointName("STMask_plus_base_config")),
        ("STMask_plus_base_10_32100.pth", CheckpointName("STMask_plus_base", 10, 32100)),
        ("STMask_plus_base_config_0_7.pth", CheckpointName("STMask_plus_base_config", 0, 7)),
        ("STMask_plus_base_10_32100_interrupt.pth", CheckpointName("STMask_plus_base", 10, 32100, True)),
        ("STMask_plus_base_interrupt.pth", CheckpointName("STMask_plus_base", interrupted=True)),
        ("STMask_plus_base_best.pth", CheckpointName("STMask_plus_base", best=True)),
        ("STMask_r101_FCA+TF.pth", CheckpointName("STMask_r101_FCA+TF")),
        ("STMask_plus_resnet50_YTVIS2021.pth", CheckpointName("STMask_plus_resnet50_YTVIS2021")),
        ("STMask_plus_resnet50_YTVIS2021_3_40.pth", CheckpointName("STMask_plus_resnet50_YTVIS2021", 3, 40)),
        ("yolact_plus_resnet50_54.pth", CheckpointName("yolact_plus_resnet50_54")),  # one number is no pair
        ("some/folder_1_2/a_3_4.pth", CheckpointName("a", 3, 4)),
        (Path("folder") / "a.pth", CheckpointName("a")),
        ("a.pt", None),
        ("a.pth.tmp", None),
        (".pth", None),
        ("latest", None),
        ("", None),
    ],
)
def test_parsing_of_names(path, expected):
    assert CheckpointName.parse(path) == expected


# ---------------------------------------------------------------------------------------------------- search

BASE, R50 = "STMask_plus_base_config", "STMask_plus_resnet50_config"


@pytest.fixture
def folder(tmp_path):
    """Makes files in a folder and returns it; later ones are newer."""

    def make(*names):
        for age, name in enumerate(names):
            (tmp_path / name).touch()
            os.utime(tmp_path / name, (age, age))
        return tmp_path

    return make


def found(folder, word, config_name=None):
    return find_checkpoint(folder / word, WEIGHT_NAMES, config_name).name


def test_any_other_path_is_itself(tmp_path):
    for path in ("weights/a.pth", tmp_path / "missing.pth", "latest.pth", "weights/latest/a.pth"):
        assert find_checkpoint(path, WEIGHT_NAMES) == Path(path)


def test_latest_is_the_highest_iteration_whatever_the_age(folder):
    files = folder(
        f"{BASE}_1_900.pth", f"{BASE}_12_1000_interrupt.pth", f"{BASE}_2_1000.txt", f"{BASE}.pth", f"{BASE}_9_99.pth"
    )
    assert found(files, "latest") == f"{BASE}_12_1000_interrupt.pth"


def test_interrupt_is_the_highest_iteration_of_the_interrupted(folder):
    files = folder(f"{BASE}_1_100_interrupt.pth", f"{BASE}_1_20_interrupt.pth", f"{BASE}_2_300.pth")
    assert found(files, "interrupt") == f"{BASE}_1_100_interrupt.pth"


def test_of_one_iteration_the_newest_wins(folder):
    assert found(folder(f"{BASE}_1_5_interrupt.pth", f"{BASE}_1_5.pth"), "latest") == f"{BASE}_1_5.pth"


def test_names_of_one_model_are_searched_together(folder):
    files = folder("STMask_plus_base_1_30.pth", f"{BASE}_1_40.pth", "STMask_r101_FCA+TF.pth")
    assert found(files, "latest") == f"{BASE}_1_40.pth"


def test_several_models_ask_for_one_of_their_files(folder):
    files = folder(f"{BASE}_1_100.pth", f"{BASE}_1_90.pth", f"{R50}_1_50.pth", "unknown_9_900.pth")
    with pytest.raises(InputError) as caught:
        found(files, "latest")
    named = [str(files / name) for name in (f"{BASE}_1_100.pth", f"{R50}_1_50.pth")]
    assert one_line(caught).startswith(f"{files}: ") and one_line(caught).endswith(f"name one: {', '.join(named)}")
    assert found(files, "latest", R50) == f"{R50}_1_50.pth"
    assert found(files, "latest", BASE) == f"{BASE}_1_100.pth"


@pytest.mark.parametrize(
    "names, word, config_name",
    [
        ((), "latest", None),
        (("unknown_1_2.pth", "notes.txt"), "latest", None),
        ((f"{BASE}_1_2.pth",), "interrupt", None),
        ((f"{BASE}_1_2.pth",), "latest", R50),
    ],
)
def test_nothing_found_is_bad_input(folder, names, word, config_name):
    files = folder(*names)
    with pytest.raises(InputError) as caught:
        found(files, word, config_name)
    message = one_line(caught)
    assert str(files) in message
    assert (config_name or "") in message


def test_what_is_there_instead_is_named_with_the_reason(folder):
    names = ("notes_1_2.pth", "model.pth", "b.pth", "z.pth", f"{R50}_1_5.pth", f"{BASE}_1_9.pth", f"{BASE}_best.pth")
    files = folder(*names)
    (files / f"{BASE}_1_90_interrupt.pth").symlink_to("gone")
    (files / f"{BASE}_1_95_interrupt.pth").mkdir()
    with pytest.raises(InputError) as caught:
        found(files, "interrupt", BASE)
    message = one_line(caught)
    assert message.startswith(f"{files}: no interrupted checkpoint of {BASE} there; name a file instead; ")
    parts = set(message.split("; ")[2:])
    assert parts == {
        f"no file: {BASE}_1_90_interrupt.pth, {BASE}_1_95_interrupt.pth",
        f"not interrupted: {BASE}_1_9.pth",
        f"the best of a validation: {BASE}_best.pth",
        f"of {R50}: {R50}_1_5.pth",
        "its name is that of no config: b.pth, model.pth, notes_1_2.pth, …",
    }
    with pytest.raises(InputError, match=f"not the best of a validation: {R50}_1_5.pth"):
        found(files, "best", R50)


def test_without_any_checkpoint_that_is_said(tmp_path):
    (tmp_path / "model.ckpt").touch()
    with pytest.raises(InputError, match="there is no .pth file"):
        found(tmp_path, "latest")


def test_a_folder_is_no_checkpoint_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("latest", "weights", "runs", f"{BASE}.pth"):
        (tmp_path / name).mkdir()
    (tmp_path / "weights" / f"{BASE}_1_2.pth").touch()
    (tmp_path / "runs" / "mine.pth").touch()
    assert find_checkpoint("latest", WEIGHT_NAMES) == Path("weights") / f"{BASE}_1_2.pth"
    message = refused(tmp_path / "runs")
    assert "is a folder" in message and "mine.pth" in message and "runs/latest" in message


def test_a_folder_that_is_not_there_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="none_such"):
        find_checkpoint(tmp_path / "none_such" / "latest", WEIGHT_NAMES)


def test_the_word_alone_searches_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / f"{BASE}_1_2.pth").touch()
    (tmp_path / f"{R50}_1_2.pth").touch()
    assert find_checkpoint("latest", WEIGHT_NAMES) == Path("weights") / f"{BASE}_1_2.pth"


def test_the_word_in_a_folder_that_is_named_searches_that_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"{BASE}_1_2.pth").touch()
    assert find_checkpoint("./latest", WEIGHT_NAMES) == Path(f"{BASE}_1_2.pth")


def test_the_words_look_where_downloads_are_and_in_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STMASK_WEIGHTS", str(tmp_path / "elsewhere"))
    for folder, iteration in (("elsewhere", 2), ("weights", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{BASE}_1_{iteration}.pth").touch()
    assert find_checkpoint("latest", WEIGHT_NAMES) == tmp_path / "elsewhere" / f"{BASE}_1_2.pth"
    assert find_checkpoint("weights/latest", WEIGHT_NAMES) == Path("weights") / f"{BASE}_1_1.pth"
    (tmp_path / "weights" / f"{BASE}_1_3.pth").touch()
    assert find_checkpoint("latest", WEIGHT_NAMES) == Path("weights") / f"{BASE}_1_3.pth"


def test_files_that_others_trained_do_not_count_beside_a_training(folder):
    given = (
        "yolact_plus_resnet50_54_800000.pth",
        "yolact_base_54_800000.pth",
        "STMask_demo.pth",
        "STMask_plus_resnet50.pth",
    )
    files = folder(*given, f"{BASE}_1_40.pth", f"{BASE}_best.pth")
    assert found(files, "latest") == f"{BASE}_1_40.pth"
    assert found(files, "latest", R50) == "STMask_plus_resnet50.pth"
    (files / f"{BASE}_1_40.pth").unlink()
    with pytest.raises(InputError, match="name one"):
        found(files, "latest")


def test_best_is_the_file_of_the_best_validation(folder):
    files = folder(f"{BASE}_best.pth", f"{BASE}_2_70.pth", "STMask_demo.pth", "best.txt")
    assert found(files, "best") == f"{BASE}_best.pth"
    assert found(files, "latest") == f"{BASE}_2_70.pth"
    (files / f"{R50}_best.pth").touch()
    assert found(files, "best", R50) == f"{R50}_best.pth"
    with pytest.raises(InputError, match="several models"):
        found(files, "best")
    with pytest.raises(InputError, match="no best checkpoint"):
        found(files, "best", "STMask_demo_config")


def test_a_file_of_that_very_name_is_itself(folder):
    files = folder("latest", f"{BASE}_1_2.pth")
    assert found(files, "latest") == "latest"


# ---------------------------------------------------------------------------------------------------- loading

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1.5]), "count": torch.tensor(7)}


def same(ours, expected):
    assert list(ours) == list(expected)
    for name, value in expected.items():
        assert ours[name].dtype == value.dtype
        assert torch.equal(ours[name], value)


def refused(path):
    """The message of the error for `path`."""
    with pytest.raises(InputError) as caught:
        load_state_dict(path)
    message = one_line(caught)
    assert str(path) in message
    assert "weights_only" not in message  # torch's own message explains how to load it unsafely
    return message


def test_weights_of_a_training_that_diverged_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": torch.ones(2), "fc.bias": torch.tensor([0.0, float("nan")])}, path)
    assert "fc.bias holds values that are not finite" in refused(path)


@pytest.mark.parametrize(
    "value",
    [
        torch.zeros(1).expand(60_000, 60_000),
        torch.eye(4).to_sparse(),
        torch.eye(4).to_sparse_csr(),
        torch.zeros(2, 2, device="meta"),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, dtype=torch.int8),
        torch.zeros(2).to(torch.float8_e4m3fn),
        torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]),
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ],
    ids=["stride 0", "sparse", "csr", "meta", "complex", "int8", "float8", "nested", "quantised"],
)
def test_tensors_that_are_no_plain_numbers_are_refused_before_they_are_computed_with(tmp_path, value):
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": value}, path)
    assert "not an ordinary tensor" in refused(path) or "larger than the file" in refused(path)


def test_many_names_of_the_same_numbers_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    shared = torch.zeros(2**20)
    torch.save({str(number): shared for number in range(1000)}, path)
    assert "larger than the file" in refused(path)
    torch.save({"a": shared, "b": shared}, path)  # tied weights
    assert len(load_state_dict(path)) == 2


def test_a_compressed_file_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "plain.pth")
    path = tmp_path / "bomb.pth"
    with zipfile.ZipFile(tmp_path / "plain.pth") as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert path.stat().st_size < 2**16
    assert "not a checkpoint that loads safely" in refused(path)


def test_nested_and_circular_contents_are_refused(tmp_path):
    path = tmp_path / "model.pth"
    circular, grown = [], [torch.zeros(1)]
    circular.append(circular)
    for _ in range(50):
        grown = [grown] * 10
    for content in ({"a": {"b": torch.zeros(1)}}, {"a": circular}, {"a": grown}, {3: torch.zeros(1)}, []):
        torch.save(content, path)
        assert "not a plain state dict" in refused(path)


def test_names_from_a_file_are_shown_shortened_on_one_line(tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"a\nb\0" + "c" * 1000: torch.tensor(float("nan"))}, path)
    assert len(refused(path)) < len(str(path)) + 200
    state = {"a\nb" + "c" * 1000: torch.zeros(1)}
    assert str(compare(state, {})).isprintable() and len(str(compare(state, {}))) < 200


def test_whole_numbers_in_the_place_of_weights_do_not_fit():
    assert compare({"a": torch.ones(1, dtype=torch.int64)}, {"a": torch.ones(1)}).reshaped == ("a",)
    assert not compare({"a": torch.ones(1, dtype=torch.float16)}, {"a": torch.ones(1)})


def test_a_name_that_is_too_long_is_no_such_file(tmp_path):
    assert "no such file" in refused(tmp_path / ("x" * 300 + ".pth"))


@pytest.mark.parametrize("size", [2**12, 2**18, 2**20])
def test_a_full_disk_is_one_line_and_leaves_the_earlier_file(tmp_path, size):
    resource = pytest.importorskip("resource")
    path = tmp_path / "a.pth"
    save_state_dict(STATE, path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, limits[1]))  # what is written beyond it fails as on a full disk
    try:
        with pytest.raises(InputError, match=r"a\.pth: cannot be written") as caught:
            save_state_dict({"a": torch.zeros(size), "b": torch.zeros(10)}, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one_line(caught)
    same(load_state_dict(path), STATE)
    assert os.listdir(tmp_path) == ["a.pth"]


def test_saved_is_loaded_again(tmp_path):
    path = tmp_path / "folder" / "a.pth"
    state = {**STATE, "half": torch.ones(2).bfloat16(), "none": torch.zeros(0, 4)}
    save_state_dict(state, path)
    same(load_state_dict(path), state)
    assert os.listdir(path.parent) == ["a.pth"]


def test_parameters_are_saved_as_plain_tensors(tmp_path):
    layer = torch.nn.Linear(2, 3)
    save_state_dict(dict(layer.named_parameters()), tmp_path / "a.pth")
    loaded = load_state_dict(tmp_path / "a.pth")
    same(loaded, layer.state_dict())
    assert not any(value.requires_grad or isinstance(value, torch.nn.Parameter) for value in loaded.values())


def test_a_save_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.pth"
    save_state_dict(STATE, path)

    class Broken:
        def detach(self):
            raise RuntimeError("device lost")

    with pytest.raises(RuntimeError, match="device lost"):
        save_state_dict({"a.weight": torch.zeros(2, 3), "b": Broken()}, path)
    same(load_state_dict(path), STATE)
    assert os.listdir(tmp_path) == ["a.pth"]


def test_the_old_file_format_is_loaded_too(tmp_path):
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    same(load_state_dict(tmp_path / "a.pth"), STATE)


def test_the_prefix_of_data_parallel_is_dropped(tmp_path):
    torch.save({f"module.{name}": value for name, value in STATE.items()}, tmp_path / "a.pth")
    same(load_state_dict(tmp_path / "a.pth"), STATE)
    inner = {"backbone.module.weight": torch.ones(1)}  # only in front it is DataParallel's
    torch.save(inner, tmp_path / "b.pth")
    same(load_state_dict(tmp_path / "b.pth"), inner)


def test_a_missing_file_names_its_neighbours(tmp_path):
    for name in ("here.pth", "also_here.pth", "notes.txt"):
        (tmp_path / name).touch()
    message = refused(tmp_path / "missing.pth")
    assert "also_here.pth, here.pth" in message
    assert "notes.txt" not in message
    assert "no .pth file" in refused(tmp_path / "none_such" / "missing.pth")
    refused(tmp_path)  # a folder is no file


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"\x80", b"<!DOCTYPE html>\n<html></html>", bytes(range(256)) * 9]
)
def test_garbage_is_refused(tmp_path, content):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_truncated_file_is_refused(tmp_path, zipped):
    whole, path = tmp_path / "whole.pth", tmp_path / "a.pth"
    torch.save(STATE, whole, _use_new_zipfile_serialization=zipped)
    content = whole.read_bytes()
    for length in (1, 10, len(content) // 4, len(content) // 2, len(content) - 5, len(content) - 1):
        path.write_bytes(content[:length])
        refused(path)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_executed(tmp_path, form):
    path, target = tmp_path / "a.pth", tmp_path / "executed"
    content = {**STATE, "b": Payload(target)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    refused(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(Payload(target)))
    assert target.exists()  # so it would have worked


@pytest.mark.parametrize(
    "content",
    [
        {},
        [torch.ones(1)],
        torch.ones(1),
        {"a": 1},
        {"a": torch.ones(1), "epoch": 3},
        {"state_dict": {"a": torch.ones(1)}},
        {1: torch.ones(1)},
    ],
)
def test_what_is_no_plain_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    assert "state dict" in refused(tmp_path / "a.pth")


def test_a_whole_module_is_refused(tmp_path):
    torch.save(torch.nn.Linear(1, 1), tmp_path / "a.pth")
    refused(tmp_path / "a.pth")


def test_fingerprint_is_the_sha256_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert fingerprint(tmp_path / "a") == hashlib.sha256(b"abc").hexdigest()


# ---------------------------------------------------------------------------------------------------- comparison


def test_no_difference():
    mismatch = compare(STATE, dict(STATE))
    assert not mismatch
    assert len(mismatch) == 0
    assert str(mismatch) == ""


def test_differences_by_name_and_shape():
    expected = {
        "same": torch.ones(2),
        "reshaped": torch.ones(2, 3),
        "gone": torch.ones(1),
        "bn.running_mean": torch.ones(1),
        "bn.num_batches_tracked": torch.tensor(0),
    }
    state = {"same": torch.zeros(2), "reshaped": torch.ones(3, 2), "extra": torch.ones(1)}
    mismatch = compare(state, expected)
    assert mismatch.missing == ("gone", "bn.running_mean")
    assert mismatch.unexpected == ("extra",)
    assert mismatch.reshaped == ("reshaped",)
    assert len(mismatch) == 4
    assert mismatch


def test_a_tensor_without_axes_is_another_shape_than_one_with():
    assert compare({"a": torch.tensor(1.0)}, {"a": torch.ones(1)}).reshaped == ("a",)


def test_num_batches_tracked_is_not_missed_but_not_welcome_everywhere():
    counter = {"bn.num_batches_tracked": torch.tensor(0)}
    assert not compare({}, counter)
    assert compare(counter, {}).unexpected == ("bn.num_batches_tracked",)


def test_differences_are_told_in_one_line_with_examples():
    state = {f"x{i}": torch.ones(1) for i in range(3)} | {"r": torch.ones(1)}
    expected = {"m": torch.ones(1), "r": torch.ones(2)}
    text = str(compare(state, expected))
    assert text == "1 missing (m); 3 unexpected (x0, x1, …); 1 of another shape (r)"
    assert str(compare({}, {"m": torch.ones(1), "n": torch.ones(1)})) == "2 missing (m, n)"


# ---------------------------------------------------------------------------------------------------- publishing


def test_published_weights_are_the_latest_in_half_the_size(tmp_path, capsys):
    for iteration in (1, 2):
        state = {"weight": torch.full((1000, 100), float(iteration)), "count": torch.tensor(iteration)}
        save_state_dict(state, tmp_path / f"model_0_{iteration}.pth")
    source, target = tmp_path / "model_0_2.pth", tmp_path / "out" / "model.pth"

    assert main([str(tmp_path / "latest"), str(target), "--half"]) == 0

    published = load_state_dict(target)
    assert published["weight"].dtype == torch.float16 and published["count"].dtype == torch.int64
    assert published["weight"].float().equal(load_state_dict(source)["weight"])
    assert target.stat().st_size < 0.55 * source.stat().st_size
    assert fingerprint(target) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "folder"), [("latest", "weights"), ("./latest", "."), ("weights/latest", "weights")]
)
def test_what_is_published_is_looked_for_where_checkpoints_are(tmp_path, monkeypatch, source, folder):
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate((".", "weights")):
        save_state_dict({"weight": torch.full((2,), float(number))}, tmp_path / name / f"model{number}_0_1.pth")
    assert main([source, "out/model.pth"]) == 0
    assert load_state_dict("out/model.pth")["weight"][0] == [".", "weights"].index(folder)


def test_one_of_several_models_is_published_by_its_name(tmp_path, capsys):
    for name in ("one_0_1.pth", "two_0_1.pth"):
        save_state_dict(STATE, tmp_path / name)
    assert main([str(tmp_path / "latest"), str(tmp_path / "out.pth")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "two_0_1.pth") in error and "--config" not in error
    assert main([str(tmp_path / "two_0_1.pth"), str(tmp_path / "out.pth")]) == 0


def test_a_target_that_is_a_folder_is_bad_input(tmp_path, capsys):
    save_state_dict(STATE, tmp_path / "model.pth")
    assert main([str(tmp_path / "model.pth"), str(tmp_path)]) == 2
    assert f"utils.checkpoint: error: {tmp_path}: cannot be written: it is a folder" in capsys.readouterr().err


def test_help_says_how_it_is_called(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert capsys.readouterr().out.startswith("usage: python -m utils.checkpoint ")


def test_weights_too_large_for_half_precision_are_refused(tmp_path, capsys):
    save_state_dict({"weight": torch.tensor([1e6])}, tmp_path / "model.pth")
    assert main([str(tmp_path / "model.pth"), str(tmp_path / "half.pth"), "--half"]) == 2
    assert "weight has values that float16 cannot hold" in capsys.readouterr().err
    assert not (tmp_path / "half.pth").exists()
    assert main([str(tmp_path / "model.pth"), str(tmp_path / "full.pth")]) == 0
    assert main([str(tmp_path / "none.pth"), str(tmp_path / "full.pth")]) == 2
