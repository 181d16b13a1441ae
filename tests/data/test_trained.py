"""The config of a trained network, from its file alone."""

import logging

import pytest
import torch

from data.config import DATASETS, MODELS, TRACKING_BY_OVERLAP, WEIGHT_NAMES, get_config, make_config
from data.trained import (
    check_classes,
    config_of_record,
    differences,
    make_record,
    named_like,
    shape_keys,
    trained_config,
)
from stmask import STMask
from utils.checkpoint import save_state_dict
from utils.checkpoint_record import CheckpointRecord
from utils.checkpoint_shapes import keys_of
from ytvis.files import InputError

DEMO, YOLACT = "STMask_demo_config", "YOLACT_plus_resnet50_config"
OWN = {
    "dataset.class_names": ("ball", "red box"),
    "dataset.root": "data/mine",
    "input.size_hw": (64, 96),
    "backbone.blocks": (1, 2, 1, 1),
    "tracking.max_hidden_age": 5,
    "train.learning_rate": 3e-4,
}
MODEL_TABLE = {
    "STMask_r101_FCA+TF": "STMask_plus_base_config",
    "STMask_r101_ali": "STMask_plus_base_ali_config",
    "STMask_r101_ada": "STMask_plus_base_ada_config",
    "STMask_r50_FCA+TF": "STMask_plus_resnet50_config",
    "STMask_r50_ali": "STMask_plus_resnet50_ali_config",
    "STMask_r50_ada": "STMask_plus_resnet50_ada_config",
    "yolact_JDT_base": "STMask_base_config",
    "yolact_plus_base": "YOLACT_plus_base_config",
    "STMask_plus_base_ada": "STMask_plus_base_ada_config",
    "STMask_plus_resnet50_YTVIS2021": "STMask_plus_resnet50_YTVIS2021_config",
}


def on_meta(config):
    with torch.device("meta"):
        return STMask(config).state_dict()


def saved(path, config, record=None, prefix=""):
    """A checkpoint of a fresh network of `config`."""
    torch.manual_seed(0)
    state = {f"{prefix}{name}": value for name, value in STMask(config).state_dict().items()}
    save_state_dict(state, path, record)
    return path


def refused(path, *more):
    with pytest.raises(InputError) as caught:
        STMask.from_pretrained(path, *more, device="cpu")
    message = str(caught.value)
    assert message.startswith(str(path)) and message.isprintable()
    return message


# ---------------------------------------------------------------------------------------------------- with a record


def test_a_file_under_any_name_is_all_that_a_network_needs(tmp_path, caplog):
    config = get_config(DEMO, OWN)
    path = saved(tmp_path / "OWN.pth", config, make_record(config))
    with caplog.at_level(logging.INFO):
        model = STMask.from_pretrained(path, device="cpu")
    assert model.config == config
    assert model.config.dataset.class_names == ("ball", "red box") and model.config.input.size_hw == (64, 96)
    assert STMask.from_pretrained(path, DEMO, device="cpu").config == config
    assert caplog.text == ""


def test_set_wins_and_another_size_or_class_or_anchor_is_one_line(tmp_path, caplog):
    config = get_config(DEMO, OWN)
    path = saved(tmp_path / "OWN.pth", config, make_record(config))
    assert trained_config(path, None, ["tracking.max_hidden_age=7"]).tracking.max_hidden_age == 7
    assert not caplog.records
    changed = trained_config(path, DEMO, ["input.size_hw=96,160", "dataset.class_names=a,b", "head.square_kernels=1"])
    assert changed.input.size_hw == (96, 160) and changed.dataset.class_names == ("a", "b")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "input.size_hw is (96, 160), not (64, 96)" in line and "('ball', 'red box')" in line
    assert "head.square_kernels is True, not False" in line


def test_a_config_of_another_name_counts_but_for_the_classes(tmp_path, caplog):
    config = get_config(DEMO, {"dataset.class_names": ("ball", "red box"), "input.size_hw": (64, 96)})
    path = saved(tmp_path / "OWN.pth", config, make_record(config))
    other = trained_config(path, "STMask_plus_base_config")
    assert other.name == "STMask_plus_base_config" and other.dataset.class_names == ("ball", "red box")
    assert "input.size_hw is (360, 640), not (64, 96)" in caplog.text


def test_the_file_of_a_config_that_is_not_known_here_is_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "data.trained.MODELS", {**MODELS, "STMask_mine_config": {"head.channels": 32, "head.embedding_dim": 16}}
    )
    mine = make_config(
        "STMask_mine_config", {**get_config(DEMO).flat(), **OWN, "head.channels": 32, "name": "STMask_mine_config"}
    )
    record = make_record(mine)
    assert record.keys == {"head.channels": 32, "head.embedding_dim": 16}
    assert "head.channels" not in record.changed
    monkeypatch.undo()
    path = saved(tmp_path / "a.pth", mine, record)
    assert STMask.from_pretrained(path, device="cpu").config == mine


@pytest.mark.parametrize("config_name", ["", "unheard_of"])
def test_where_only_the_classes_are_said_the_tensors_tell_the_rest(tmp_path, config_name):
    config = get_config(DEMO, {"dataset.class_names": ("ball", "box")})
    path = saved(tmp_path / "a.pth", config, CheckpointRecord(config_name, class_names=("ball", "box")))
    assert STMask.from_pretrained(path, device="cpu").config == config
    named = trained_config(path, None, ["dataset.class_names=a,b"])
    assert named == get_config(DEMO, {"dataset.class_names": ("a", "b")})


@pytest.mark.parametrize("part", ["category_ids", "category_names"])
def test_half_of_what_is_said_of_categories_is_compared_with_nothing(part):
    config = get_config(DEMO, {"dataset.class_names": ("ball", "box")})
    record = CheckpointRecord(DEMO, class_names=("ball", "box"), **{part: (None, None)})
    check_classes(record, config, None, "a.pth")
    with pytest.raises(InputError, match="trained with the classes ball, box"):
        check_classes(record, get_config(DEMO, {"dataset.class_names": ("box", "ball")}), None, "a.pth")


def test_keys_of_a_later_version_are_left_out_in_one_line(tmp_path, caplog):
    record = CheckpointRecord(DEMO, {"head.wings": 3, "input.size_hw": [64, 96]}, ("ball", "box"))
    config = config_of_record(record, "a.pth")
    assert config == get_config(DEMO, {"input.size_hw": (64, 96), "dataset.class_names": ("ball", "box")})
    assert caplog.text.count("\n") == 1 and "head.wings" in caplog.text


@pytest.mark.parametrize(
    "changed",
    [
        {"input.size_hw": [10**6, 10**6]},
        {"backbone.blocks": [10**9, 1, 1, 1]},
        {"head.channels": 10**9},
        {"input.size_hw": "big"},
        {"input.size_hw": [-1, 2]},
        {"head.calibration": "magic"},
        {"head.calibration": ["ada"]},
        {"backbone.blocks": [[1], 2, 2, 2]},
        {"head.kernels": [[4, 4]]},
        {"train.learning_rate": True},
    ],
)
def test_hostile_keys_are_refused_in_one_line(tmp_path, changed):
    path = saved(tmp_path / "a.pth", get_config(DEMO), CheckpointRecord(DEMO, changed, ("a",) * 8))
    assert list(changed)[0] in refused(path)


def test_what_the_tensors_contradict_is_refused_before_a_network_is_built(tmp_path, monkeypatch):
    config = get_config(DEMO)
    path = saved(tmp_path / "a.pth", config, CheckpointRecord(DEMO, {}, tuple(map(str, range(30_000)))))
    assert "has 8 classes, not 30000" in refused(path)
    path = saved(
        tmp_path / "b.pth", config, CheckpointRecord(DEMO, {"head.channels": 4096}, config.dataset.class_names)
    )
    assert "of another shape" in refused(path)


def test_no_path_of_the_machine_is_in_a_record(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for root, kept in (
        ("data/mine", "data/mine"),
        (str(tmp_path / "data"), "data"),
        ("/home/somebody/data", ""),
        ("~/data", ""),
        ("../elsewhere/data", ""),
        ("C:\\Users\\somebody\\data", ""),
    ):
        overrides = {"dataset.root": root, "train.pretrained": f"{root}/start.pth"}
        overrides["dataset.train.ann_file"] = (f"{root}/train.json",)
        record = make_record(get_config(DEMO, overrides))
        assert record.changed["dataset.root"] == kept
        assert record.changed["train.pretrained"] == (f"{kept}/start.pth" if kept else "start.pth")
        assert "somebody" not in record.to_json().decode() and str(tmp_path) not in record.to_json().decode()
        assert "elsewhere" not in record.to_json().decode()
    record = make_record(get_config(DEMO, {"train.pretrained": "https://example.org/a.pth?key=secret"}))
    assert record.changed == {"train.pretrained": "https://example.org/a.pth"}


# ---------------------------------------------------------------------------------------------------- without one


@pytest.mark.parametrize("suffix", ["", "_10_32100", "_10_32100_interrupt", "_interrupt", "_best"])
def test_names_of_the_model_table_and_of_the_configs_tell_the_config(suffix):
    own = {config: config for config in MODELS}
    for name, config in {**MODEL_TABLE, **own}.items():
        assert trained_config(f"weights/{name}{suffix}.pth").name == config


@pytest.mark.parametrize("name", ["mine.pth", "yolact_darknet53_54_800000.pth", "STMask_plus.pth"])
def test_a_file_that_tells_nothing_asks_for_the_config(tmp_path, name):
    save_state_dict({"weight": torch.ones(2)}, tmp_path / name)
    assert "--config" in refused(tmp_path / name)


@pytest.mark.parametrize("name", MODELS)
def test_tensors_tell_every_named_config_but_for_names_of_classes(name):
    config = get_config(name)
    keys = keys_of(on_meta(config))
    assert differences(keys, config) == set()
    assert shape_keys(config).keys() == keys.keys()
    told = named_like(keys)
    assert shape_keys(get_config(told)) == shape_keys(config)
    assert told == name or told in name.replace("_YTVIS2021", "")


@pytest.mark.parametrize(
    "overrides",
    [
        {"backbone.block": "basic", "backbone.blocks": (1, 2, 1, 1)},
        {"backbone.blocks": (2, 3, 4, 2), "backbone.dcn_interval": 0},
        {"backbone.blocks": (2, 3, 4, 2), "backbone.dcn_interval": 3},
        {"head.channels": 32, "head.num_prototypes": 8, "head.embedding_dim": 8},
        {"head.kernels": ((3, 3), (5, 5)), "head.calibration": "ali"},
        {"head.square_kernels": True, "head.calibration": "none"},
        {"temporal_fusion.patch_size": 5, "temporal_fusion.channels": (8, 8, 16)},
    ],
)
def test_tensors_tell_what_a_training_changed(tmp_path, overrides):
    config = get_config(DEMO, overrides)
    for name in ("STMask_demo_1_20.pth", "STMask_demo.pth"):
        model = STMask.from_pretrained(saved(tmp_path / name, config), device="cpu")
        assert shape_keys(model.config) == shape_keys(config)
        assert model.config.input == config.input and model.config.tracking == config.tracking


def test_heads_that_are_absent_are_left_out_and_tracking_does_without(tmp_path, caplog):
    overrides = {"head.embedding_dim": 0, "head.centerness": False, "temporal_fusion.enabled": False}
    path = saved(tmp_path / "mine.pth", get_config(DEMO, overrides))
    with caplog.at_level(logging.INFO):
        config = STMask.from_pretrained(path, device="cpu").config
    assert config.name == DEMO and not config.head.centerness and not config.temporal_fusion.enabled
    expected = get_config(DEMO, {**TRACKING_BY_OVERLAP, "head.centerness": False})
    assert config.tracking == expected.tracking and config.quirks == expected.quirks
    assert "head.embedding_dim = 0" in caplog.text


@pytest.mark.parametrize("file_name", ["yolact_plus_resnet50_54.pth", "yolact_plus_resnet50_54_800000.pth"])
@pytest.mark.parametrize("calibration", ["none", "ali", "ada"])
@pytest.mark.parametrize("centerness", [True, False])
@pytest.mark.parametrize("embedding_dim", [128, 0])
def test_stmask_s_coco_files_are_known_by_their_tensors(file_name, calibration, centerness, embedding_dim):
    changes = {"head.calibration": calibration, "head.centerness": centerness, "head.embedding_dim": embedding_dim}
    coco = {"dataset.class_names": DATASETS["COCO2017"]["dataset.class_names"], "temporal_fusion.enabled": False}
    state = on_meta(get_config("STMask_plus_resnet50_config", {**coco, **changes}))
    config = trained_config(f"weights/{file_name}", state=state)
    assert config.name.startswith("STMask_plus_resnet50") and config.dataset.class_names[79] == "toothbrush"
    assert {key: config.flat()[key] for key in changes} == changes and not config.temporal_fusion.enabled
    assert (config.tracking.motion > 0) == (embedding_dim == 0)
    with torch.device("meta"):
        STMask.from_config(config).load_state_dict(state)  # strict
    assert trained_config("weights/yolact_plus_resnet50_54.pth", state=on_meta(get_config(YOLACT))).name == YOLACT


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_wrappers_do_not_hide_a_network(tmp_path, prefix):
    path = saved(tmp_path / "whatever.pth", get_config(DEMO), prefix=prefix)
    assert STMask.from_pretrained(path, device="cpu").config == get_config(DEMO)


def test_classes_without_names_are_numbered_and_can_be_named(tmp_path, caplog):
    path = saved(tmp_path / "STMask_demo_3_70.pth", get_config(DEMO, {"dataset.class_names": ("x", "y", "z")}))
    model = STMask.from_pretrained(path, device="cpu")
    assert model.config.dataset.class_names == ("class_1", "class_2", "class_3")
    assert caplog.text.count("\n") == 1 and "--set dataset.class_names=NAME" in caplog.text
    assert "--config" not in caplog.text
    assert trained_config(path, None, ["dataset.class_names=x,y,z"]).dataset.class_names == ("x", "y", "z")
    message = refused(path, get_config(DEMO))
    assert "has 3 classes, not 8" in message and "dataset.class_names=" in message and "--config" not in message


def test_forty_and_eighty_classes_are_those_of_the_published_sets(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        for count, known in ((25, "STMask_plus_base_OVIS_config"), (80, "YOLACT_base_config")):
            names = tuple(map(str, range(count)))
            path = saved(tmp_path / "mine.pth", get_config(DEMO, {"dataset.class_names": names}))
            assert trained_config(path).dataset.class_names == get_config(known).dataset.class_names
            assert f"has {count} classes" in caplog.text


def test_names_that_train_and_eval_use_are_known():
    assert all(config in MODELS for config in WEIGHT_NAMES.values())
