"""Contact sheets of a drawn video of 40×20 pixels, shown eight times as large."""

import json

import cv2
import numpy as np
import pytest

from ytvis import browse
from ytvis.__main__ import main as ytvis_main
from ytvis.browse import draw_sheet
from ytvis.drawing import PixelObjects, draw_caption, draw_objects, track_colour
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
    height, width = TILE[0] + 4, TILE[1] + 4
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


def test_a_tile_is_drawn_as_any_frame_is_under_a_caption(files):
    sheet = draw_sheet(*files, [7], columns=2)
    masks = np.zeros((1, 160, 320), bool)
    masks[:, 5 * 8 : 15 * 8, 20 * 8 : 30 * 8] = True
    boxes = np.array([[20 * 8, 5 * 8, 30 * 8, 15 * 8]])
    objects = PixelObjects(boxes, labels=np.array([1]), track_ids=np.array([0]), masks=masks)
    expected = draw_objects(np.full((160, 320, 3), 100, np.uint8), objects, ["dog"])
    assert np.array_equal(tiles(sheet)[0, 1], expected)
    assert centre(tiles(sheet)[0, 1], 20) == pytest.approx(0.55 * 100 + 0.45 * np.array(track_colour(0)), abs=1)
    caption = np.zeros((LINE, 320, 3), np.uint8)
    draw_caption(caption, "a (video 7), frame 2 of 3")
    second = sheet[2:][:LINE, 326:][:, :320]
    assert caption.any() and np.array_equal(second, caption)


def test_long_names_are_cut_at_the_front_and_upright_videos_are_narrower(tmp_path):
    name = "a" * 40 + "_long"
    (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / name / "0.png"), np.full((4000, 2, 3), 100, np.uint8))
    video = {"id": 7, "width": 2, "height": 4000, "file_names": [f"{name}/0.png"]}
    (tmp_path / "ann.json").write_text(json.dumps({"videos": [video], "categories": [{"id": 1, "name": "dog"}]}))
    sheet = draw_sheet(tmp_path / "ann.json", tmp_path, columns=1)
    assert sheet.shape == (640 + LINE + 4, 320 + 4, 3)
    caption = np.zeros((LINE, 320, 3), np.uint8)
    draw_caption(caption, "...aaaaaaaaaaaa_long (video 7), frame 0 of 1")
    assert np.array_equal(sheet[2:][:LINE, 2:-2], caption)
    assert (sheet[2 + LINE : -2, 2:3] == 100).all() and not sheet[2 + LINE :, 3:].any()


def test_frames_are_spread_over_the_video(files):
    one, two = draw_sheet(*files, [7], columns=1), tiles(draw_sheet(*files, [7], columns=2))
    assert one.shape == (TILE[0] + 4, TILE[1] + 4, 3)
    assert np.array_equal(tiles(one)[0, 0], two[0, 0]) and not np.array_equal(two[0, 0], two[0, 1])


def test_videos_are_shown_as_asked_for(files):
    both, one = draw_sheet(*files, [3, 7], 2), draw_sheet(*files, [7], 2)
    assert np.array_equal(both[-len(one) :], one)
    with pytest.raises(InputError, match=r"ann\.json: video 5 not found"):
        draw_sheet(*files, [7, 5])


def test_links_and_back_slashes_lead_to_frames(files, tmp_path):
    expected = draw_sheet(*files)
    (tmp_path / "linked").symlink_to("frames")
    (files[1] / "real").mkdir()
    for name in ("a", "b"):
        (files[1] / name).rename(files[1] / "real" / name)
        (files[1] / name).symlink_to(files[1] / "real" / name)
    content = json.loads(files[0].read_text())
    for video in content["videos"]:
        video["file_names"] = [name.replace("/", "\\") for name in video["file_names"]]
    files[0].write_text(json.dumps(content))
    assert np.array_equal(draw_sheet(files[0], tmp_path / "linked"), expected)


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
        ({"--videos": "9"}, "video 9 not found"),
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
    assert "a/2.png: cannot be read: No such file" in capsys.readouterr().err
