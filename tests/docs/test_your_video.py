"""docs/your-video.md as its reader follows it: its commands, on a short video of shapes, with the demo's weights."""

import re
import shlex
from pathlib import Path

import pytest

import eval as command
from data.outputs import write_picture
from data.results import read_results
from data.synthetic import draw_video
from data.video import VideoFile, VideoWriter, read_picture
from utils.method_pictures import PICTURES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "your-video.md").read_text("utf-8")
LENGTH = 7


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which the commands run, with in.mp4, frames/, in.png and the demo's weights."""
    frames = draw_video(0, "valid", 3).frames[:LENGTH]
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    with VideoWriter(tmp_path / "in.mp4", 10, frames[0].shape[:2]) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame)
            write_picture(frame, tmp_path / "frames" / f"{index}.png")
    write_picture(frames[-1], tmp_path / "in.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_command_of_the_page_runs(folder):
    lines = "".join(blocks("sh")).splitlines()
    assert len(lines) == 7
    for line in lines:
        program, *arguments = shlex.split(line.removeprefix("python "))
        assert program == "eval.py" and command.main([*arguments, "--device=cpu"]) == 0, line
    assert len(list(VideoFile("out.mp4"))) == LENGTH and VideoFile("out.mp4").frame_rate == 10
    assert len(read_results("out.json")[0]["segmentations"]) == LENGTH
    there = {path.name for path in folder.iterdir()}
    assert there >= {"drawn", "drawn.json", "out.png", "out.csv", "out_mots", "insides"}
    assert {path.stem for path in (folder / "insides").iterdir()} == set(PICTURES)


def test_the_program_of_the_page_runs(folder, capsys):
    (program,) = blocks("python")
    exec(program, {})
    assert len(capsys.readouterr().out.splitlines()) == LENGTH


def test_every_option_of_the_page_is_one():
    known = set(vars(command.parse_arguments([])))
    named = {name for name in re.findall(r"--(\w+)", PAGE) if not name.endswith("_")}
    assert named <= known, named - known
    assert {"video", "images", "image", "classes", "scene_cut", "display_trails", "show"} <= named


def test_every_picture_of_the_page_is_there_and_small():
    pictures = re.findall(r"\(images/(.*?)\)", PAGE)
    assert {Path(name).stem for name in pictures} == {*PICTURES, "overlay"}
    for name in pictures:
        path = ROOT / "docs" / "images" / name
        assert read_picture(path).size and path.stat().st_size < 400_000
