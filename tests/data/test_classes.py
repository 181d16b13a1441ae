import json

import pytest

from data.classes import config_for
from data.config import MODELS, get_config
from ytvis.files import InputError

DEMO = "STMask_demo_config"
SHAPES = get_config(DEMO).dataset.class_names


def write_set(root, *names, split="train"):
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    videos = [{"id": 1, "width": 4, "height": 4, "file_names": ["a.png"]}]
    content = {"videos": videos, "categories": categories[::-1], "annotations": []}  # the order is that of the ids
    (root / f"{split}.json").write_text(json.dumps(content))
    return {"dataset.root": str(root)}


def test_a_set_elsewhere_says_its_classes(tmp_path):
    overrides = write_set(tmp_path, "ball", "box, large")
    assert config_for(DEMO, overrides).dataset.class_names == ("ball", "box, large")
    assert config_for("STMask_demo", [f"dataset.root={tmp_path}"]).num_classes == 2


def test_classes_that_are_set_count_more(tmp_path):
    overrides = {**write_set(tmp_path, "ball", "box"), "dataset.class_names": "a,b,c"}
    assert config_for(DEMO, overrides).dataset.class_names == ("a", "b", "c")


@pytest.mark.parametrize("names", [("Star", "ring"), SHAPES])
def test_a_copy_or_a_part_of_the_config_s_own_set_keeps_its_classes(tmp_path, names):
    assert config_for(DEMO, write_set(tmp_path, *names)).dataset.class_names == SHAPES


def test_without_a_train_file_or_elsewhere_it_is_as_get_config(tmp_path):
    for overrides in (
        None,
        {"dataset.root": str(tmp_path)},
        ["dataset.root=data/ShapesVIS"],
        ["tracking.score_decay=0.5"],
    ):
        assert config_for(DEMO, overrides) == get_config(DEMO, overrides)
    write_set(tmp_path, "ball", split="valid")  # may lack classes
    assert config_for(DEMO, {"dataset.root": str(tmp_path)}).dataset.class_names == SHAPES


def test_a_dict_of_one_s_own_needs_no_classes(tmp_path, monkeypatch):
    mine = {**MODELS[DEMO], **write_set(tmp_path, "ball", "box"), "dataset.class_names": ()}
    monkeypatch.setattr("data.config.MODELS", {**MODELS, "STMask_mine_config": mine})
    monkeypatch.setattr("data.classes.MODELS", {**MODELS, "STMask_mine_config": mine})
    assert config_for("STMask_mine_config").dataset.class_names == ("ball", "box")
    (tmp_path / "train.json").unlink()
    with pytest.raises(InputError, match="dataset.class_names.*must have at least one entry"):
        config_for("STMask_mine_config")


def test_bad_input_is_named(tmp_path):
    with pytest.raises(InputError, match="unknown config"):
        config_for("STMask_dem", {"dataset.root": str(tmp_path)})
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(InputError, match="train.json"):
        config_for(DEMO, {"dataset.root": str(tmp_path)})
