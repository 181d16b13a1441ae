import argparse
import ast
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path
from typing import get_args, get_origin

import pytest

from data.config import (
    DATASETS,
    MODELS,
    WEIGHT_NAMES,
    Config,
    add_config_arguments,
    config_keys,
    dataset_overrides,
    get_config,
    main,
    overrides_from,
)
from ytvis.files import InputError

ROOT = Path(__file__).parents[2]
DEMO = "STMask_demo_config"

PLUS = [f"STMask_plus_{depth}{kind}" for depth in ("base", "resnet50") for kind in ("", "_ali", "_ada")]
NAMES = [
    "STMask_base_config",
    "STMask_resnet50_config",
    *(f"{model}{dataset}_config" for dataset in ("", "_YTVIS2021", "_OVIS") for model in PLUS),
    *(f"YOLACT_{model}_config" for model in ("plus_base", "plus_resnet50", "base", "resnet50")),
    DEMO,
]


def changed(overrides):
    """{key: value} of the demo config's keys that `overrides` change."""
    before, after = get_config(DEMO).flat(), get_config(DEMO, overrides).flat()
    assert list(before) == list(after)
    return {key: value for key, value in after.items() if value != before[key]}


def refusal(overrides, name=DEMO):
    """The one line of the error that refuses them."""
    with pytest.raises(InputError) as caught:
        get_config(name, overrides)
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- models


def test_the_names_are_those_of_the_model_tables_and_the_demo():
    assert len(NAMES) == 25
    assert sorted(MODELS) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_network_and_its_data(name):
    config = get_config(name)
    assert config.name == name
    if name == DEMO:
        return
    resnet50, yolact = "resnet50" in name, name.startswith("YOLACT")
    assert config.backbone.blocks == ((3, 4, 6, 3) if resnet50 else (3, 4, 23, 3))
    assert config.backbone.dcn_interval == (0 if "plus" not in name else (1 if yolact else 2) if resnet50 else 3)
    assert config.backbone.stem_channels == 64
    assert config.head.calibration == next((kind for kind in ("ali", "ada") if f"_{kind}_" in name), "none")
    other = "COCO2017" if yolact else "YTVIS2019"
    dataset = next((dataset for dataset in ("YTVIS2021", "OVIS") if dataset in name), other)
    assert config.dataset.name == dataset
    assert config.num_classes == {"YTVIS2019": 40, "YTVIS2021": 40, "OVIS": 25, "COCO2017": 80}[dataset]


def test_published_settings():
    config = get_config("STMask_plus_base_config")
    assert config.input.size_hw == (360, 640)
    assert config.head.kernels == ((3, 3), (3, 5), (5, 3))
    assert (config.head.channels, config.head.num_prototypes, config.head.embedding_dim) == (256, 32, 128)
    assert config.temporal_fusion.channels == (512, 512, 1024)
    assert (config.detection.conf_threshold, config.detection.nms_threshold) == (0.05, 0.5)
    assert (config.detection.top_k, config.detection.max_detections) == (200, 100)
    assert config.tracking.match_coeff == (0, 1, 2, 0)
    assert (config.tracking.max_hidden_age, config.tracking.score_decay) == (10, 0.95)
    assert config.postprocess.length_power == 0  # a track's score is the mean over its frames
    assert all(getattr(config.quirks, f.name) is True for f in fields(config.quirks))  # as published


def test_classes_of_the_data_sets():
    counts = {name: len(keys["dataset.class_names"]) for name, keys in DATASETS.items()}
    assert counts == {"YTVIS2019": 40, "YTVIS2021": 40, "OVIS": 25, "ShapesVIS": 8, "COCO2017": 80}
    for name, keys in DATASETS.items():
        assert keys["dataset.name"] == name
        assert len(set(keys["dataset.class_names"])) == counts[name]
    # Labels are counted from 1 in the order of the annotation files.
    first_and_last = {name: keys["dataset.class_names"][:: counts[name] - 1] for name, keys in DATASETS.items()}
    assert first_and_last == {
        "YTVIS2019": ("person", "tennis_racket"),
        "YTVIS2021": ("airplane", "zebra"),
        "OVIS": ("Person", "Vehicle"),
        "ShapesVIS": ("circle", "crescent"),
        "COCO2017": ("person", "toothbrush"),
    }
    coco = DATASETS["COCO2017"]["dataset.class_names"]
    assert [coco[label - 1] for label in (10, 18, 40, 61, 79)] == [
        *("traffic_light", "horse", "bottle", "dining_table", "hair_drier")
    ]


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_every_split_says_where_it_may_lie(name, split):
    keys = DATASETS[name]
    for key in (f"dataset.{split}.ann_file", f"dataset.{split}.image_root"):
        assert keys[key]
        folder = "val2017" if (name, split) == ("COCO2017", "valid") else split
        assert all(folder in place and not Path(place).is_absolute() for place in keys[key])


def test_weight_names_lead_to_configs():
    assert set(WEIGHT_NAMES.values()) == set(MODELS)
    assert all(WEIGHT_NAMES[name] == WEIGHT_NAMES[name.removesuffix("_config")] == name for name in MODELS)


# ---------------------------------------------------------------------------------------------------- immutable


def test_configs_are_frozen_to_the_leaves():
    config = get_config(DEMO)
    for node in (config, *(value for value in vars(config).values() if is_dataclass(value)), config.dataset.train):
        for f in fields(node):
            with pytest.raises(FrozenInstanceError):
                setattr(node, f.name, getattr(node, f.name))
    hash(config)  # so it contains no list or dict


def test_configs_of_one_name_are_equal_and_others_are_not():
    assert get_config(DEMO) == get_config(DEMO)
    assert hash(get_config(DEMO)) == hash(get_config(DEMO))
    assert get_config(DEMO, {"detection.top_k": 7}) != get_config(DEMO)
    assert get_config(DEMO).detection.top_k == 200  # the other call changed nothing


@pytest.mark.parametrize("table", [MODELS, DATASETS, WEIGHT_NAMES], ids=["MODELS", "DATASETS", "WEIGHT_NAMES"])
def test_tables_are_read_only(table):
    name = next(iter(table))
    with pytest.raises(TypeError):
        table["mine"] = table[name]
    with pytest.raises(TypeError):
        del table[name]


@pytest.mark.parametrize("table", [MODELS, DATASETS], ids=["MODELS", "DATASETS"])
def test_entries_of_the_tables_are_read_only(table):
    for entry in table.values():
        key = next(iter(entry))
        with pytest.raises(TypeError):
            entry[key] = entry[key]


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", NAMES)
def test_the_suffix_of_a_name_may_be_left_out(name):
    assert get_config(name.removesuffix("_config")) == get_config(name)


@pytest.mark.parametrize(
    "name, nearest",
    [
        ("STMask_plus_bas_ada_config", "STMask_plus_base_ada_config"),
        ("stmask_plus_resnet50_config", "STMask_plus_resnet50_config"),
        ("STMask_plus_resnet50_ytvis2021", "STMask_plus_resnet50_YTVIS2021_config"),
        ("demo", DEMO),
        ("STMask_darknet53_config", None),
        ("", None),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, nearest):
    message = refusal(None, name)
    assert repr(name) in message
    suggested = [known for known in NAMES if repr(known) in message]
    assert len(suggested) == 1
    assert nearest in (None, suggested[0])


# ---------------------------------------------------------------------------------------------------- overrides


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_made_again_of_its_own_keys(name):
    config = get_config(name)
    assert get_config(config.name, config.flat()) == config


def test_a_changed_config_is_made_again_of_its_own_keys():
    config = get_config(DEMO, ["head.kernels=3,3;1,5", "tracking.score_decay=0.5", "dataset.class_names=a,b"])
    assert get_config(config.name, config.flat()) == config


@pytest.mark.parametrize("none", [None, {}, [], ()])
def test_no_overrides_change_nothing(none):
    assert changed(none) == {}


@pytest.mark.parametrize(
    "text, value",
    [
        ("detection.top_k=7", 7),
        ("detection.top_k = 7 ", 7),
        ("backbone.dcn_interval=0", 0),
        ("tracking.score_decay=0.5", 0.5),
        ("tracking.score_decay=1", 1.0),
        ("tracking.new_object_iou=1e-3", 0.001),
        ("detection.cross_class_nms=false", False),
        ("detection.cross_class_nms=False", False),
        ("detection.cross_class_nms=0", False),
        ("detection.cross_class_nms=no", False),
        ("head.calibration=ali", "ali"),
        ("dataset.root=/data/a=b", "/data/a=b"),
        ("dataset.class_names=cat,dog", ("cat", "dog")),
        ("dataset.valid.ann_file=mine.json", ("mine.json",)),
        ("input.size_hw=64,96", (64, 96)),
        ("input.size_hw=(64, 96)", (64, 96)),
        ("tracking.match_coeff=0,1.5,2,0", (0.0, 1.5, 2.0, 0.0)),
        ("head.kernels=3,3;1,5", ((3, 3), (1, 5))),
        ("head.kernels=3, 3", ((3, 3),)),
    ],
)
def test_text_is_parsed_to_the_type_of_the_key(text, value):
    key = text.partition("=")[0].strip()
    found = changed([text])
    assert found == {key: value}
    assert type(found[key]) is type(value)
    if isinstance(value, tuple):
        assert [type(item) for item in found[key]] == [type(item) for item in value]


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("detection.top_k", 7, 7),
        ("detection.top_k", "7", 7),
        ("tracking.score_decay", 1, 1.0),
        ("detection.cross_class_nms", False, False),
        ("head.calibration", "none", "none"),
        ("dataset.root", Path("some/where"), str(Path("some/where"))),
        ("input.size_hw", [64, 96], (64, 96)),
        ("input.mean", (1, 2, 3), (1.0, 2.0, 3.0)),
        ("head.kernels", [[3, 3], [1, 5]], ((3, 3), (1, 5))),
        ("head.kernels", "3,3;1,5", ((3, 3), (1, 5))),
    ],
)
def test_typed_values_are_taken(key, value, expected):
    found = changed({key: value})
    assert found == {key: expected}
    assert type(found[key]) is type(expected)


def test_true_is_parsed_as_well():
    config = get_config(DEMO, ["detection.cross_class_nms=false"])
    for text in ("true", "True", "1", "yes"):
        values = {**config.flat(), "detection.cross_class_nms": text}
        assert get_config(DEMO, values).detection.cross_class_nms is True


def test_several_overrides_and_the_last_of_a_key_counts():
    assert changed(["detection.top_k=7", "tracking.max_hidden_age=6", "detection.top_k=8"]) == {
        "detection.top_k": 8,
        "tracking.max_hidden_age": 6,
    }


@pytest.mark.parametrize(
    "key, values",
    [
        ("detection.top_k", ["x", "1.5", "", "none", 1.5, True, None, (1,), float("inf"), float("nan")]),
        ("tracking.score_decay", ["x", "", "true", True, None, (1.0,)]),
        ("detection.cross_class_nms", ["maybe", "", "2", 1, 0, None]),
        ("head.calibration", ["adaa", "", "ADA", None, 1, ["ada"]]),
        ("dataset.root", [None, 1, ("a",)]),
        ("input.size_hw", ["360", "1,2,3", "a,b", "", "1.5,2", 360, (360,), None, (1, 2, 3), (1.5, 2)]),
        ("backbone.blocks", ["3,4,6", "3,4,6,3,3"]),
        ("head.kernels", ["3,3;5", "3;3", "3,3,3", ((3, 3), (5,)), (3, 3), 3, None]),
        ("input.mean", ["1,2", "a,b,c", (1, 2, None)]),
    ],
)
def test_values_of_another_type_are_refused(key, values):
    for value in values:
        message = refusal({key: value})
        assert repr(key) in message
        assert repr(value) in message


def test_a_refusal_tells_what_the_key_takes():
    assert "none, ali, ada" in refusal(["head.calibration=x"])
    assert "integer" in refusal(["detection.top_k=x"])
    assert "number" in refusal(["tracking.score_decay=x"])
    assert "true or false" in refusal(["detection.cross_class_nms=x"])
    assert "comma" in refusal(["input.size_hw=x"])


@pytest.mark.parametrize(
    "key, nearest",
    [
        ("detection.cross_clas_nms", "detection.cross_class_nms"),
        ("cross_class_nms", "detection.cross_class_nms"),
        ("Detection.Top_K", "detection.top_k"),
        ("max_hidden_age", "tracking.max_hidden_age"),
        ("tracking.hidden_age", "tracking.max_hidden_age"),
        ("detection", None),
        ("", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key, nearest):
    for overrides in ({key: 1}, [f"{key}=1"]):
        message = refusal(overrides)
        suggested = [known for known in get_config(DEMO).flat() if repr(known) in message.partition(";")[2]]
        assert len(suggested) == 1
        assert nearest in (None, suggested[0])


@pytest.mark.parametrize("text", ["detection.top_k", "", "detection.top_k:3"])
def test_text_that_is_no_assignment_is_refused(text):
    assert "key=value" in refusal([text])


def test_the_name_cannot_be_set_but_may_be_told():
    assert "'name'" in refusal({"name": "mine"})
    assert "'name'" in refusal([f"name={NAMES[0]}"])
    assert changed({"name": DEMO}) == {}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("dataset.class_names=", "at least one"),
        ("head.kernels=", "at least one"),
        ("head.kernels=2,3", "odd"),
        ("head.kernels=3,3;3,4", "odd"),
        ("temporal_fusion.patch_size=4", "odd"),
        ("head.channels=0", "must be in 1…4096, not 0"),
        ("input.size_hw=0,640", "must be in 1…8192, not (0, 640)"),
        ("input.std=1,0,1", "positive"),
        ("detection.top_k=-1", "must be in 1…10000, not -1"),
        ("detection.conf_threshold=1.5", "0…1"),
        ("detection.nms_threshold=-0.1", "0…1"),
        ("postprocess.score_threshold=nan", "takes a number"),
        ("train.learning_rate=inf", "takes a number"),
        ("train.learning_rate=-1", "negative"),
        ("train.max_frame_distance=-1", "must be in 0…2147483647, not -1"),
        ("train.clip_frames=1", "must be in 2…64, not 1"),
        ("tracking.memory=0", "must be in 1…1000, not 0"),
        ("train.static_translation=1.1", "0…1"),
        ("train.static_scale=0,1", "positive"),
        ("train.static_scale=1.2,0.8", "decrease"),
        ("train.static_rotation=-1", "degrees"),
        ("train.static_shear=90", "degrees"),
    ],
)
def test_values_that_no_network_can_have_are_refused(override, words):
    message = refusal([override])
    assert repr(override.partition("=")[0]) in message and words in message


def is_of_integers(kind):
    """Whether a key of the type `kind` is an integer or a tuple of integers, nested or not."""
    return kind is int or (get_origin(kind) is tuple and all(map(is_of_integers, items_of(kind))))


def items_of(kind):
    return [item for item in get_args(kind) if item is not Ellipsis]


def filled(kind, number):
    """A value of the type `kind` in which all numbers are `number`."""
    return number if kind is int else tuple(filled(item, number) for item in items_of(kind))


INTEGER_KEYS = {key: part.type for key, part in config_keys().items() if is_of_integers(part.type)}


@pytest.mark.parametrize("key", INTEGER_KEYS)
@pytest.mark.parametrize("number", [-(2**70), 2**70])
def test_every_integer_has_a_least_and_a_greatest_value(key, number):
    value = filled(INTEGER_KEYS[key], number)
    message = refusal({key: value})
    assert message.startswith(f"config key {key!r} must be in ") and message.endswith(f", not {value}")


def test_numbers_that_exhaust_the_memory_are_refused():
    for key in ("tracking.memory", "train.clip_frames", "head.channels", "train.scales", "detection.top_k"):
        assert "must be in" in refusal({key: filled(INTEGER_KEYS[key], 10**6)})


def test_category_ids_are_any_that_a_file_can_have():
    ids = (0, -3, 2**63 - 1)
    keys = {"dataset.class_names": ("a", "b", "c"), "dataset.category_ids": ids}
    assert get_config(DEMO, keys).category_ids == ids
    assert "'dataset.category_ids'" in refusal({**keys, "dataset.category_ids": (1, 2, 2**63)})


def test_there_is_no_memory_without_embeddings():
    assert get_config("STMask_demo_config", ["tracking.memory=4"]).tracking.memory == 4
    message = refusal(["tracking.memory=4", "head.embedding_dim=0"])
    assert "'tracking.memory' must be 1 without embeddings" in message


# ---------------------------------------------------------------------------------------------------- another data set


@pytest.mark.parametrize("name", ["COCO2017", "coco2017", "Coco2017"])
def test_a_data_set_takes_the_place_of_the_configs_own(name):
    config = get_config("STMask_plus_resnet50_config", dataset_overrides(name))
    assert config.dataset.name == "COCO2017" and config.dataset.root == "data/COCO2017"
    assert config.num_classes == 80
    own = get_config("STMask_plus_resnet50_config").flat()
    assert {key for key, value in config.flat().items() if value != own[key]} <= set(DATASETS["COCO2017"])


def test_category_ids_are_those_of_the_classes():
    coco = get_config("YOLACT_resnet50_config")
    ids = dict(zip(coco.dataset.class_names, coco.category_ids, strict=True))
    assert (ids["person"], ids["stop_sign"], ids["bed"], ids["toothbrush"]) == (1, 13, 65, 90)
    assert get_config(DEMO).category_ids == tuple(range(1, 9))
    others = get_config("YOLACT_resnet50_config", ["dataset.class_names=a,b"])
    assert others.dataset.category_ids == () and others.category_ids == (1, 2)
    given = get_config("YOLACT_resnet50_config", ["dataset.class_names=a,b", "dataset.category_ids=7,3"])
    assert given.category_ids == (7, 3)
    for ids in ("7", "7,7", "7,3,1"):
        with pytest.raises(InputError, match="category_ids"):
            get_config("YOLACT_resnet50_config", ["dataset.class_names=a,b", f"dataset.category_ids={ids}"])


def test_every_data_set_says_the_same_keys():  # so no value of the config itself remains
    keys = {key for key in get_config(DEMO).flat() if key.startswith("dataset.")}
    assert all(set(dataset_overrides(name)) == keys for name in DATASETS)


@pytest.mark.parametrize(("name", "nearest"), [("coco", "COCO2017"), ("ytvis19", "YTVIS2019")])
def test_an_unknown_data_set_is_refused_with_the_nearest(name, nearest):
    with pytest.raises(InputError, match=f"unknown data set {name!r}; did you mean {nearest!r}"):
        dataset_overrides(name)


def command_line(*arguments):
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    parser.add_argument("--lr", type=float)
    return parser.parse_args(arguments)


def test_of_the_data_set_set_and_the_short_options_the_later_counts():
    options = command_line("--set=dataset.root=/mine", "--set", "train.learning_rate=1", "--lr=0.5")
    shortcuts = {"train.learning_rate": options.lr}
    config = get_config(DEMO, overrides_from(options.set, shortcuts, dataset_overrides("coco2017")))
    assert (config.dataset.name, config.dataset.root) == ("COCO2017", "/mine")
    assert config.dataset.class_names == DATASETS["COCO2017"]["dataset.class_names"]
    assert config.dataset.valid.image_root == ("val2017", "images/val2017")
    assert config.train.learning_rate == 0.5
    assert changed(overrides_from(command_line().set, {"train.learning_rate": None})) == {}


# ---------------------------------------------------------------------------------------------------- keys


def test_flat_has_every_key_once_in_order():
    flat = get_config(DEMO).flat()
    assert 30 <= sum(not key.startswith("train.") for key in flat) <= 62  # after the keys of the training recipe
    assert list(flat)[0] == "name"
    sections = list(dict.fromkeys(key.partition(".")[0] for key in flat))
    assert sections == [f.name for f in fields(Config)]
    assert flat["dataset.train.ann_file"] == get_config(DEMO).dataset.train.ann_file
    assert flat["tracking.score_decay"] == 0.95


def test_text_has_a_line_a_key_and_can_be_given_back():
    config = get_config(DEMO)
    lines = str(config).splitlines()
    assert len(lines) == len(config.flat())
    pairs = [line.split(" = ", 1) for line in lines]
    assert {key: ast.literal_eval(value) for key, value in pairs} == config.flat()


def test_models_name_only_keys_there_are():
    keys = set(get_config(DEMO).flat())
    assert all(set(entry) <= keys for entry in (*MODELS.values(), *DATASETS.values()))


def attributes_read():
    """Names of attributes that our source, `data/config.py` apart, reads of something other than `self`.

    Method calls do not count: `tensor.mean()` does not read the key `mean`.
    """
    paths = [path for path in ROOT.glob("*.py") if path.name != "setup.py"]
    paths += [path for folder in ("layers", "data", "utils", "inference") for path in (ROOT / folder).rglob("*.py")]
    names = set()
    for path in paths:
        if path == ROOT / "data" / "config.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"), path)))
        called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and id(node) not in called:
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                names.update(() if of_self else (node.attr,))
    return names


def test_every_key_is_read_by_something():
    read = attributes_read()
    assert [key for key in get_config(DEMO).flat() if key.rsplit(".", 1)[-1] not in read] == []


# ---------------------------------------------------------------------------------------------------- command lines


def run(*arguments):
    """`python -m data.config` with these arguments, in a process of its own."""
    command = [sys.executable, "-m", "data.config", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=120)


def test_the_command_lists_the_names():
    finished = run()
    assert (finished.returncode, finished.stderr) == (0, "")
    assert sorted(finished.stdout.split()) == sorted(NAMES)


def test_the_command_prints_one_config_with_its_changes():
    finished = run("STMask_plus_base_ada", "--set", "tracking.max_hidden_age=5", "--set", "head.kernels=3,3;5,5")
    assert (finished.returncode, finished.stderr) == (0, "")
    config = get_config("STMask_plus_base_ada_config", ["tracking.max_hidden_age=5", "head.kernels=3,3;5,5"])
    assert finished.stdout == f"{config}\n"


def test_every_key_says_what_it_is(capsys):
    assert main([DEMO, "--help_keys", "--set=train.loss_weights.masks=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    config = get_config(DEMO, ["train.loss_weights.masks=3"])
    assert lines[::2] == str(config).splitlines()[1:]  # all but the name
    assert all(line.startswith("    ") and len(line.strip()) > 10 for line in lines[1::2])
    assert any("one of none, ali, ada" in line for line in lines)
    assert lines[lines.index("train.clip_frames = 2") + 1].endswith("; an integer; must be in 2…64")


def test_the_published_loss_weights():
    weights = get_config("STMask_plus_base_config").train.loss_weights
    assert (weights.box_iou, weights.box_smooth_l1, weights.centerness) == (5, 1.5, 20)
    assert (weights.classes, weights.masks, weights.shifted_masks) == (6.125, 6.125, 6.125)
    assert (weights.track_pairs, weights.shifted_boxes) == (5, 5)
    assert "negative" in refusal(["train.loss_weights.masks=-1"])


def test_the_command_ends_with_2_and_one_line_on_bad_input():
    finished = run("STMask_plus_base_adda")
    assert finished.returncode == 2
    assert finished.stdout == ""
    (line,) = finished.stderr.splitlines()
    assert "error" in line
    assert "'STMask_plus_base_ada_config'" in line


def test_main_refuses_bad_overrides_likewise(capsys):
    assert main([DEMO, "--set", "detection.top_k=x"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1


def test_other_commands_get_the_config_options():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    options = parser.parse_args([])
    assert (options.config, options.set, options.print_config) == (None, [], False)
    options = parser.parse_args(["--config=a", "--set=b=1", "--set", "c=2", "--print_config"])
    assert (options.config, options.set, options.print_config) == ("a", ["b=1", "c=2"], True)
    assert parser.parse_args([]).set == []  # the parser keeps nothing of the first call
