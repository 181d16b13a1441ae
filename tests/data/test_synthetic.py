import hashlib
import json
import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle_tools

from data import synthetic
from data.config import get_config
from data.synthetic import CATEGORY_NAMES, MAX_HIDDEN_FRAMES, MIN_VISIBLE_PIXELS, draw_video, generate
from ytvis.files import InputError


@pytest.fixture(scope="module")
def videos():
    """Eight videos, as many as there are categories."""
    return [draw_video(0, "valid", index) for index in range(len(CATEGORY_NAMES))]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A small set: two training videos and one to validate on."""
    return generate(tmp_path_factory.mktemp("sets") / "ShapesVIS", train_videos=2, valid_videos=1, seed=3, workers=1)


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def square(number, length=1, hw=(6, 6), top=0, left=0, side=4):
    """[1,T,h,w] silhouettes of a square that stands still."""
    result = np.zeros((1, length, *hw), bool)
    result[:, :, top : top + side, left : left + side] = True
    return np.repeat(result, number, axis=0)


# ---------------------------------------------------------------------------------------------------- drawing


@pytest.mark.parametrize(
    ("index", "shape", "category_ids", "pinned"),
    [  # fast and grainy; blurred, with five objects
        (1, (13, 180, 320, 3), (2, 5, 2), "cc010ab1a8530a4fe36df684170e77a5af03736bf0532d9f647faeff94c1163a"),
        (3, (13, 320, 240, 3), (4, 4, 4, 3, 8), "0ec2516e399951d173d7814decd26cc0b0ca5e775e8f53daca4a3086b1f7fe17"),
    ],
)
def test_pixels_and_masks_are_the_pinned_ones(index, shape, category_ids, pinned):
    """Fails if a library or a machine draws differently. Then raise GENERATOR_VERSION and pin again, if wanted."""
    video = draw_video(0, "train", index)
    digest = hashlib.sha256(video.frames.tobytes() + np.packbits(video.masks).tobytes()).hexdigest()
    assert (video.frames.shape, video.category_ids) == (shape, category_ids)
    assert (synthetic.GENERATOR_VERSION, digest) == (1, pinned)


def test_a_style_changes_the_pixels_of_the_same_scenes(videos, tmp_path, monkeypatch):
    pencil = draw_video(0, "valid", 2, "pencil")
    assert np.array_equal(pencil.masks, videos[2].masks) and pencil.category_ids == videos[2].category_ids
    ground = ~videos[2].masks.any(axis=0)
    # Paper is bright, whatever the scene; ShapesVIS' grounds are not.
    assert np.median(pencil.frames[ground]) > 220 > np.median(videos[2].frames[ground])
    root = generate(tmp_path / "set", train_videos=1, valid_videos=0, workers=1, style="pencil")
    drawn = files_of(root)
    monkeypatch.setattr(synthetic, "draw_video", refuse_to_draw)
    assert files_of(generate(root, train_videos=1, valid_videos=0, workers=1, style="pencil")) == drawn
    with pytest.raises(AssertionError, match="although"):
        generate(root, train_videos=1, valid_videos=0, workers=1)
    with pytest.raises(InputError, match="unknown ShapesVIS style 'ink': take one of paper, pencil"):
        draw_video(0, "valid", 0, "ink")


def test_the_seed_the_split_and_the_index_decide_the_video(videos):
    again = draw_video(0, "valid", 0)
    assert np.array_equal(again.frames, videos[0].frames)
    assert np.array_equal(again.masks, videos[0].masks)
    assert again.category_ids == videos[0].category_ids
    for other in (draw_video(1, "valid", 0), draw_video(0, "train", 0), videos[1]):
        assert other.frames.shape != again.frames.shape or not np.array_equal(other.frames, again.frames)


def test_a_video_has_the_promised_form(videos):
    for video in videos:
        length, height, width = video.frames.shape[:3]
        assert video.frames.dtype == np.uint8 and video.masks.dtype == bool
        assert 12 <= length <= 24
        assert (height, width) in synthetic._FRAME_SIZES_HW
        assert 1 <= len(video.category_ids) <= 6
        assert video.masks.shape == (len(video.category_ids), length, height, width)
        assert all(1 <= category_id <= 8 for category_id in video.category_ids)


def test_masks_are_disjoint_and_every_object_is_seen(videos):
    for video in videos:
        assert video.masks.sum(axis=0).max() == 1
        areas = video.masks.sum(axis=(2, 3))
        assert ((areas == 0) | (areas >= MIN_VISIBLE_PIXELS)).all()
        assert ((areas > 0).sum(axis=1) >= 6).all()


def test_no_object_is_missing_for_longer_than_promised_between_two_appearances(videos):
    hidden = []
    for video in videos:
        for areas in video.masks.sum(axis=(2, 3)):
            frames = np.flatnonzero(areas)
            hidden.extend(np.diff(frames) - 1)
    assert max(hidden) <= MAX_HIDDEN_FRAMES
    assert max(hidden) > 0, "none of the videos hides an object at all"


def test_with_an_absence_objects_vanish_for_so_long_and_come_back(tmp_path, monkeypatch):
    gone, absent = [], draw_video(0, "valid", 2, absence=5)
    for areas in absent.masks.sum(axis=(2, 3)):
        frames = np.flatnonzero(areas)
        gone.append(max(np.diff(frames) - 1))
        assert len(frames) >= 6
    assert 5 <= max(gone) <= 10 + MAX_HIDDEN_FRAMES and 12 + 15 <= len(absent.frames) <= 24 + 15
    n = int(np.argmax(gone))
    seen = np.flatnonzero(absent.masks[n].any(axis=(1, 2)))
    last = seen[np.argmax(np.diff(seen))]  # before it vanishes
    place = absent.masks[n, last] & ~absent.masks[:, last + 1].any(axis=0)
    before, after = (absent.frames[t][place].astype(int) for t in (last, last + 1))
    assert np.abs(before - after).mean() > 20  # its pixels go with its mask
    root = generate(tmp_path / "set", train_videos=1, valid_videos=0, workers=1, absence=5)
    drawn = files_of(root)
    monkeypatch.setattr(synthetic, "draw_video", refuse_to_draw)
    assert files_of(generate(root, train_videos=1, valid_videos=0, workers=1, absence=5)) == drawn
    with pytest.raises(AssertionError, match="although"):
        generate(root, train_videos=1, valid_videos=0, workers=1)


def test_absences_are_as_long_as_promised_and_leave_time_to_be_seen():
    rng = np.random.Generator(np.random.PCG64(0))
    absences = [synthetic._plan_absence(rng, 27, 5) for _ in range(300)]
    lengths = {len(absence) for absence in absences}
    assert lengths == {0, *range(5, 11)} and 80 < sum(not absence for absence in absences) < 120
    assert all(absence.start >= 6 and absence.stop <= 27 - 6 for absence in absences if absence)
    assert synthetic._plan_absence(None, 27, 0) == range(0)  # draws no number, so that sets stay as they were


def test_scenes_in_which_an_object_does_not_come_back_are_refused():
    silhouettes = square(1, length=30, hw=(20, 20), side=12)
    for first, fits in ((8, True), (18, False), (0, False)):
        masks = silhouettes.copy()
        masks[0, first : first + 12] = False
        assert synthetic._acceptable(masks, masks, [range(first, first + 12)]) is fits
        assert synthetic._acceptable(masks, masks) is not fits  # without a plan, only an absence in between is refused


def test_masks_lie_on_the_painted_objects(videos):
    """Colours change more across the masks' outlines than elsewhere."""
    video = next(video for video in videos if len(video.category_ids) > 1)
    across, elsewhere = [], []
    for frame, masks in zip(video.frames.astype(int), video.masks.swapaxes(0, 1), strict=True):
        covered = masks.any(axis=0).astype(np.uint8)
        edge = np.abs(np.diff(frame, axis=1)).sum(axis=2)
        outline = np.diff(covered, axis=1) != 0
        across.extend(edge[outline])
        elsewhere.extend(edge[~outline])
    assert np.mean(across) > 3 * np.mean(elsewhere)


def test_every_category_occurs_and_names_a_shape(videos):
    assert get_config("STMask_demo_config").dataset.class_names == CATEGORY_NAMES
    assert tuple(synthetic._SHAPES) == CATEGORY_NAMES
    assert {category_id for video in videos for category_id in video.category_ids} == set(range(1, 9))


def test_bars_are_long_and_boxes_lie_and_stand():
    """Stretch of every category over many plans, without painting."""
    stretches, turned = {}, []
    for index in range(48):
        rng = np.random.Generator(np.random.PCG64([0, 0, index]))
        scene = synthetic._Scene((180, 320), 12, synthetic._plan_camera(rng, (180, 320), 12), ())
        item = synthetic._plan_object(rng, index % 8 + 1, scene, 1)
        stretches.setdefault(CATEGORY_NAMES[index % 8], []).append(item.half_size[0] / item.half_size[1])
        if CATEGORY_NAMES[index % 8] == "bar":
            turned.append(abs(math.cos(2 * math.pi * item.motion.pose.angle / 65536)))
    assert max(stretches["bar"]) > 5 and min(stretches["bar"]) >= 3
    assert max(max(values) for name, values in stretches.items() if name != "bar") < 2
    assert min(stretches["triangle"]) < 0.9
    assert min(turned) < 0.3 and max(turned) > 0.95


def test_colour_does_not_tell_the_category(videos):
    """Objects of one category, from different videos, differ in mean colour as others do."""
    colours = {}
    for video in videos:
        seen = {}
        for masks, category_id in zip(video.masks, video.category_ids, strict=True):
            seen[category_id] = video.frames[masks].mean(axis=0)
        for category_id, colour in seen.items():
            colours.setdefault(category_id, []).append(colour)
    spreads = [np.ptp(np.stack(found), axis=0).max() for found in colours.values() if len(found) > 1]
    assert len(spreads) >= 4
    assert np.median(spreads) > 60


def test_a_shape_is_negative_inside_and_measures_pixels():
    x, y = np.array([[0.0, 9.0, 10.0, 11.0, 30.0]]), np.zeros((1, 1))
    assert np.allclose(synthetic._ellipse(x[:, 1:4], y, 10, 10), [[-1, 0, 1]], atol=0.1)
    assert np.allclose(synthetic._rectangle(x, y, 10, 5), [[-5, -1, 0, 1, 20]])
    assert synthetic._ring(x, y, 10, 10)[0, 0] > 0 > synthetic._ring(np.array([[8.0]]), y, 10, 10)[0, 0]
    assert synthetic._cross(np.array([[8.0]]), np.array([[0.0]]), 10, 10) < 0
    assert synthetic._cross(np.array([[8.0]]), np.array([[8.0]]), 10, 10) > 0
    assert synthetic._crescent(np.array([[-8.0]]), y, 10, 10) < 0 < synthetic._crescent(np.array([[5.0]]), y, 10, 10)
    assert synthetic._triangle(np.array([[7.0]]), np.array([[9.0]]), 10, 10) < 0
    assert synthetic._triangle(np.array([[7.0]]), np.array([[-9.0]]), 10, 10) > 0
    # The star's first point is at the top, and there is ground between two points.
    ring = [(9 * c, 9 * s) for c, s in (synthetic._direction(round(k * 65536 / 360)) for k in range(360))]
    inside = [synthetic._star(np.array([[px]]), np.array([[py]]), 10, 10)[0, 0] < 0 for px, py in ring]
    assert sum(a and not b for a, b in zip(inside, inside[1:] + inside[:1], strict=True)) == 5


def test_sines_do_not_hang_on_the_last_bit_of_a_libm():
    """No multiple of 2^-20 lies near the middle between two: an error of many ulps rounds the same way."""
    scaled = np.cos(2 * np.pi * np.arange(65536) / 65536) * 2**20
    assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-7


# ---------------------------------------------------------------------------------------------------- hiding


def test_upper_objects_cut_lower_ones():
    lower, upper = square(1), square(1, left=2, top=2)
    masks = synthetic._visible(np.concatenate([lower, upper]))
    assert masks[1].sum() == 16
    assert masks[0].sum() == 16 - 4
    assert not (masks[0] & masks[1]).any()


def test_slivers_count_as_hidden():
    lower, upper = square(1), square(1, left=1)
    masks = synthetic._visible(np.concatenate([lower, upper]))
    assert MIN_VISIBLE_PIXELS > 4
    assert masks[0].sum() == 0 and masks[1].sum() == 16


def test_longest_run_counts_neighbours():
    assert synthetic._longest_run(np.array([], bool)) == 0
    assert synthetic._longest_run(np.array([False, False])) == 0
    assert synthetic._longest_run(np.array([True, False, True, True, False, True])) == 2


@pytest.mark.parametrize(("hidden", "fits"), [(0, True), (8, True), (9, False)])
@pytest.mark.parametrize("at_the_end", [False, True])
def test_scenes_that_hide_an_object_for_too_long_are_refused(hidden, fits, at_the_end):
    silhouettes = square(1, length=24, hw=(20, 20), side=12)
    masks = silhouettes.copy()
    first = 24 - hidden if at_the_end else 8
    masks[0, first : first + hidden] = False
    assert synthetic._acceptable(silhouettes, masks) is fits
    # Out of view at the end means leaving, not hiding; out of view between two appearances is an ordinary gap.
    silhouettes[0, first : first + hidden] = False
    assert synthetic._acceptable(silhouettes, masks) is (fits or at_the_end)


def test_scenes_with_a_hardly_seen_object_are_refused():
    silhouettes = square(1, length=12, hw=(20, 20), side=12)
    for seen in (0, 5):
        masks = silhouettes.copy()
        masks[0, seen:] = False
        assert not synthetic._acceptable(masks, masks)
    small = square(1, length=12, hw=(20, 20), side=9)
    assert not synthetic._acceptable(small, small)
    assert synthetic._acceptable(silhouettes, silhouettes)
    assert synthetic._acceptable(silhouettes[:0], silhouettes[:0])


def test_an_object_out_of_view_has_no_pixels():
    camera = synthetic._Motion(0, synthetic._Pose(0, 0, 0, 1.0), synthetic._Pose(0, 0, 0, 0), (0, 0), 0)
    scene = synthetic._Scene((20, 20), 3, camera, ())
    still = synthetic._Object(3, (5, 5), camera)
    assert (scene.silhouette(still).sum(axis=(1, 2)) == 100).all()
    walks = replace(camera, rate=synthetic._Pose(15, 0, 0, 0))
    assert scene.silhouette(replace(still, motion=walks)).sum(axis=(1, 2)).tolist() == [100, 0, 0]
    assert scene.silhouette(replace(still, motion=replace(walks, rate=synthetic._Pose(8, 0, 0, 0)))).sum() == 100 + 70


# ---------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("split", ["train", "valid"])
def test_annotations_agree_with_the_drawn_masks(root, split):
    document = json.loads((root / "annotations" / f"{split}.json").read_text())
    assert [c["name"] for c in document["categories"]] == list(CATEGORY_NAMES)
    assert [c["id"] for c in document["categories"]] == list(range(1, 9))
    assert [a["id"] for a in document["annotations"]] == list(range(1, len(document["annotations"]) + 1))
    for index, entry in enumerate(document["videos"]):
        video = draw_video(3, split, index)
        length, height, width = video.frames.shape[:3]
        assert entry["id"] == index + 1
        assert (entry["length"], entry["height"], entry["width"]) == (length, height, width)
        for file_name, frame in zip(entry["file_names"], video.frames, strict=True):
            assert np.array_equal(cv2.imread(str(root / split / "JPEGImages" / file_name))[..., ::-1], frame)
        found = [a for a in document["annotations"] if a["video_id"] == entry["id"]]
        assert [a["category_id"] for a in found] == list(video.category_ids)
        for annotation, masks in zip(found, video.masks, strict=True):
            assert (annotation["iscrowd"], annotation["length"]) == (0, length)
            assert (annotation["height"], annotation["width"]) == (height, width)
            rows = zip(annotation["segmentations"], annotation["bboxes"], annotation["areas"], masks, strict=True)
            for rle, box, area, mask in rows:
                check_frame(rle, box, area, mask)


def check_frame(rle, box, area, mask):
    if not mask.any():
        assert rle is None and box is None and area is None
        return
    assert np.array_equal(rle_tools.decode(rle).astype(bool), mask)
    down, across = np.nonzero(mask)
    left, top = int(across.min()), int(down.min())
    assert box == [left, top, int(across.max()) + 1 - left, int(down.max()) + 1 - top]
    assert area == int(mask.sum())


def test_frames_without_the_object_are_null():
    masks = np.zeros((3, 5, 7), bool)
    masks[1, 1:3, 2:6] = True
    encoded = synthetic._encode(masks)
    assert [rle is None for rle in encoded["segmentations"]] == [True, False, True]
    assert encoded["bboxes"] == [None, [2, 1, 4, 2], None]
    assert encoded["areas"] == [None, 8, None]
    assert encoded["segmentations"][1]["size"] == [5, 7]


def test_the_config_finds_the_set(root):
    dataset = get_config("STMask_demo_config").dataset
    for split, config in (("train", dataset.train), ("valid", dataset.valid)):
        assert (root / config.ann_file[0]).is_file()
        document = json.loads((root / config.ann_file[0]).read_text())
        assert all((root / config.image_root[0] / video["file_names"][-1]).is_file() for video in document["videos"])
        assert document["videos"][0]["file_names"][0] == f"{split}_00000/00000.png"


def test_neither_counts_nor_processes_change_a_video(root, tmp_path):
    more = generate(tmp_path / "set", train_videos=3, valid_videos=1, seed=3, workers=2)
    small, large = files_of(root), files_of(more)
    assert all(large[name] == content for name, content in small.items() if name.endswith(".png"))
    assert small["annotations/valid.json"] == large["annotations/valid.json"]
    few, many = (json.loads(files["annotations/train.json"]) for files in (small, large))
    assert len(few["videos"]) == 2 and many["videos"][:2] == few["videos"]
    assert many["annotations"][: len(few["annotations"])] == few["annotations"]


def test_a_second_call_draws_nothing(root, monkeypatch):
    monkeypatch.setattr(synthetic, "draw_video", refuse_to_draw)
    before = files_of(root)
    assert generate(root, train_videos=2, valid_videos=1, seed=3, workers=1) == root
    assert files_of(root) == before


def refuse_to_draw(*_, **__):
    raise AssertionError("drawn although it was there")


def test_other_numbers_or_another_generator_draw_anew(tmp_path, monkeypatch):
    root = tmp_path / "set"
    generate(root, train_videos=1, valid_videos=0, seed=0, workers=1)
    first = files_of(root)
    generate(root, train_videos=0, valid_videos=0, seed=0, workers=1)
    assert json.loads(files_of(root)["annotations/train.json"])["videos"] == []
    assert not any(name.endswith(".png") for name in files_of(root))
    generate(root, train_videos=1, valid_videos=0, seed=0, workers=1)
    assert files_of(root) == first
    monkeypatch.setattr(synthetic, "GENERATOR_VERSION", -1)
    monkeypatch.setattr(synthetic, "draw_video", refuse_to_draw)
    with pytest.raises(AssertionError, match="although"):
        generate(root, train_videos=1, valid_videos=0, seed=0, workers=1)
    assert files_of(root) == first
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch, interruption):
    def draw_one(seed, split, index, **how):
        if index == 1:
            raise interruption
        return draw_video(seed, split, index, **how)

    monkeypatch.setattr(synthetic, "draw_video", draw_one)
    with pytest.raises(interruption):
        generate(tmp_path / "set", train_videos=2, valid_videos=0, workers=1)
    assert list(tmp_path.iterdir()) == []


def test_what_a_person_keeps_in_a_folder_is_never_touched(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(InputError, match=r"cat\.jpg"):
        generate(tmp_path / "photos", train_videos=0, valid_videos=0)
    set_root = generate(tmp_path / "set", train_videos=0, valid_videos=0)
    (set_root / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        generate(set_root, train_videos=0, valid_videos=0, seed=1)
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "train").mkdir()
    with pytest.raises(InputError, match="shapesvis"):
        generate(tmp_path / "real", train_videos=0, valid_videos=0)
    with pytest.raises(InputError, match="something other"):
        generate(tmp_path / "photos" / "cat.jpg", train_videos=0, valid_videos=0)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"
    (tmp_path / "empty").mkdir()
    assert (generate(tmp_path / "empty", train_videos=0, valid_videos=0) / "annotations" / "valid.json").is_file()


@pytest.mark.parametrize(
    "number", ["train_videos=-1", "valid_videos=-2", "seed=-1", "workers=0", "absence=-1", "absence=5000"]
)
def test_numbers_out_of_range_are_named(tmp_path, number):
    name, value = number.split("=")
    with pytest.raises(InputError, match=name):
        generate(tmp_path / "set", **{"train_videos": 0, "valid_videos": 0, name: int(value)})
    assert list(tmp_path.iterdir()) == []


def test_draw_video_names_what_is_wrong():
    with pytest.raises(InputError, match="'test'"):
        draw_video(0, "test", 0)
    with pytest.raises(InputError, match="-1"):
        draw_video(0, "train", -1)


def test_the_command_line_prints_paths_and_counts(tmp_path, capsys):
    command = ["--root", str(tmp_path / "set"), "--train_videos", "1", "--valid_videos", "0", "--workers", "1"]
    assert synthetic.main(command) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(str(tmp_path / "set" / "annotations" / "train.json") + ": 1 videos, ")
    assert second.endswith("valid.json: 0 videos, 0 frames, 0 objects")


def test_the_command_line_ends_with_2_and_one_line(tmp_path, capsys):
    assert synthetic.main(["--root", str(tmp_path / "set"), "--seed", "-4"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1 and "seed" in captured.err
