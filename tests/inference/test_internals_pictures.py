from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib import font_manager

from inference.internals import ObjectInternals
from inference.internals_pictures import PICTURES, FrameInternals, draw_internals
from ytvis import drawing
from ytvis.files import InputError

KERNELS = ((3, 3), (3, 5), (5, 3))


def make_object(track_id=3, **changes):
    """A square of 40 pixels at (60, 30) that was detected, calibrated and shifted."""
    box = np.array([60.0, 30.0, 100.0, 70.0])
    taps = np.stack(np.meshgrid([65.0, 80.0, 95.0], [35.0, 50.0, 65.0]), axis=-1).reshape(-1, 2)
    mask = np.zeros((24, 40))
    mask[7:18, 15:25] = 0.9
    item = ObjectInternals(
        track_id=track_id,
        label=2,
        score=0.8,
        box=box,
        mask=mask,
        weights=np.array([0.9, -0.7, 0.1, 0.0]),
        last_box=box - 8,
        shifted_box=box + 1,
        level=4,
        kernel=1,
        anchors=np.array([box, box + [-14, 0, 14, 0], box + [0, -14, 0, 14]]),
        taps=taps,
        samples=taps + 3,
    )
    return replace(item, **changes)


def make_view(*objects, size_hw=(96, 160)):
    rng = np.random.default_rng(0)
    frame = rng.integers(100, 140, (*size_hw, 3)).astype(np.uint8)
    return FrameInternals(frame, frame, rng.random((24, 40, 4)), objects, KERNELS, ("circle", "ring"))


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_of_one_and_of_many_objects(name):
    one = draw_internals(name, make_view(make_object()))
    many = draw_internals(name, make_view(*(make_object(number) for number in range(5))))
    for picture in (one, many):
        assert picture.dtype == np.uint8 and picture.shape[1] == 1200 and 300 < picture.shape[0] < 1200
        assert picture.std() > 20
    assert np.array_equal(one, draw_internals(name, make_view(make_object())))


@pytest.mark.parametrize("name", PICTURES)
def test_an_upright_frame_stays_within_a_page(name):
    assert draw_internals(name, make_view(make_object(), size_hw=(640, 360))).shape[0] < 1800


@pytest.mark.parametrize(
    ("name", "item", "words"),
    [
        ("anchors", make_object(anchors=None), "detected in this frame"),
        ("calibration", make_object(samples=None), "calibrated"),
        ("shift", make_object(shifted_box=None), "known in the frame before"),
    ],
)
def test_what_a_frame_does_not_have_is_said(name, item, words):
    with pytest.raises(InputError, match=words):
        draw_internals(name, make_view(item))
    assert draw_internals(name, make_view(item, make_object(4))).std() > 20  # the other one has it


@pytest.mark.parametrize("name", PICTURES)
def test_a_frame_without_objects_is_refused(name):
    with pytest.raises(InputError, match="the frame has no"):
        draw_internals(name, make_view())


@pytest.mark.parametrize("name", PICTURES)
def test_a_class_name_that_no_font_has_is_the_number_of_its_class(name, monkeypatch, recwarn):
    monkeypatch.setattr(font_manager, "findSystemFonts", list)
    drawing._font_file.cache_clear()
    expected, unknown = (replace(make_view(make_object()), class_names=("a", text)) for text in ("class 2", "\u732b"))
    assert np.array_equal(draw_internals(name, unknown), draw_internals(name, expected))
    drawing._font_file.cache_clear()
    assert not recwarn.list  # matplotlib warns of letters that it cannot draw


@pytest.mark.parametrize("name", PICTURES)
def test_a_class_name_is_drawn_in_a_font_of_the_system_that_has_it(name, monkeypatch, recwarn):
    fonts = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(fonts / "STIXGeneral.ttf")])
    drawing._font_file.cache_clear()
    names = ("\U0001d504", "\U0001d505", "class 2")  # of STIX, not of DejaVu Sans
    pictures = [draw_internals(name, replace(make_view(make_object()), class_names=("a", text))) for text in names]
    drawing._font_file.cache_clear()
    assert len({picture.tobytes() for picture in pictures}) == 3
    assert not recwarn.list


def test_texts_tell_which_weight_and_how_far():
    def texts(figure):
        return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]

    assert {"+0.90", "−0.70", "ring #3, score 0.80"} <= set(texts(PICTURES["prototypes"](make_view(make_object()))))
    # From the middle of the last box to that of the shifted one it is 9 right and 9 down.
    assert "ring #3: moved by 12.7 pixels, then detected there" in texts(PICTURES["shift"](make_view(make_object())))
    carried = make_view(make_object(anchors=None))
    assert "ring #3: moved by 12.7 pixels, not detected: carried on" in texts(PICTURES["shift"](carried))
    assert "#3  P4  3×5" in texts(PICTURES["anchors"](make_view(make_object())))
