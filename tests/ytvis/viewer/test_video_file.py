"""Results of one video beside its file: seven frames of 64×48 pixels, each brighter than the one before."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.ytvis.viewer.small_set import HEIGHT, WIDTH, encode, rectangle
from ytvis.files import InputError
from ytvis.viewer.content import Content
from ytvis.viewer.video_file import extract_frames

ROOT = Path(__file__).parents[3]
LENGTH = 7


@pytest.fixture
def clip(tmp_path) -> Path:
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (WIDTH, HEIGHT))
    for frame in range(LENGTH):
        writer.write(np.full((HEIGHT, WIDTH, 3), 30 * frame, np.uint8))
    writer.release()
    return path


@pytest.fixture
def results(tmp_path) -> Path:
    """A track over all frames of video 3."""
    masks = [encode(rectangle(0, 0, 5, 5))] * LENGTH
    track = {"video_id": 3, "category_id": 1, "score": 0.5, "segmentations": masks}
    (tmp_path / "found.json").write_text(json.dumps([track]), "utf-8")
    return tmp_path / "found.json"


def annotations(folder: Path, *video_ids: int) -> Path:
    """A file of videos without truth whose frames have other names than the clip's."""
    names = [f"clip/{frame}.png" for frame in range(LENGTH)]
    videos = [{"id": number, "width": WIDTH, "height": HEIGHT, "file_names": names} for number in video_ids]
    (folder / "ann.json").write_text(json.dumps({"videos": videos, "categories": [{"id": 1, "name": "cat"}]}), "utf-8")
    return folder / "ann.json"


def test_every_frame_becomes_a_picture(clip, tmp_path):
    (tmp_path / "frames").mkdir()
    assert extract_frames(clip, tmp_path / "frames")[1] == 10
    names = sorted(path.name for path in (tmp_path / "frames").iterdir())
    assert names == [f"00000{frame}.jpg" for frame in range(LENGTH)]
    means = [cv2.imread(str(tmp_path / "frames" / name)).mean() for name in names]
    assert means == pytest.approx([30 * frame for frame in range(LENGTH)], abs=4)


def test_the_page_shows_the_frames_of_a_file(clip, results):
    content = Content(results, clip)
    assert content.index()["videos"] == [{"id": 3, "name": "clip", "length": LENGTH, "tracks": 1}]
    video = content.video(0)
    assert (video["width"], video["height"]) == (WIDTH, HEIGHT)
    assert video["frames"] == [f"frames/0/{frame}.jpg" for frame in range(LENGTH)] and video["frame_rate"] == 10
    pictures = [content.frame_path(0, frame) for frame in range(LENGTH)]
    assert all(path.is_file() for path in pictures)
    del content
    assert not any(path.exists() for path in pictures)


def test_an_annotation_file_of_the_video_names_it_and_its_classes(clip, results, tmp_path):
    content = Content(results, clip, annotations(tmp_path, 3))
    assert content.index()["videos"][0]["name"] == "clip" and content.index()["categories"] == {"1": "cat"}
    assert content.video(0)["frames"] == [f"frames/0/{frame}.jpg" for frame in range(LENGTH)]
    with pytest.raises(InputError, match=r"ann\.json: holds 2 videos, .*clip\.mp4 is the file of one"):
        Content(results, clip, annotations(tmp_path, 3, 4))


def test_a_file_with_another_number_of_frames_is_refused(clip, results, tmp_path):
    tracks = json.loads(results.read_text("utf-8"))
    results.write_text(json.dumps([{**tracks[0], "segmentations": tracks[0]["segmentations"][:5]}]), "utf-8")
    with pytest.raises(InputError, match="found.json: entry 0"):
        Content(results, clip)
    ann_file = annotations(tmp_path, 3)
    content = json.loads(ann_file.read_text("utf-8"))
    content["videos"][0]["file_names"].pop()
    ann_file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(InputError, match=r"ann\.json: video 3 has 6 frames, .*clip\.mp4 7"):
        Content(results, clip, ann_file)


def test_a_file_beside_the_results_says_which_video_they_are_of(clip, results, tmp_path):
    annotations(tmp_path, 3).rename(tmp_path / "found_video.json")
    assert Content(results, clip).index()["categories"] == {"1": "cat"}

    def change(**changes):
        content = json.loads((tmp_path / "found_video.json").read_text("utf-8"))
        content["videos"][0].update(changes)
        (tmp_path / "found_video.json").write_text(json.dumps(content), "utf-8")

    change(frame_rate=12.5)
    assert Content(results, clip).video(0)["frame_rate"] == 12.5
    assert Content(results, clip, annotations(tmp_path, 3)).video(0)["frame_rate"] == 10  # the one that is named wins
    change(file_names=[f"clip/{frame}.png" for frame in range(5)])  # of a run that was interrupted
    (track,) = json.loads(results.read_text("utf-8"))
    results.write_text(json.dumps([{**track, "segmentations": track["segmentations"][:5]}]), "utf-8")
    video = Content(results, clip).video(0)
    assert len(video["frames"]) == 5 and all(video["frames"])
    change(file_names=[f"clip/{frame}.png" for frame in range(9)])
    with pytest.raises(InputError, match=r"found_video\.json: video 3 has 9 frames, and .*clip\.mp4 7"):
        Content(results, clip)


@pytest.mark.parametrize("content", [b"", b"{}", b"\0" * 5000, "half"])
def test_what_is_no_video_is_one_line(clip, results, content):
    """In a process of its own, because FFmpeg reads its log level only once."""
    clip.write_bytes(clip.read_bytes()[:300] if content == "half" else content)
    line = [sys.executable, "-m", "ytvis", "view", str(results), f"--images={clip}", "--no_browser"]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=60)
    message = f"{clip}: cannot be read as a video; name a video file, or a folder of frames"
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", f"ytvis view: error: {message}\n")


def test_an_interrupt_while_the_pictures_are_removed_prints_nothing(clip, results, monkeypatch, capsys):
    content, remove = Content(results, clip), shutil.rmtree

    def interrupted(path, **options):
        signal.raise_signal(signal.SIGINT)
        remove(path, **options)

    monkeypatch.setattr("shutil.rmtree", interrupted)
    root = content.image_root
    assert root.is_dir()
    del content
    assert not root.exists() and capsys.readouterr().err == ""
