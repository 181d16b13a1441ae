import json
import logging
from array import array

import cv2
import numpy as np
import pytest
import torch

from data.clips import ClipDataset, ClipSampler, SampleKey, make_clip_loader
from data.config import dataset_overrides, get_config
from data.dataset import YTVISDataset, read_frames
from data.transforms import FrameTransform
from layers.losses import MultiBoxLoss
from stmask import STMask
from ytvis.annotations import as_content, is_static, read_content
from ytvis.files import InputError
from ytvis.score.ap import evaluate_results

HW = (48, 64)
CROWD = {"size": list(HW), "counts": [0, 48 * 64]}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rectangle(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


def annotation(annotation_id, image_id, left=20, top=16, right=44, bottom=32, **changes):
    """A rectangle of 24×16 pixels in the middle; `changes` replace or, for `...`, remove entries."""
    entry = {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 18,
        "segmentation": rectangle(left, top, right, bottom),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
        "iscrowd": 0,
    }
    return {key: value for key, value in {**entry, **changes}.items() if value is not ...}


def content(annotations=(), image_ids=(9, 25)):
    return {
        "info": {"year": 2017},
        "images": [{"id": i, "width": HW[1], "height": HW[0], "file_name": f"{i:012}.jpg"} for i in image_ids],
        "categories": [
            {"supercategory": "animal", "id": 18, "name": "dog"},
            {"supercategory": "outdoor", "id": 10, "name": "traffic light"},
        ],
        "annotations": list(annotations),
    }


def place(root, changed):
    """The config of a COCO tree under `root`: a grey image with a bright rectangle for each entry of `images`."""
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").mkdir()
    for image in changed["images"]:
        picture = np.full((*HW, 3), 90, np.uint8)
        picture[16:32, 20:44] = 220
        cv2.imwrite(str(root / "train2017" / image["file_name"]), picture)
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(changed))
    keys = {
        "dataset.root": root,
        "input.size_hw": (96, 128),
        "train.static_rotation": 5,
        "train.static_translation": 0.05,
    }
    return get_config("STMask_demo_config", dataset_overrides("coco2017") | keys)


def load(root, changed):
    return YTVISDataset.from_config(place(root, changed), "train")


def clips_of(root, changed):
    config = place(root, changed)
    return ClipDataset.from_config(config, YTVISDataset.from_config(config, "train"))


# ---------------------------------------------------------------------------------------------------- the file


def test_images_are_videos_of_one_frame(tmp_path):
    dataset = load(tmp_path, content([annotation(1, 25), annotation(900100000018, 25, iscrowd=1, segmentation=CROWD)]))
    assert dataset.is_static
    assert [(video.video_id, video.file_names) for video in dataset.videos] == [
        (9, ("000000000009.jpg",)),
        (25, ("000000000025.jpg",)),
    ]
    assert dataset.labels == {18: 17, 10: 10}  # of the 80, by name
    assert [track.iscrowd for track in dataset.annotations(25)] == [False, True] and dataset.annotations(9) == ()
    truth = dataset.frame_annotations(25, 0)
    assert truth.boxes_px.tolist() == [[20, 16, 43, 31]]
    assert truth.labels.tolist() == [17] and truth.instance_ids.tolist() == [1]
    assert truth.masks.sum() == 24 * 16 and truth.masks[0, 16:32, 20:44].all()
    assert [dataset.annotated_frames(image_id) for image_id in (9, 25)] == [(), (0,)]


def test_every_kind_of_segmentation_is_taken(tmp_path):
    runs = {"size": list(HW), "counts": [48 * 20, 48 * 24, 48 * 20]}
    two_parts = rectangle(0, 0, 8, 8) + rectangle(40, 40, 48, 48)
    kinds = [
        annotation(1, 9, segmentation=two_parts, bbox=[0, 0, 48, 48]),
        annotation(2, 9, segmentation=runs, bbox=..., area=...),
        annotation(3, 9, segmentation=...),
        annotation(4, 9, segmentation=[]),
        annotation(5, 9, area=0),
    ]
    truth = load(tmp_path, content(kinds)).frame_annotations(9, 0)
    assert truth.instance_ids.tolist() == [1, 2]
    assert truth.masks.sum(dim=(1, 2)).tolist() == [128, 48 * 24]
    assert truth.boxes_px.tolist() == [[0, 0, 47, 47], [20, 0, 43, 47]]


def test_polygons_are_kept_as_arrays_and_what_is_none_is_told_when_it_is_used(tmp_path, caplog):
    broken = annotation(2, 9, segmentation=[[1, 2, 3, 4, 5, "6"]])
    flat = annotation(3, 9, segmentation=[1, 2, 3, 4, 5, 6])
    dataset = load(tmp_path, content([annotation(1, 9), broken, flat]))
    assert dataset.annotations(9)[0].segmentations == ([array("d", rectangle(20, 16, 44, 32)[0])],)
    with pytest.raises(InputError, match="annotation 2, frame 0: .*a polygon must hold only numbers"):
        dataset.frame_annotations(9, 0)
    with caplog.at_level(logging.WARNING):
        assert dataset.frame_annotations(9, 0, skip_unusable=True).instance_ids.tolist() == [1]
    assert "annotation 3, frame 0" in caplog.text


def test_a_file_with_videos_is_no_set_of_images():
    assert is_static(as_content({"images": []}, "a.json"))
    assert not is_static(as_content({"images": [], "videos": []}, "a.json")) and not is_static({})
    videos = {"videos": [{"id": 3}], "annotations": [{"id": 1, "video_id": 3}]}
    assert as_content(videos, "a.json") is videos


def test_test_images_without_annotations_can_be_read(tmp_path):
    changed = content()
    del changed["annotations"]
    dataset = load(tmp_path, changed)
    frames = list(read_frames(dataset, FrameTransform((48, 64), (0, 0, 0), (1, 1, 1), 32), num_workers=0))
    assert [(frame.meta.video_id, frame.is_last, frame.error) for frame in frames] == [
        (9, True, None),
        (25, True, None),
    ]


@pytest.mark.parametrize(
    ("section", "entry", "message"),
    [
        ("images", 5, "image number 3: an entry is not a JSON object: 5"),
        ("images", {"id": 3, "width": 4, "height": 4}, "image 3: image without 'file_name', text"),
        ("images", {"id": 9, "width": 4, "height": 4, "file_name": "a"}, "image 9: a video id is used twice"),
        ("annotations", 5, "annotation number 2: an entry is not a JSON object"),
        ("annotations", {"id": 2, "category_id": 18}, "annotation 2: annotation without 'image_id', an integer"),
        ("annotations", annotation(2, 99), "annotation 2: .* video that is not in the file: 99"),
        ("annotations", annotation(2, 9, category_id=3), "annotation 2: .* category that is not in the file: 3"),
        (
            "annotations",
            annotation(2, 9, segmentation="abc"),
            "annotation 2, frame 0: a segmentation cannot be used: 'abc'",
        ),
        ("annotations", annotation(2, 9, bbox=[1, 2]), "annotation 2, frame 0: a box is not"),
        ("annotations", annotation(1, 25), "annotation 1: an annotation id is used twice"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path, section, entry, message):
    changed = content([annotation(1, 9)])
    changed[section].append(entry)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=message) as caught:
        YTVISDataset(path, tmp_path, ("dog", "traffic light"))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("images", [[], {}, None])
def test_a_file_without_images_is_refused(tmp_path, images):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**content(), "images": images}))
    with pytest.raises(InputError, match="a.json: 'videos' must be a list of at least one"):
        YTVISDataset(path, tmp_path, ("dog", "traffic light"))


@pytest.mark.parametrize("folder", ["train2017", "images/train2017"])
def test_both_layouts_are_found(tmp_path, folder):
    (tmp_path / "annotations").mkdir()
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content()))
    config = get_config("STMask_demo_config", dataset_overrides("COCO2017") | {"dataset.root": tmp_path})
    assert YTVISDataset.from_config(config, "train").image_root == tmp_path / folder
    with pytest.raises(InputError, match="instances_val2017.json"):
        YTVISDataset.from_config(config, "valid")


def test_images_are_scored_as_videos_are(tmp_path):
    place(tmp_path, content([annotation(1, 9), annotation(2, 25)]))
    whole = read_content(tmp_path / "annotations" / "instances_train2017.json")
    found = [{"video_id": 9, "category_id": 18, "score": 0.9, "segmentations": [rectangle(20, 16, 44, 32)]}]
    assert evaluate_results(whole, found).stats[8] == 0.5


# ---------------------------------------------------------------------------------------------------- clips


def test_a_clip_is_two_views_of_an_image_in_which_objects_keep_their_ids(tmp_path):
    second = annotation(7, 25, 2, 2, 14, 12, category_id=10)
    clips = clips_of(tmp_path, content([annotation(1, 25), second]))
    assert len(clips) == 1  # image 9 shows nothing
    for seed in range(6):
        clip = clips[SampleKey(0, seed)]
        assert clip.frames.shape == (2, 3, 96, 128) and not torch.equal(*clip.frames)
        first, other = clip.targets
        assert set(first.instance_ids.tolist()) | set(other.instance_ids.tolist()) <= {1, 7}
        for targets, image in zip(clip.targets, clip.frames, strict=True):
            row = targets.instance_ids.tolist().index(1)  # in the middle, so never out of view
            assert targets.labels[row] == 17
            assert image[0][targets.masks[row].bool()].median() > 1 > image[0][~targets.masks[row].bool()].median()
            down, across = targets.masks[row].nonzero().T
            tight = torch.stack([across.min(), down.min(), across.max(), down.max()])
            torch.testing.assert_close(
                targets.boxes[row] * torch.tensor([128, 96, 128, 96]), tight.float(), atol=2, rtol=0
            )


def test_a_clip_of_an_image_is_a_function_of_its_key(tmp_path):
    clips = clips_of(tmp_path, content([annotation(1, 25)]))
    before = torch.get_rng_state()
    first = clips[SampleKey(0, 3)]
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    again = clips[SampleKey(0, 3)]
    assert torch.equal(first.frames, again.frames)
    assert all(torch.equal(a.masks, b.masks) for a, b in zip(first.targets, again.targets, strict=True))
    assert not torch.equal(first.frames, clips[SampleKey(0, 4)].frames)


def test_without_views_every_frame_is_the_image(tmp_path):
    clips = clips_of(tmp_path, content([annotation(1, 25)]))
    clip = ClipDataset(clips.dataset, clips.transforms)[SampleKey(0, 3)]
    assert torch.equal(*clip.frames) and torch.equal(clip.targets[0].boxes, clip.targets[1].boxes)


def test_batches_are_the_same_whatever_the_workers(tmp_path):
    clips = clips_of(tmp_path, content([annotation(1, 9), annotation(2, 25)]))

    def load_all(num_workers):
        sampler = ClipSampler(len(clips), 2, seed=1, num_iterations=3)
        return list(make_clip_loader(clips, sampler, num_workers, pin_memory=False))

    for ours, theirs in zip(load_all(0), load_all(2), strict=True):
        assert torch.equal(ours.frames, theirs.frames)


def test_a_step_is_taken_on_clips_of_images_even_without_anything_to_learn(tmp_path):
    """The second image's object is half a pixel in the network's input: it is a key frame, its targets are empty."""
    speck = annotation(2, 25, segmentation=rectangle(5, 5, 5.4, 5.4), bbox=[5, 5, 1, 1], area=1)
    config = place(tmp_path, content([annotation(1, 9), speck]))
    clips = ClipDataset.from_config(config, YTVISDataset.from_config(config, "train"))
    torch.manual_seed(0)
    model = STMask.from_config(config)
    assert model.prediction_layers[0].conf_layer[0].conv.out_channels == 81
    loader = make_clip_loader(clips, ClipSampler(2, 2, seed=0, num_iterations=1), 0, pin_memory=False)
    (batch,) = loader
    assert sorted(len(targets) for clip in batch.targets for targets in clip) == [0, 0, 1, 1]
    empty = make_clip_loader(clips, ClipSampler(2, 1, seed=0, num_iterations=2), 0, pin_memory=False)
    for one in (batch, *empty):
        losses = MultiBoxLoss.from_config(config)(model, model(one.frames), one.targets)
        total = sum(losses.values())
        assert torch.isfinite(total)
        total.backward()
