"""The sets of --train_dataset: their text, their classes, and what is loaded of them."""

import json
import re

import cv2
import numpy as np
import pytest

from data.clips import ClipDataset, SampleKey
from data.config import DATASETS, get_config
from data.training_sets import ChosenSet, TrainingSets, join, join_classes, read_class_maps
from ytvis.files import InputError

HW = (18, 32)


def draw(folder, names, static=False):
    """An annotation file, and its frames: a video of two frames, or two images, of which each shows all classes."""
    folder.mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(folder / f"{number}.png"), np.full((*HW, 3), 90, np.uint8))
    categories = [{"id": 3 * number, "name": name} for number, name in enumerate(names, start=1)]
    size = {"width": HW[1], "height": HW[0]}
    box, mask = [4, 5, 8, 6], [[4, 5, 12, 5, 12, 11, 4, 11]]
    content = {"categories": categories}
    if static:
        content["images"] = [{"id": number + 1, "file_name": f"{number}.png", **size} for number in range(2)]
        pairs = [(image, category["id"]) for image in (1, 2) for category in categories]
        content["annotations"] = [
            {"id": 1 + i, "image_id": image, "category_id": category, "segmentation": mask, "bbox": box, "area": 48}
            for i, (image, category) in enumerate(pairs)
        ]
    else:
        content["videos"] = [{"id": 1, "file_names": ["0.png", "1.png"], **size}]
        content["annotations"] = [
            {"id": 1 + i, "video_id": 1, "category_id": category["id"], "segmentations": [mask] * 2}
            | {"bboxes": [box] * 2, "areas": [48] * 2}
            for i, category in enumerate(categories)
        ]
    path = folder / "train.json"
    path.write_text(json.dumps(content))
    return f"{path}@{folder}"


# ---------------------------------------------------------------------------------------------------- the text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("coco2017", ChosenSet("COCO2017")),
        (" OVIS:0.5 ", ChosenSet("OVIS", "", 0.5)),
        ("ShapesVIS@/mine:2", ChosenSet("ShapesVIS", "/mine", 2.0)),
        ("ShapesVIS@/a:b", ChosenSet("ShapesVIS", "/a:b")),
        ("a/b.json@frames", ChosenSet("a/b.json", "frames")),
        (r"C:\a.JSON@D:\frames:3", ChosenSet(r"C:\a.JSON", r"D:\frames", 3.0)),
    ],
)
def test_a_set_is_a_name_or_a_file_with_a_folder_and_a_weight(text, expected):
    assert ChosenSet.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("COCO", "unknown data set 'COCO'; did you mean 'COCO2017'"),
        ("COCO2017:half", "unknown data set 'COCO2017:half'; did you mean 'COCO2017'"),
        ("COCO2017,", "unknown data set ''"),
        ("COCO2017:0", "a weight must be over 0"),
        ("COCO2017:nan", "a weight must be over 0"),
        ("COCO2017:-1", "a weight must be over 0"),
        ("mine.json", "add the folder of its frames: mine.json@FOLDER"),
        ("missing.json@.", "--train_dataset: missing.json: cannot be read"),
        ("OVIS,ovis:2", "a set is there twice"),
    ],
)
def test_what_is_no_set_is_refused(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError) as caught:
        TrainingSets.parse(text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_class_map_needs_sets():
    with pytest.raises(InputError, match="--class_map is for the sets of --train_dataset"):
        TrainingSets.parse(None, "map.json")


def test_weights_are_shares_and_default_to_the_key_frames():
    assert TrainingSets.parse("YTVIS2019,COCO2017").weights is None
    assert TrainingSets.parse("YTVIS2019,COCO2017:0.5,OVIS").weights == [1, 0.5, 1]


def test_one_set_is_the_config_s_as_before():
    sets = TrainingSets.parse("ovis")
    assert sets.overrides() == DATASETS["OVIS"] and not sets.labels and sets.recorded() == {}
    assert TrainingSets.parse("ovis@/data/o").overrides() == DATASETS["OVIS"] | {"dataset.root": "/data/o"}
    assert TrainingSets.parse(None).overrides() == {}


# ---------------------------------------------------------------------------------------------------- classes


def test_classes_are_joined_by_name_in_the_order_of_the_sets():
    names, labels = join_classes({"a": ["Tennis Racket", "cat"], "b": ["dog", "tennis_racket"], "c": ["Dog"]}, {})
    assert names == ("Tennis Racket", "cat", "dog")
    assert labels == ((1, 2), (3, 1), (3,))


def test_published_sets_join():
    sets = TrainingSets.parse("YTVIS2019,COCO2017")
    own = DATASETS["YTVIS2019"]["dataset.class_names"]
    assert sets.class_names[:40] == own and len(set(sets.class_names)) == len(sets.class_names) == 102
    assert sets.class_names[sets.labels[1][0] - 1] == "person" and sets.labels[0] == tuple(range(1, 41))
    assert sets.overrides() == DATASETS["YTVIS2019"] | {"dataset.class_names": sets.class_names}


def test_the_map_of_the_documentation_keeps_the_classes_of_youtube_vis(tmp_path, reference):
    page = (reference.parent.parent.parent / "docs" / "train.md").read_text("utf-8")
    (tmp_path / "classes.json").write_text(re.search(r'^{"COCO2017": .*}$', page, re.MULTILINE).group())
    sets = TrainingSets.parse("YTVIS2019,COCO2017:0.5", class_map=tmp_path / "classes.json")
    names, coco = DATASETS["YTVIS2019"]["dataset.class_names"], DATASETS["COCO2017"]["dataset.class_names"]
    assert sets.class_names == names
    kept = {name: names[label - 1] for name, label in zip(coco, sets.labels[1], strict=True) if label}
    assert kept["car"] == "sedan" and kept["person"] == "person" and "mouse" not in kept and len(kept) == 19


def test_a_map_renames_joins_and_leaves_out():
    classes = {"a": ["sedan", "mouse"], "b": ["car", "truck", "mouse", "cup"]}
    maps = {"b": {"car": "sedan", "truck": "sedan", "mouse": ""}}
    assert join_classes(classes, maps) == (("sedan", "mouse", "cup"), ((1, 2), (1, 1, 0, 3)))
    assert join_classes(classes, {"b": {"*": ""}}) == (("sedan", "mouse"), ((1, 2), (0, 0, 2, 0)))
    assert join_classes(classes, {"b": {"cup": "cup", "*": ""}}) == (("sedan", "mouse", "cup"), ((1, 2), (0, 0, 2, 3)))
    assert join_classes({"a": ["x", "y"]}, {"a": {"y": "y", "*": ""}}) == (("y",), ((0, 1),))


def test_given_classes_are_all_there_are():
    classes = {"a": ["x", "y"], "b": ["y", "z"]}
    assert join_classes(classes, {"b": {"*": ""}}, ("y", "x")) == (("y", "x"), ((2, 1), (1, 0)))
    with pytest.raises(InputError, match="--train_dataset b: dataset.class_names lacks 'z'; leave it out"):
        join_classes(classes, {}, ("y", "x"))
    with pytest.raises(InputError, match="--train_dataset b: --class_map leaves no class of it"):
        join_classes(classes, {"b": {"y": "", "*": ""}})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "is not a class map"),
        ({"a": ["x"]}, "is not a class map"),
        ({"c": {}}, "'c' is none of the sets of --train_dataset; did you mean"),
        ({"T.json": {}}, "'T.json' is several sets of --train_dataset: ['1/t.json', '2/t.json']"),
        ({"a": {"z": "x"}}, "a has no class 'z'; did you mean"),
        ({"a": {"x": 1}}, "'x' is 1; it takes a class name"),
        ({"a": {"*": "x"}}, "'*' is 'x'; it takes a class name"),
    ],
)
def test_maps_that_cannot_be_used_are_refused(content, words, tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_class_maps(path, {"a": ["x", "y"], "b": ["z"], "1/t.json": ["z"], "2/t.json": ["z"]})
    assert str(caught.value).startswith(f"{path}: ") and words in str(caught.value)


def test_a_map_names_a_file_by_its_name(tmp_path):
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"Train.json": {"Y-1": "z "}}))
    assert read_class_maps(path, {"some/train.json": ["x", "y 1"]}) == {"some/train.json": {"y_1": "z"}}


# ---------------------------------------------------------------------------------------------------- samples


def loaded(text, **choices):
    sets = TrainingSets.parse(text, **choices)
    config = get_config("STMask_demo_config", {**sets.overrides(), "input.size_hw": HW, "train.flip_probability": 0})
    return sets, config, [ClipDataset.from_config(config, dataset) for dataset in sets.load(config)]


def test_videos_and_images_are_mixed_and_what_a_set_does_not_label_is_unknown_there(tmp_path):
    texts = draw(tmp_path / "a", ["cat", "dog"]), draw(tmp_path / "b", ["cow", "Dog"], static=True)
    _, config, parts = loaded(",".join(texts))
    assert config.dataset.class_names == ("cat", "dog", "cow")
    assert [part.dataset.is_static for part in parts] == [False, True]
    assert [part.dataset.category_ids for part in parts] == [(3, 6, None), (None, 6, 3)]
    samples = join(parts)
    video, image = (samples[SampleKey(index, 0)] for index in (0, 2))
    assert video.targets[0].labels.tolist() == [1, 2] and image.targets[0].labels.tolist() == [3, 2]
    assert video.known.tolist() == [True, True, True, False] and image.known.tolist() == [True, False, True, True]


def test_a_class_that_is_left_out_is_no_target_and_unknown_if_another_set_has_it(tmp_path):
    texts = draw(tmp_path / "a", ["cat", "mouse"]), draw(tmp_path / "b", ["mouse", "cat", "cup"])
    path = tmp_path / "map.json"
    path.write_text(json.dumps({f"{tmp_path}/b/train.json": {"mouse": "", "*": ""}}))
    _, config, parts = loaded(",".join(texts), class_map=path)
    assert config.dataset.class_names == ("cat", "mouse")
    clip = join(parts)[SampleKey(2, 0)]
    assert clip.targets[0].labels.tolist() == [1] and clip.known.tolist() == [True, True, False]


def test_sets_of_the_same_classes_know_them_all_and_a_class_of_no_set_is_background(tmp_path):
    texts = draw(tmp_path / "a", ["cat", "dog"]), draw(tmp_path / "b", ["dog", "cat"])
    for names in (None, ("cat", "dog", "cow")):
        _, config, parts = loaded(",".join(texts), class_names=names)
        assert config.dataset.class_names == (names or ("cat", "dog"))
        samples = join(parts)
        assert samples.known is None and samples[SampleKey(2, 0)].targets[0].labels.tolist() == [2, 1]


def test_one_set_is_its_own_samples(tmp_path):
    _, config, parts = loaded(draw(tmp_path / "a", ["cat", "dog"]))
    assert config.dataset.class_names == ("cat", "dog") and config.dataset.name == "train"
    assert join(parts) is parts[0] and parts[0][SampleKey(0, 0)].known is None


def test_a_set_that_is_not_there_says_how_to_name_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = draw(tmp_path / "a", ["cat", "dog"])
    with pytest.raises(InputError, match=r"data set OVIS, .* name its folder: --train_dataset …,OVIS@FOLDER"):
        loaded(f"{text},OVIS")


def test_a_record_has_the_sets_without_places_outside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = draw(tmp_path / "a", ["cat"]), draw(tmp_path / "b", ["dog"])
    inside = TrainingSets.parse(f"{texts[0]}:2,{texts[1]}").recorded()
    assert inside == {"train_dataset": "a/train.json@a:2,b/train.json@b"}
    monkeypatch.chdir(tmp_path / "a")
    outside = TrainingSets.parse(",".join(texts)).recorded()
    assert outside == {"train_dataset": "train.json@.,train.json@b"}


def test_scores_are_refused_where_classes_of_the_first_set_are_missing(tmp_path):
    path, text = tmp_path / "map.json", ",".join(draw(tmp_path / name, ["cat", "dog"]) for name in "ab")
    for number, entries in enumerate(({"dog": ""}, {"dog": "cat"}, {"dog": "hound"})):
        path.write_text(json.dumps({f"{tmp_path}/a/train.json": entries}))
        sets = TrainingSets.parse(text, class_map=path)
        if number == 2:
            sets.check_scores()
            continue
        with pytest.raises(InputError, match="--validation_epoch: --class_map joins or leaves out classes"):
            sets.check_scores()
