"""eval.py on your own video, frames, picture or camera: --video, --images, --image."""

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import eval as command
import inference.own_video as own_video
from data.config import get_config
from data.video import VideoFile, VideoWriter
from inference import frame_journal
from inference.internals_pictures import PICTURES
from inference.own_video import split_paths
from stmask import STMask
from tests.data.test_video import sound_of, write_source
from tests.inference.test_stream import SMALL, make_model
from tests.processes import ROOT, start
from tests.reading import read_results
from utils.checkpoint import save_state_dict
from utils.window import LiveWindow
from ytvis import drawing
from ytvis.drawing import draw_objects
from ytvis.files import InputError
from ytvis.masks import decode_mask
from ytvis.pictures import read_picture
from ytvis.viewer.content import Content

FEW = {**SMALL, "detection.top_k": 12}  # objects, for a network that finds one in every cell
CLASS_NAMES = get_config("STMask_demo_config").dataset.class_names
HW = (48, 64)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A demo model with random weights that finds something."""
    path = tmp_path_factory.mktemp("weights") / "STMask_demo.pth"
    save_state_dict(make_model().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def model(checkpoint):
    return STMask.from_pretrained(checkpoint, get_config("STMask_demo_config", FEW), "cpu")


@pytest.fixture
def run(checkpoint, tmp_path, monkeypatch):
    """Runs eval.py in `tmp_path`; the random weights find nothing that is drawn by default."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        small = ["--set=input.size_hw=60,90", "--set=detection.top_k=12", "--device=cpu"]
        if not any(text.startswith(("--show", "--display_score_threshold")) for text in arguments):
            small.append("--display_score_threshold=0")
        return command.main([f"--trained_model={checkpoint}", *small, *arguments])

    return run


def walking(count, size_hw=HW):
    """Frames of a picture that moves right: few colours and large patches, so that a codec keeps them."""
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    picture = cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_NEAREST)
    return [np.roll(picture, 2 * index, axis=1) for index in range(count)]


@pytest.fixture
def frames(tmp_path):
    """Four pictures in frames/; the last one is last only in natural order."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for name, picture in zip(("1.png", "2.png", "3.png", "10.png"), walking(4), strict=True):
        cv2.imwrite(str(folder / name), picture[..., ::-1])
    return folder


def boxes_of(entries, index):
    return sum(entry["segmentations"][index] is not None for entry in entries)


# ------------------------------------------------------------------------------------------------ in:out


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in.mp4:out.mp4", ("in.mp4", "out.mp4")),
        ("in.mp4", ("in.mp4", None)),
        ("0", ("0", None)),
        ("0:out.mp4", ("0", "out.mp4")),
        ("frames/*.jpg:out", ("frames/*.jpg", "out")),
        (r"C:\videos\in.mp4", (r"C:\videos\in.mp4", None)),
        (r"C:\videos\in.mp4:D:\out.mp4", (r"C:\videos\in.mp4", r"D:\out.mp4")),
        ("c:/in.mp4:out.mp4", ("c:/in.mp4", "out.mp4")),
        ("in.mp4:d:/out.mp4", ("in.mp4", "d:/out.mp4")),
        ("rtsp://camera:554/live", ("rtsp://camera:554/live", None)),
        ("rtsp://camera:554/live:out.mp4", ("rtsp://camera:554/live", "out.mp4")),
    ],
)
def test_paths_are_split(text, expected):
    assert split_paths(text) == expected


@pytest.mark.parametrize("text", ["", "a:b:c.mp4", "in.mp4:", ":out.mp4"])
def test_what_cannot_be_split_is_refused(text):
    with pytest.raises(InputError, match="IN:OUT|colon"):
        split_paths(text)


@pytest.mark.skipif(os.name == "nt", reason="no file can be named so")
def test_colons_in_the_names_of_files_that_are_there(tmp_path):
    name = str(tmp_path / "12:30.mp4")
    open(name, "w").close()
    assert split_paths(name) == (name, None)
    assert split_paths(f"{name}:out.mp4") == (name, "out.mp4")


# ------------------------------------------------------------------------------------------------ what comes out


def test_a_video_becomes_a_drawn_one_with_its_rate_size_sound_and_results(run, model, tmp_path, capsys):
    write_source(tmp_path / "in.mp4", sound="aac", frames=walking(10), rate=10)
    assert run("--video=in.mp4:new/out.mp4") == 0
    printed = capsys.readouterr()
    assert re.search(r"^10 frames, \d+ tracks: \d+ ", printed.out) and "new/out.mp4, new/out.json" in printed.out
    assert re.search(r"10/10 frames \[[\d:]+<00:00", printed.err)  # the progress, with the time left
    source, drawn = list(VideoFile("in.mp4")), list(VideoFile("new/out.mp4"))
    assert VideoFile("new/out.mp4").frame_rate == 10
    assert [frame.time_s for frame in drawn] == [frame.time_s for frame in source]
    assert drawn[0].frame.shape == (*HW, 3)
    assert sound_of("new/out.mp4")[0] == "aac"
    entries = read_results("new/out.json")
    for frame in model.stream("in.mp4"):
        expected = draw_objects(frame.frame, frame.objects, CLASS_NAMES)
        away = [np.abs(drawn[frame.index].frame.astype(int) - other).mean() for other in (expected, frame.frame)]
        assert away[0] < away[1] / 2  # H.264 blurs what is so small
        assert boxes_of(entries, frame.index) == len(frame.names) > 0
        found = [entry["segmentations"][frame.index] for entry in entries if entry["segmentations"][frame.index]]
        masks = sorted(decode_mask(rle).tobytes() for rle in found)
        assert masks == sorted(mask.numpy().astype(np.uint8).tobytes() for mask in frame.masks)


def test_frames_become_pictures_under_their_names(run, model, frames):
    assert run("--images=frames:drawn") == 0
    assert sorted(os.listdir("drawn")) == ["1.png", "10.png", "2.png", "3.png"]
    for frame in model.stream(frames):
        expected = draw_objects(frame.frame, frame.objects, CLASS_NAMES)
        assert np.array_equal(read_picture(f"drawn/{frame.name}"), expected)
    assert len(read_results("drawn.json")[0]["segmentations"]) == 4
    assert run("--images=frames/?.png:glob") == 0
    assert sorted(os.listdir("glob")) == ["1.png", "2.png", "3.png"]


def test_a_picture_with_every_switch(run, model, frames):
    (frame,) = model.stream(frames / "1.png")
    draw = {"masks": "masks", "boxes": "bboxes", "text": "text", "scores": "scores"}
    pictures = []
    for ours, theirs in draw.items():
        assert run("--image=frames/1.png:out.png", f"--display_{theirs}=False") == 0
        pictures.append(read_picture("out.png"))
        assert np.array_equal(pictures[-1], draw_objects(frame.frame, frame.objects, CLASS_NAMES, **{ours: False}))
    assert run("--image=frames/1.png:out.png", *(f"--display_{name}=False" for name in draw.values())) == 0
    assert np.array_equal(read_picture("out.png"), frame.frame)
    assert len({picture.tobytes() for picture in pictures}) == 4


def test_trails_and_frame_rate_are_drawn_on_demand(run, frames):
    nothing = [f"--display_{name}=False" for name in ("masks", "bboxes", "text")]
    assert run("--images=frames:plain", *nothing) == 0
    assert run("--images=frames:trails", "--display_trails", *nothing) == 0
    assert run("--images=frames:fps", "--display_fps", *nothing) == 0
    plain, trails, fps = (read_picture(f"{folder}/10.png") for folder in ("plain", "trails", "fps"))
    assert (plain != trails).any() and (plain != fps).any()
    assert np.array_equal(plain[:20], fps[:20])  # the rate is in the lower corner


def test_the_benchmark_of_one_picture_has_no_frame_rate(run, frames, capsys):
    assert run("--image=frames/1.png:out.png", "--benchmark") == 0
    assert "\n- frames per second with everything, " in capsys.readouterr().out
    assert "fps" not in json.loads(Path("out_benchmark.json").read_text())["runs"]["this run"]


def test_a_table_and_mots_text_beside_it(run, model, frames):
    assert run("--images=frames:out", "--save_csv", "--save_mots") == 0
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(frame.index, row.track_id) for frame in model.stream(frames) for row in frame.rows]
    assert [(int(row["frame"]), int(row["track_id"])) for row in rows] == expected
    assert sorted(os.listdir("out_mots")) == ["labels.txt", "out.txt"]


def test_an_object_has_one_number_in_every_output(run, model, frames, monkeypatch):
    """The tracks of one run, by their class and the frames they are seen in, with their number in each output."""
    drawn: dict[int, set[int]] = {}

    def draw_label(picture, texts, box, colour, taken, cap_height):
        for text in texts:
            drawn.setdefault(int(re.search("#([0-9]+)", text)[1]), set()).add(colour)
        return original(picture, texts, box, colour, taken, cap_height)

    original = drawing._draw_label
    monkeypatch.setattr(drawing, "_draw_label", draw_label)
    assert run("--video=frames:out.mp4", "--save_csv", "--save_mots") == 0
    seen: dict[int, set[int]] = {}
    for frame in model.stream(frames):
        for track_id in frame.track_ids.tolist():
            seen.setdefault(track_id, set()).add(frame.index)
    assert len(seen) > 2 and min(seen) == 0
    assert drawn == {track_id: {drawing.track_colour(track_id)} for track_id in seen}
    entries = read_results("out.json")
    in_frames = {entry["track_id"]: {n for n, rle in enumerate(entry["segmentations"]) if rle} for entry in entries}
    assert in_frames == seen
    with open("out.csv", newline="") as file:
        rows = [(int(row["track_id"]), int(row["frame"]), row["file_name"]) for row in csv.DictReader(file)]
    names = ["1.png", "2.png", "3.png", "10.png"]
    assert set(rows) == {(track_id, index, names[index]) for track_id, own in seen.items() for index in own}
    lines = [line.split() for line in Path("out_mots/out.txt").read_text().splitlines()]
    assert {int(line[1]) % 1000 for line in lines} <= set(seen)
    assert all(int(line[0]) in seen[int(line[1]) % 1000] for line in lines) and lines
    content = Content("out.json", frames)
    video = content.video(0)
    (layer,) = video["layers"]
    numbers = [video["numbers"][track["group"]] for track in layer["tracks"]]
    assert video["has_ids"] and numbers == [entry["track_id"] for entry in entries] == list(seen)
    assert video["colours"] == [drawing.css_colour(drawing.track_colour(number)) for number in numbers]


def test_low_tracks_are_not_drawn_but_in_the_files(run, model, frames):
    assert run("--images=frames:all") == 0
    means = sorted(entry["score"] for entry in read_results("all.json"))
    assert means[0] < means[-1] < 0.3
    assert run("--images=frames:few", "--display_score_threshold=0.3") == 0
    assert all(np.array_equal(read_picture(f"few/{n}.png"), read_picture(frames / f"{n}.png")) for n in (1, 2, 3, 10))
    assert read_results("few.json") == read_results("all.json")


def test_what_a_video_leaves_is_all_that_the_viewer_needs(run, frames, tmp_path):
    write_source(tmp_path / "in.mp4", frames=walking(10), rate=10)
    for line, images in (
        ("--video=in.mp4:out.mp4", "in.mp4"),
        ("--images=in.mp4:out", "out"),
        ("--images=frames:out", "frames"),
    ):
        assert run(line) == 0
        content = Content("out.json", images)
        names = set(content.index()["categories"].values())
        found = {CLASS_NAMES[entry["category_id"] - 1] for entry in read_results("out.json")}
        assert names == found and names
        video = content.video(0)
        assert video["frame_rate"] == (25 if images == "frames" else 10)
        assert all(video["frames"]) and len(video["frames"]) == (4 if images == "frames" else 10)
    assert video["names"] == ["1.png", "2.png", "3.png", "10.png"]


def test_details_are_those_of_the_frames(run, model, frames):
    assert run("--images=frames:plain") == 0 and run("--images=frames:out", "--save_details") == 0
    results = read_results("out.json")
    details = [(entry.pop("scores"), entry.pop("shifted")) for entry in results]
    assert results == read_results("plain.json")
    expected = {}
    for frame in model.stream(frames):
        objects = frame.objects
        for track_id, score, shifted in zip(
            objects.track_ids.tolist(), objects.scores.tolist(), objects.shifted.tolist(), strict=True
        ):
            scores, flags = expected.setdefault(track_id, ([None] * 4, [False] * 4))
            scores[frame.index], flags[frame.index] = round(score, 4), shifted
    assert details == list(expected.values())
    assert any(any(flags) for _, flags in details) and not all(all(flags) for _, flags in details)


def test_classes_score_threshold_and_top_k(run, checkpoint, frames):
    config = get_config("STMask_demo_config", {**SMALL, "detection.top_k": 25})
    (found,) = STMask.from_pretrained(checkpoint, config, "cpu").stream(frames / "1.png")
    many = "--set=detection.top_k=25"
    names = list(dict.fromkeys(found.names))
    assert len(names) > 1
    assert run("--image=frames/1.png:out.png", many, f"--classes={names[0]}, {names[1]}") == 0
    kept = {CLASS_NAMES[entry["category_id"] - 1] for entry in read_results("out.json")}
    assert kept == {names[0], names[1]}
    assert run("--image=frames/1.png:out.png", many, "--top_k=2") == 0
    assert len(read_results("out.json")) == 2
    middle = found.scores.median().item()
    assert run("--image=frames/1.png:out.png", many, f"--score_threshold={middle}") == 0
    assert len(read_results("out.json")) == int((found.scores > middle).sum()) < len(found.scores)


def test_a_scene_cut_begins_new_tracks(run, tmp_path):
    first, second = walking(2)[0] // 2, walking(2)[0] // 2 + 127
    (tmp_path / "cut").mkdir()
    for index, picture in enumerate((first, first, second, second)):
        cv2.imwrite(str(tmp_path / "cut" / f"{index}.png"), picture)
    assert run("--images=cut:out", "--scene_cut") == 0
    for entry in read_results("out.json"):
        before, after = entry["segmentations"][:2], entry["segmentations"][2:]
        assert any(before) != any(after)


def test_without_an_output_it_goes_into_results(run, frames):
    assert run("--images=frames") == run("--image=frames/2.png") == 0
    names = ["2.json", "2.png", "2_video.json", "frames", "frames.json", "frames_video.json"]
    assert sorted(os.listdir("results")) == names


def test_the_benchmark_has_the_stages_of_a_video_and_what_they_add_to_the_network(run, frames, capsys):
    assert run("--images=frames:out", "--benchmark") == 0
    printed = capsys.readouterr().out
    content = json.loads(Path("out_benchmark.json").read_text())
    measured = content["runs"]["this run"]
    assert content["config"] == "STMask_demo_config" and measured["frames"] == 4
    for stage in ("read", "network", "detect", "track", "write", "draw", "encode", "total"):
        median = measured["stages"][stage]["median_ms"]
        assert f"{stage}, ms" in printed and f"{median:.1f} (p95" in printed and median > 0
    wall, network = measured["wall_ms"]["median"], measured["stages"]["network"]["median_ms"]
    assert measured["overhead"] == pytest.approx(wall / network - 1)
    assert f"FPS {measured['fps']:.2f}" in re.sub(" +", " ", printed)
    assert f"{measured['fps']:.1f} frames per second with everything, {1000 / network:.1f} the network alone" in printed
    assert f"{measured['overhead']:.1%}" in printed and "benchmark: out_benchmark.json" in printed


# ------------------------------------------------------------------------------------------------ difficult videos


def test_odd_upright_and_turned_videos(run, tmp_path):
    tall = walking(3, (64, 48))
    write_source(tmp_path / "turned.mp4", frames=walking(3), rotation=90)
    write_source(tmp_path / "tall.mp4", frames=tall)
    with VideoWriter(tmp_path / "odd.avi.mp4", 10, (47, 63)) as writer:
        for frame in walking(3, (47, 63)):
            writer.write(frame)
    cv2.imwrite(str(tmp_path / "odd.png"), walking(1, (47, 63))[0])
    for name, shape in (("turned", (64, 48, 3)), ("tall", (64, 48, 3)), ("odd.avi", (48, 64, 3))):
        assert run(f"--video={name}.mp4:out.mp4") == 0
        drawn = list(VideoFile("out.mp4"))
        assert len(drawn) == 3 and drawn[0].frame.shape == shape
        assert read_results("out.json")[0]["segmentations"][0]["size"] == list(shape[:2])
    assert run("--image=odd.png:out.png") == 0
    assert read_picture("out.png").shape == (47, 63, 3)
    assert run("--video=odd.png:out.mp4") == 0  # a video of one frame, of odd sides
    assert read_results("out.json")[0]["segmentations"][0]["size"] == [47, 63]


def test_a_variable_frame_rate_is_kept(run, tmp_path):
    times = [0.0, 0.04, 0.5, 0.54]
    with VideoWriter(tmp_path / "in.mp4", 25, HW) as writer:
        for frame, time_s in zip(walking(4), times, strict=True):
            writer.write(frame, time_s)
    assert run("--video=in.mp4:out.mp4") == 0
    assert [frame.time_s for frame in VideoFile("out.mp4")] == pytest.approx(times, abs=1e-4)


def test_of_a_broken_file_what_could_be_read_is_kept(run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "whole.mp4", 10, HW) as writer:
        for _ in range(30):
            writer.write(rng.integers(0, 256, (*HW, 3), np.uint8))
    content = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "in.mp4").write_bytes(content[: len(content) // 2])
    assert run("--video=in.mp4:out.mp4") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    kept = len(list(VideoFile("out.mp4")))
    assert error.startswith("eval.py: error: in.mp4: broken") and "are written" in error
    assert 5 < kept < 30 and len(read_results("out.json")[0]["segmentations"]) == kept


def test_pictures_of_several_sizes_make_no_video_but_what_came_before_is_kept(run, frames, capsys):
    cv2.imwrite(str(frames / "11.png"), np.zeros((20, 20, 3), np.uint8))
    assert run("--video=frames:out.mp4") == 2
    assert "11.png: is 20×20" in capsys.readouterr().err
    assert len(list(VideoFile("out.mp4"))) == 4
    assert run("--images=frames:drawn") == 0
    assert read_picture("drawn/11.png").shape == (20, 20, 3)


# ------------------------------------------------------------------------------------------------ being stopped


def test_an_interrupted_video_is_kept_up_to_there(run, frames, monkeypatch, capsys):
    class Progress(own_video.EvalProgress):
        def update(self, frames=1):
            super().update(frames)
            if self._frames == 2:
                os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(own_video, "EvalProgress", Progress)
    before = signal.getsignal(signal.SIGINT)
    assert run("--video=frames:out.mp4") == 130
    assert "interrupted; the frames until then are written" in capsys.readouterr().err
    assert len(list(VideoFile("out.mp4"))) == 2 and read_results("out.json")
    assert sorted(os.listdir()) == ["frames", "out.json", "out.mp4", "out_video.json"]
    assert len(Content("out.json", frames).video(0)["frames"]) == 4  # the last two without objects
    assert signal.getsignal(signal.SIGINT) is before


def test_of_a_killed_run_the_results_are_kept(checkpoint, frames, tmp_path):
    for index, picture in enumerate(walking(60)):
        cv2.imwrite(str(frames / f"{20 + index}.png"), picture)
    arguments = (f"--trained_model={checkpoint}", "--set=input.size_hw=60,90", "--set=detection.top_k=12")
    process = start([ROOT / "eval.py", *arguments, "--device=cpu", f"--images={frames}:{tmp_path / 'out'}"])
    journal = tmp_path / "out.json.partial"
    try:
        wait_until(lambda: journal.exists() and journal.read_bytes().count(b"num_frames") > 3, process)
    finally:
        process.kill()
        process.communicate()
    assert frame_journal.main([str(journal)]) == 0 and not journal.exists()
    (length,) = {len(entry["segmentations"]) for entry in read_results(tmp_path / "out.json")}
    assert 4 <= length < 64


def wait_until(is_so, process, seconds=300):
    end = time.monotonic() + seconds
    while not is_so():
        assert process.poll() is None and time.monotonic() < end, process.communicate()
        time.sleep(0.01)


class Capture:
    """A camera that gives the same picture without end; at frame `stop_at` Ctrl+C is pressed."""

    stop_at: int | None = None
    is_released = False

    def __init__(self, number):
        self.number = number
        self.frames = 0

    def isOpened(self):  # noqa: N802
        return self.number == 0

    def read(self):
        self.frames += 1
        if self.frames == Capture.stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return True, walking(1)[0]

    def release(self):
        Capture.is_released = True


@pytest.fixture
def camera(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", Capture)
    monkeypatch.setattr(Capture, "stop_at", None)
    monkeypatch.setattr(Capture, "is_released", False)
    return Capture


def test_a_camera_runs_until_it_is_stopped(run, camera, monkeypatch, capsys):
    monkeypatch.setattr(LiveWindow, "can_open", lambda: False)
    camera.stop_at = 6
    assert run("--video=0:out.mp4", "--display_fps") == 0
    assert camera.is_released
    count = len(list(VideoFile("out.mp4")))
    printed = capsys.readouterr()
    assert 1 <= count <= 6 and f"{count} frames" in printed.out
    assert "no screen to show camera 0 on; press Ctrl+C to stop and write out.mp4" in printed.err
    assert run("--video=1") == 2
    assert "camera 1 cannot be opened" in capsys.readouterr().err


def test_a_missing_camera_is_one_line_without_the_noise_of_opencv(run, capfd):
    assert run("--video=97") == 2
    line = "eval.py: error: camera 97 cannot be opened: check that it is connected and not used by another program\n"
    assert capfd.readouterr().err == line


def test_a_camera_is_seen_in_a_window_until_q_is_pressed(run, camera, monkeypatch, capsys):
    shown = []

    def wait_key(_):
        return ord("q") if len(shown) == 3 else -1

    monkeypatch.setattr(LiveWindow, "can_open", lambda: True)
    monkeypatch.setattr(cv2, "namedWindow", lambda *_: None)
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture))
    monkeypatch.setattr(cv2, "waitKey", wait_key)
    monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: 1.0)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: shown.append(None))
    assert run("--video=0:out.mp4") == 0
    assert camera.is_released and "q in the window" in capsys.readouterr().err
    *pictures, closed = shown
    assert closed is None and len(pictures) == len(list(VideoFile("out.mp4"))) == 3
    written = next(iter(VideoFile("out.mp4"))).frame.astype(int)
    assert np.abs(written - pictures[0][..., ::-1]).mean() < np.abs(written - pictures[0]).mean() / 2  # BGR


def test_only_a_camera_has_a_window(run, frames, monkeypatch):
    monkeypatch.setattr(LiveWindow, "can_open", lambda: pytest.fail("asked for a screen"))
    assert run("--images=frames:out") == 0


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["--video=none.mp4:out.mp4"], "none.mp4: not a file"),
        (["--video=note.txt:out.mp4"], "note.txt: cannot be opened as a video"),
        (["--video=frames:out.avi"], "must end in .mp4"),
        (["--video=frames:frames/1.png/out.mp4"], "frames/1.png: cannot be made a folder"),
        (["--images=frames:note.txt/drawn"], "note.txt/drawn: cannot be made a folder"),
        (["--images=frames:note.txt", "--show=anchors"], "note.txt: cannot be made a folder"),
        (["--images=frames:frames"], "would replace the input"),
        (["--image=frames:out.png"], "is not one picture"),
        (["--images=frames:out", "--classes=hexagon"], "unknown class 'hexagon'"),
        (["--images=frames:out", "--classes=,"], "unknown class"),
        (["--images=frames:out", "--frame_rate=0"], "frame rate"),
        (["--images=frames:out", "--resume"], "--resume is for data sets"),
        (["--images=frames:out", "--split=train"], "--split is for data sets"),
        (["--images=frames:out", "--num_workers=0"], "--num_workers is for data sets"),
        *(
            (["--images=frames:out", "--show=anchors", f"--{option}"], "does nothing with --show")
            for option in ("save_csv", "save_mots", "save_details", "benchmark", "display_fps", "display_masks=False")
        ),
        (["--images=frames:out", "--scene_cut=2"], "must be in 0…1, not 2.0"),
        (["--images=frames:out", "--scene_cut=nan"], "must be in 0…1, not nan"),
        (["--images=frames:out", "--scene_cut=-1", "--show=anchors"], "must be in 0…1, not -1.0"),
        (["--scene_cut=0"], "--scene_cut is for your own video"),
        (["--display_trails"], "--display_trails is for your own video"),
        (["--images=frames:out", "--show_frame=3"], "--show_frame needs --show"),
        (["--images=frames:out", "--show=shift", "--show_frame=9"], "no frame 9"),
        (["--images=frames:out", "--show=shift", "--show_frame=0"], "known in the frame before"),
    ],
)
def test_bad_input_is_one_clear_line(run, frames, tmp_path, capsys, line, words):
    (tmp_path / "note.txt").write_text("no video")
    assert run(*line) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("eval.py: error: ") and words in error
    assert not [name for name in os.listdir() if name.startswith("out") or name.endswith(".partial")]


@pytest.mark.parametrize(
    ("line", "words"),
    [(["--images=frames:out", "--show=prototype"], "choose from prototypes, anchors"), (["--video="], "is empty")],
)
def test_option_values_are_refused_by_the_parser(run, frames, capsys, line, words):
    with pytest.raises(SystemExit) as stopped:
        run(*line)
    assert stopped.value.code == 2 and words in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the insides


def test_the_insides_of_a_frame_become_pictures(run, frames, capsys):
    assert run("--images=frames:out", f"--show={','.join(PICTURES)}") == 0
    printed = capsys.readouterr().out
    for name in PICTURES:
        assert f"frame 1: out/{name}.jpg" in printed
        picture = read_picture(f"out/{name}.jpg")
        assert picture.shape[1] == 1200 and picture.std() > 20
    assert sorted(os.listdir("out")) == sorted(f"{name}.jpg" for name in PICTURES)


def test_a_single_picture_has_insides_but_no_shift(run, frames, capsys):
    assert run("--image=frames/1.png:out", "--show=prototypes,anchors") == 0
    assert sorted(os.listdir("out")) == ["anchors.jpg", "prototypes.jpg"]
    assert run("--image=frames/1.png:out", "--show=shift") == 2
    assert "known in the frame before" in capsys.readouterr().err
