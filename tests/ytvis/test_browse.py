"""Contact sheets of a drawn video of 40×20 pixels, shown eight times as large."""

import json

import cv2
import numpy as np
import pytest

from ytvis import browse
from ytvis.__main__ import main as ytvis_main
from ytvis.browse import draw_sheet
from ytvis.files import InputError

LINE = browse.LINE_HEIGHT
TILE = (20 * 8 + LINE, 320)  # height and width of a tile with its caption


def main(arguments):
    """The exit code of `ytvis browse` with these arguments."""
    return ytvis_main(["browse", *arguments])


def square(left):
    """A square of 10×10 pixels as a polygon."""
    return [[left, 5, left + 10, 5, left + 10, 15, left, 15]]


@pytest.fixture
def files(tmp_path):
    """A video of three grey frames with a square on the last two, one of them crossing, and a video without any."""
    names = [f"a/{number}.png" for number in range(3)]
    for name in [*names, "b/0.png"]:
        (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "frames" / name), np.full((20, 40, 3), 100, np.uint8))
    content = {
        "videos": [
            {"id": 7, "width": 40, "height": 20, "file_names": names},
            {"id": 3, "width": 40, "height": 20, "file_names": ["b/0.png"]},
        ],
        "categories": [{"id": 4, "name": "dog"}],
        "annotations": [
            {"id": 1, "video_id": 7, "category_id": 4, "segmentations": [None, square(0), square(20)]},
            {"id": 2, "video_id": 7, "category_id": 4, "segmentations": [None, square(20), None]},
        ],
    }
    path = tmp_path / "ann.json"
    path.write_text(json.dumps(content))
    return path, tmp_path / "frames"


def tiles(sheet):
    """{(row, column): the frame of a tile [160,320,3], without its caption}."""
    height, width = TILE[0] + 4, TILE[1] + 2
    return {
        (row, column): sheet[row * height + 2 + LINE :, column * width + 2 :][: TILE[0] - LINE, :320].astype(int)
        for row in range(sheet.shape[0] // height)
        for column in range(sheet.shape[1] // width)
    }


def centre(tile, left):
    """The colour in the middle of the square whose left side is at pixel `left` of the frame."""
    return tile[10 * 8, (left + 5) * 8].tolist()


def test_a_row_shows_the_annotated_frames_and_an_object_keeps_its_colour(files):
    found = tiles(draw_sheet(*files, columns=3))
    assert set(found) == {(row, column) for row in range(2) for column in range(3)}
    first, second = found[0, 0], found[0, 1]
    assert centre(first, 0) == centre(second, 20) != [100, 100, 100]  # the first object, which moves
    assert centre(first, 20) not in ([100, 100, 100], centre(first, 0))  # the second one
    assert centre(second, 0) == [100, 100, 100]
    assert not found[0, 2].any()  # two frames have annotations
    assert np.ptp(found[1, 0]) == 0 and found[1, 0][0, 0].tolist() == [
        100,
        100,
        100,
    ]  # none has any: the frame as it is


def test_boxes_names_and_captions_are_drawn(files, monkeypatch):
    def inside_of(sheet):
        return tiles(sheet)[0, 1][48:72, 168:232]  # where the name of the square at 20 goes

    sheet = draw_sheet(*files, [7], columns=2)
    assert sheet[2:LINE, 2:150].max() == 255  # the caption
    edge, middle = tiles(sheet)[0, 1][100, 160].tolist(), centre(tiles(sheet)[0, 1], 20)
    assert edge != middle and edge != [100, 100, 100]  # the box's line
    assert inside_of(sheet).max(axis=-1).min() < 100 and inside_of(sheet).min(axis=-1).max() > 200  # a rim, and letters
    monkeypatch.setattr(browse, "_write", lambda *arguments: None)
    assert inside_of(draw_sheet(*files, [7], columns=2)).min(axis=-1).max() < 200


def test_frames_are_spread_over_the_video(files):
    one, two = draw_sheet(*files, [7], columns=1), tiles(draw_sheet(*files, [7], columns=2))
    assert one.shape == (*TILE, 3)
    assert np.array_equal(one[LINE:], two[0, 0]) and not np.array_equal(two[0, 0], two[0, 1])


def test_videos_are_shown_as_asked_for(files):
    both, one = draw_sheet(*files, [3, 7], 2), draw_sheet(*files, [7], 2)
    assert np.array_equal(both[-len(one) :], one)
    with pytest.raises(InputError, match=r"ann\.json: there is no video 5"):
        draw_sheet(*files, [7, 5])


def test_boxes_out_of_the_frame_do_no_harm(files):
    content = json.loads(files[0].read_text())
    content["annotations"][0]["bboxes"] = [None, [-50, -50, 900, 900], [60, 60, 5, 5]]
    files[0].write_text(json.dumps(content))
    assert centre(tiles(draw_sheet(*files, columns=2))[0, 0], 0) != [100, 100, 100]


def test_the_command_writes_the_sheet(files, tmp_path, capsys):
    output = tmp_path / "new" / "sheet.png"
    line = [str(files[0]), "--images", str(files[1]), "--output", str(output), "--videos", "7,3", "--columns", "2"]
    assert main(line) == 0
    written = cv2.cvtColor(cv2.imread(str(output)), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(written, draw_sheet(*files, [7, 3], 2))
    height, width = written.shape[:2]
    assert capsys.readouterr().out == f"{output}: {width}×{height} pixels\n"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--output": "sheet.gif"}, "sheet.gif: must end with .png or .jpg"),
        ({"--images": "nowhere"}, "nowhere: no such folder"),
        ({"--videos": "9"}, "there is no video 9"),
    ],
)
def test_bad_input_is_exit_code_2(files, tmp_path, capsys, changes, message):
    options = {"--images": str(files[1]), "--output": str(tmp_path / "sheet.png")} | changes
    assert main([str(files[0]), *(f"{key}={value}" for key, value in options.items())]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ytvis browse: error: ") and message in error and error.count("\n") == 1


def test_a_frame_that_is_missing_is_named(files, tmp_path, capsys):
    (files[1] / "a" / "2.png").unlink()
    assert main([str(files[0]), "--images", str(files[1]), "--output", str(tmp_path / "sheet.png")]) == 2
    assert "a/2.png: no such picture" in capsys.readouterr().err
