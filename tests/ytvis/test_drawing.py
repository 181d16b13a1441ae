import itertools
from dataclasses import replace
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
from matplotlib import font_manager

from utils.structures import FrameObjects
from ytvis import drawing
from ytvis.drawing import (
    FrameRate,
    Overlay,
    PixelObjects,
    Trails,
    draw_caption,
    draw_objects,
    track_colour,
    truth_beside_prediction,
)

CLASS_NAMES = ("circle", "giant_panda")


def make_objects(size_hw, boxes_px, track_ids=None, label=1):
    """Objects whose masks fill their boxes."""
    masks = np.zeros((len(boxes_px), *size_hw), bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes_px, strict=True):
        mask[max(0, y1) : max(0, y2), max(0, x1) : max(0, x2)] = True
    count = len(boxes_px)
    return PixelObjects(
        boxes_px=np.array(boxes_px, np.int64).reshape(-1, 4),
        labels=np.full(count, label),
        track_ids=np.array(range(count) if track_ids is None else track_ids, np.int64),
        masks=masks,
        scores=np.full(count, 0.87, np.float32),
    )


def grey(height, width):
    return np.full((height, width, 3), 100, np.uint8)


def changed(before, after):
    """[h,w] bool: where two pictures differ."""
    return (before != after).any(axis=2)


def test_first_twenty_colours_are_far_apart():
    colours = [track_colour(track_id) for track_id in range(20)]
    lab = cv2.cvtColor(np.float32([colours]) / 255, cv2.COLOR_RGB2Lab)[0]
    distances = [np.linalg.norm(a - b) for a, b in itertools.combinations(lab, 2)]
    assert min(distances) > 18  # 2.3 is just noticeable
    assert min(np.linalg.norm(lab[i] - lab[i + 1]) for i in range(19)) > 60


def test_colour_of_a_large_id_is_a_colour():
    assert all(0 <= value <= 255 for track_id in (999, 10**6) for value in track_colour(track_id))


def test_no_objects_give_an_equal_copy():
    frame = grey(180, 320)
    picture = draw_objects(frame, make_objects((180, 320), []), CLASS_NAMES)
    assert np.array_equal(picture, frame)
    assert not np.shares_memory(picture, frame)


def test_frame_is_left_alone_and_drawing_is_deterministic():
    frame = np.random.default_rng(0).integers(0, 256, (180, 320, 3), dtype=np.uint8)
    original = frame.copy()
    objects = make_objects((180, 320), [[40, 60, 120, 140], [100, 100, 200, 170]])
    first = draw_objects(frame, objects, CLASS_NAMES)
    assert np.array_equal(frame, original)
    assert np.array_equal(first, draw_objects(frame, objects, CLASS_NAMES))


def test_mask_is_tinted_with_the_tracks_colour_and_the_rest_is_unchanged():
    frame = grey(180, 320)
    objects = make_objects((180, 320), [[100, 60, 180, 140]], track_ids=[4])
    picture = draw_objects(frame, objects, CLASS_NAMES)
    expected = 0.55 * 100 + 0.45 * np.array(track_colour(4))
    assert np.abs(picture[100, 140] - expected).max() <= 1
    touched = changed(frame, picture)
    assert touched[70:130, 110:170].all()
    assert (
        not touched[150:].any() and not touched[:, :90].any() and not touched[:, 260:].any() and not touched[:30].any()
    )


def test_hole_of_a_mask_is_not_tinted():
    frame = grey(180, 320)
    objects = make_objects((180, 320), [[100, 60, 180, 140]])
    objects.masks[0, 80:120, 120:160] = False
    assert not changed(frame, draw_objects(frame, objects, CLASS_NAMES))[85:115, 125:155].any()


def test_small_object_lies_over_a_large_one_in_any_order():
    frame = grey(180, 320)
    boxes = [[100, 60, 180, 140], [60, 40, 260, 170]]
    one = draw_objects(frame, make_objects((180, 320), boxes, [0, 1]), CLASS_NAMES)
    other = draw_objects(frame, make_objects((180, 320), boxes[::-1], [1, 0]), CLASS_NAMES)
    assert np.array_equal(one, other)
    large_only = draw_objects(frame, make_objects((180, 320), boxes[1:], [1]), CLASS_NAMES)
    expected = 0.55 * large_only[120, 140].astype(float) + 0.45 * np.array(track_colour(0))
    assert np.abs(one[120, 140] - expected).max() <= 1


@pytest.mark.parametrize("size_hw", [(180, 320), (720, 1280), (1280, 720), (40, 30), (8, 8)])
@pytest.mark.parametrize(
    "box", [[0, 0, 8, 8], [-60, -50, 20, 20], [2000, 2000, 2100, 2100], [5, 5, 5, 5], [2, 3, 1, 1]]
)
def test_boxes_anywhere_on_frames_of_any_size(size_hw, box):
    frame = grey(*size_hw)
    picture = draw_objects(frame, make_objects(size_hw, [box], label=2), CLASS_NAMES)
    assert picture.shape == frame.shape and picture.dtype == np.uint8
    assert changed(frame, picture).any()  # the label at least is kept inside


@pytest.mark.parametrize("box", [[100, 60, 180, 140], [300, 60, 319, 140], [100, 0, 180, 70], [0, 150, 40, 180]])
def test_label_is_whole_inside_the_frame(box):
    """The filled tag has the same area wherever the object is."""
    frame = grey(180, 320)
    objects = make_objects((180, 320), [box], label=2)
    objects.masks[:] = False
    picture = draw_objects(frame, objects, CLASS_NAMES)
    rows = changed(frame, picture).sum(axis=1)
    columns = changed(frame, picture).sum(axis=0)
    assert (rows >= 60).sum() >= 14  # a tag is 16 pixels high; its letters may equal the grey by chance
    assert (columns >= 14).sum() >= 60


def test_labels_of_equal_boxes_do_not_hide_each_other():
    frame = grey(180, 320)
    two = draw_objects(frame, make_objects((180, 320), [[100, 60, 180, 140]] * 2, [0, 1]), CLASS_NAMES)
    for track_id in (0, 1):
        assert (two == track_colour(track_id)).all(axis=2).sum() > 300


def test_a_label_without_a_free_place_is_shorter():
    """Between two wide boxes there is no room for the name of a third one, but for its number."""
    frame, boxes = grey(180, 320), [[0, 60, 90, 76], [110, 60, 200, 76], [60, 60, 118, 76]]
    objects = make_objects((180, 320), boxes, [10, 11, 12])
    parts = {"masks": False, "boxes": False}
    picture = draw_objects(frame, objects, CLASS_NAMES, **parts)
    for track_id in (10, 11, 12):
        assert (picture == track_colour(track_id)).all(axis=2).sum() > 200


def test_letters_contrast_with_their_tag():
    frame = grey(180, 320)
    for track_id in range(12):
        picture = draw_objects(frame, make_objects((180, 320), [[20, 60, 120, 140]], [track_id]), CLASS_NAMES)
        tag = picture[45:59, 22:80].reshape(-1, 3).astype(float) @ (0.299, 0.587, 0.114)
        assert tag.max() - tag.min() > 80, track_id


# ------------------------------------------------------------------------------------------------ switches and trails


def test_each_part_can_be_left_out():
    frame = grey(180, 320)
    objects = make_objects((180, 320), [[100, 60, 180, 140]], [4])
    nothing = {"masks": False, "boxes": False, "text": False}
    assert np.array_equal(draw_objects(frame, objects, CLASS_NAMES, **nothing), frame)
    mask, box, label = (
        changed(frame, draw_objects(frame, objects, CLASS_NAMES, **{**nothing, part: True}))
        for part in ("masks", "boxes", "text")
    )
    assert mask[62:138, 102:178].all() and not mask[:55].any()
    assert box[60, 100:180].all() and not box[70:130, 110:170].any()
    assert label[45:58, 101:150].mean() > 0.5 and not label[65:].any()
    every = changed(frame, draw_objects(frame, objects, CLASS_NAMES))
    assert np.array_equal(every, mask | box | label)


def test_a_label_without_the_score_is_shorter():
    frame = grey(180, 320)
    objects = make_objects((180, 320), [[100, 60, 180, 140]])
    parts = {"masks": False, "boxes": False}
    widths = [
        changed(frame, draw_objects(frame, objects, CLASS_NAMES, **parts, scores=scores)).any(axis=0).sum()
        for scores in (True, False)
    ]
    assert widths[0] > widths[1] + 15 > 30


def test_tensors_are_drawn_as_arrays_are():
    objects = make_objects((180, 320), [[100, 60, 180, 140], [10, 20, 40, 50]], [4, 2])
    tensors = FrameObjects(
        **{name: torch.from_numpy(value) for name, value in vars(objects).items()},
        shifted=torch.zeros(2, dtype=torch.bool),
    )
    pictures = [Overlay(trails=Trails()).draw(grey(180, 320), each, CLASS_NAMES) for each in (objects, tensors)]
    assert np.array_equal(*pictures)


def test_letters_are_as_high_as_asked_for():
    frame, objects = grey(180, 320), make_objects((180, 320), [[100, 80, 180, 140]])
    parts = {"masks": False, "boxes": False}
    rows = [
        changed(frame, draw_objects(frame, objects, CLASS_NAMES, **parts, letter_height=height)).any(axis=1).sum()
        for height in (None, 8, 16)
    ]
    # Above and below is 0.4 of the height free, and half a stroke of 1, 1 and 2 pixels, rounded up.
    assert rows == [16, 16, 32]


@pytest.mark.parametrize("name", ["gjpqy", "#@|()"])
def test_letters_stay_on_their_tag(name):
    frame, objects = grey(300, 900), make_objects((300, 900), [[300, 150, 400, 250]], [4])
    parts = {"masks": False, "boxes": False}
    for height in (*range(5, 40), 7.2, 21.6):  # as frames of 360 and 1080 rows ask for
        picture = draw_objects(frame, objects, ("circle", name), **parts, letter_height=height)
        tag = (picture == track_colour(4)).all(axis=2)
        for axis in (0, 1):
            drawn = np.flatnonzero(changed(frame, picture).any(axis=axis))
            assert drawn[[0, -1]].tolist() == np.flatnonzero(tag.any(axis=axis))[[0, -1]].tolist(), height


def test_letters_of_many_scripts_are_themselves():
    frame, objects = grey(180, 320), make_objects((180, 320), [[100, 80, 180, 140]])
    parts = {"masks": False, "boxes": False, "scores": False}
    pictures = [
        draw_objects(frame, objects, (name, ""), **parts) for name in ("ß", "é", "č", "ш", "щ", "γ", "ع", "?", "□")
    ]
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


@pytest.fixture
def fonts(monkeypatch):
    """Sets the fonts of the system, by name among matplotlib's."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"

    def forget():
        for function in (drawing._font_file, drawing._letters, drawing._warn_of_missing_font):
            function.cache_clear()

    def have(*names):
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(folder / name) for name in names])
        forget()

    yield have
    forget()


def label_of(*names):
    """A frame of one object of the last class of `names`, with its label alone."""
    frame, objects = grey(180, 320), make_objects((180, 320), [[100, 80, 180, 140]], label=len(names))
    return draw_objects(frame, objects, names, masks=False, boxes=False, scores=False)


FRAKTUR = "\U0001d504\U0001d505"  # of STIX, not of DejaVu Sans


def test_a_name_that_the_usual_font_lacks_is_drawn_in_one_of_the_system(fonts, caplog):
    fonts("STIXGeneral.ttf", "cmr10.ttf")
    first, second = label_of(FRAKTUR), label_of(FRAKTUR[::-1])
    assert (first != second).any() and (first != label_of("class 1")).any()
    fonts("missing.ttf", "LastResortHE-Regular.ttf", "STIXGeneralBol.ttf", "STIXGeneral.ttf")
    assert (first == label_of(FRAKTUR)).all()  # the upright one, without heed to damaged ones
    assert not caplog.records


def test_a_name_that_no_font_has_is_the_number_of_its_class(fonts, caplog):
    fonts("cmr10.ttf", "LastResortHE-Regular.ttf")
    for names in (("a", "\u732b"), ("a", f"b {FRAKTUR}"), ("\u72d7", "\u732b")):
        assert (label_of(*names) == label_of("a", "class 2")).all()
    picture, escaped = grey(60, 320), grey(60, 320)
    draw_caption(picture, "clip_\u732b")
    draw_caption(escaped, "clip_\\u732b")
    assert (picture == escaped).all() and (picture != 100).any()
    (record,) = caplog.records
    assert "no font here has" in record.getMessage()


@pytest.mark.parametrize("text", ["a\nb", "\0", "a\tb", "\ud800", "a\r\n\u732b"])
def test_control_characters_are_drawn_as_escapes(text, fonts, monkeypatch):
    fonts("cmr10.ttf")  # has signs for some of them
    drawn, escaped = grey(60, 320), grey(60, 320)
    draw_caption(drawn, text)
    draw_caption(escaped, text.encode("unicode_escape").decode("ascii"))
    assert (drawn == escaped).all() and (drawn != 100).any()
    assert (label_of("a", text) == label_of("a", "class 2")).all()


def test_a_font_without_digits_draws_no_label(fonts):
    fonts("STIXNonUni.ttf")  # has the sign, but neither # nor 0…9
    assert (label_of("a", "\ue000") == label_of("a", "class 2")).all()


def test_low_tracks_are_hidden_by_the_mean_of_their_scores_so_far():
    frame, boxes = grey(180, 320), [[20, 40, 80, 100], [200, 40, 260, 100]]
    overlay = Overlay(text=False)
    seen = []
    for scores in ((0.2, 0.5), (0.5, 0.05), (0.2, 0.3), (0.2, 0.5)):
        objects = replace(make_objects((180, 320), boxes, [3, 8]), scores=np.array(scores, np.float32))
        picture = overlay.draw(frame, objects, CLASS_NAMES)
        seen.append([bool(changed(frame, picture)[50:90, x : x + 40].all()) for x in (30, 210)])
    # Track 3 has the means 0.2, 0.35, 0.3 and 0.275, track 8 0.5, 0.275, 0.283 and 0.3375.
    assert seen == [[False, True], [True, False], [True, False], [False, True]]
    unscored = replace(objects, scores=None)
    assert np.array_equal(Overlay().draw(frame, unscored, CLASS_NAMES), draw_objects(frame, unscored, CLASS_NAMES))
    assert np.array_equal(draw_objects(frame, objects, CLASS_NAMES, hidden={3, 8}), frame)


def test_trails_show_where_a_track_came_from():
    trails = Trails(length=3)
    for x in (0, 20, 40, 60):
        objects = make_objects((180, 320), [[x, 60, x + 20, 80], [200, 20, 220, 40]], [7, 2])
        trails.add(objects)
    assert trails.of(7) == [(30, 70), (50, 70), (70, 70)]
    assert trails.of(1) == []
    parts = {"masks": False, "boxes": False, "text": False}
    frame = grey(180, 320)
    drawn = draw_objects(frame, objects, CLASS_NAMES, **parts, trails=trails)
    assert (drawn[70, 31:66] == track_colour(7)).all() and (drawn[70, 70] == track_colour(7)).all()
    assert changed(frame, drawn)[:, 60].sum() > changed(frame, drawn)[:, 40].sum() > 2  # it grows wider, rimmed
    touched = changed(frame, drawn)
    assert not touched[:, :25].any() and not touched[:60, :100].any() and not touched[90:].any()


def test_a_trail_skips_frames_without_its_track_and_is_forgotten():
    trails = Trails(length=2)
    here, empty = make_objects((180, 320), [[0, 0, 10, 20]], [3]), make_objects((180, 320), [])
    for objects in (here, empty):
        trails.add(objects)
    assert trails.of(3) == [(5, 10)]
    trails.add(empty)
    assert trails.of(3) == []


@pytest.mark.parametrize("size_hw", [(180, 320), (8, 8)])
def test_a_caption_stands_in_the_corner(size_hw):
    picture = draw_objects(grey(*size_hw), make_objects(size_hw, []), CLASS_NAMES, caption="12.3 fps")
    rows = np.flatnonzero(changed(picture, grey(*size_hw)).any(axis=1))
    assert rows[-1] == size_hw[0] - 1 and len(rows) < 30


def test_the_frame_rate_is_that_of_the_last_ten_frames():
    times = iter([0.0, 0.5, *(1.0 + 0.1 * step for step in range(20))])
    rate = FrameRate(clock=lambda: next(times))
    assert rate.update() is None
    assert rate.update() == 2.0
    assert [rate.update() for _ in range(20)][-1] == pytest.approx(10)


def test_an_overlay_draws_trails_and_the_rate_from_frame_to_frame():
    clock = iter([0.0, 0.25])
    overlay = Overlay(boxes=False, trails=Trails(), frame_rate=FrameRate(clock=lambda: next(clock)))
    frame, trails = grey(180, 320), Trails()
    for x, caption in ((0, ""), (40, "4.0 FPS")):
        objects = make_objects((180, 320), [[x, 60, x + 20, 80]], [7])
        trails.add(objects)
        expected = draw_objects(frame, objects, CLASS_NAMES, boxes=False, trails=trails, caption=caption)
        assert np.array_equal(overlay.draw(frame, objects, CLASS_NAMES), expected)


# ------------------------------------------------------------------------------------------------ truth and prediction


def test_truth_is_left_and_prediction_right_of_a_white_gap():
    frame = grey(180, 320)
    truth = replace(make_objects((180, 320), [[100, 60, 180, 140]], [7]), scores=None)
    found = make_objects((180, 320), [[40, 30, 90, 90], [200, 60, 300, 140]])
    picture = truth_beside_prediction(frame, truth, found, CLASS_NAMES)
    assert picture.shape == (180, 648, 3) and picture.dtype == np.uint8
    left, gap, right = np.split(picture, [320, 328], axis=1)
    assert (gap == 255).all()
    for half, objects in ((left, truth), (right, found)):
        drawn = draw_objects(frame, objects, CLASS_NAMES, scores=objects is found)  # truth has none
        caption = changed(half, drawn)
        assert np.array_equal(half[:160], drawn[:160]) and np.array_equal(half[:, 160:], drawn[:, 160:])
        assert caption[165:, :40].all(axis=0).any()
    assert np.array_equal(frame, grey(180, 320))


def test_captions_differ_and_are_read_white_on_black():
    picture = truth_beside_prediction(grey(180, 320), *[make_objects((180, 320), [])] * 2, CLASS_NAMES)
    left, _, right = np.split(picture, [320, 328], axis=1)
    tags = [changed(half, grey(180, 320)) for half in (left, right)]
    assert tags[0].sum() < tags[1].sum()  # "prediction" is longer
    for half, tag in zip((left, right), tags, strict=True):
        rows, columns = np.flatnonzero(tag.any(axis=1)), np.flatnonzero(tag.any(axis=0))
        assert rows[-1] == 179 and columns[0] == 0 and len(rows) < 30 and len(columns) < 160
        assert half[tag].min() == 0 and half[tag].max() > 200


@pytest.mark.parametrize("size_hw", [(720, 1280), (40, 30), (8, 8)])
def test_truth_beside_prediction_of_frames_of_any_size(size_hw):
    empty, one = make_objects(size_hw, []), make_objects(size_hw, [[0, 0, 8, 8]])
    for truth, found in ((empty, one), (one, empty)):
        picture = truth_beside_prediction(grey(*size_hw), truth, found, CLASS_NAMES)
        assert picture.shape == (size_hw[0], 2 * size_hw[1] + 8, 3)
