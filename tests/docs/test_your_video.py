"""The commands of docs/your-video.md, on a short video of shapes, with the demo's weights."""

import re
from pathlib import Path

import pytest

import eval as command
from data.synthetic import draw_video
from data.video import VideoFile, VideoWriter
from inference import frame_journal, own_video
from inference.frame_journal import FrameJournal
from inference.internals_pictures import PICTURES
from inference.output_files import write_picture
from tests.docs.pages import ROOT, blocks, commands
from tests.reading import read_results
from ytvis.__main__ import main as ytvis_main
from ytvis.pictures import read_picture

PAGE = (ROOT / "docs" / "your-video.md").read_text("utf-8")
LENGTH = 7
OWN = ("--video=", "--images=", "--image=")


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


def test_every_command_of_the_page_runs_and_those_of_the_readme(folder):
    # The weights of YOLACT are elsewhere; tests/test_yolact.py runs such a network.
    of_readme, of_page = (
        [words for words in commands(page) if not any("yolact" in word for word in words)]
        for page in ("README.md", "docs/your-video.md")
    )
    looks = [words for words in of_readme if words[3:5] == ["view", "out.json"]]
    of_readme = [words for words in of_readme if any(word.startswith(OWN) for word in words)]
    assert len(of_readme) == 2 and len(of_page) == 8 and len(looks) == 1
    for _, program, *arguments in of_readme + of_page:
        if program == "eval.py":
            assert command.main([*arguments, "--device=cpu"]) == 0, arguments
        else:
            assert (program, arguments[0]) == ("-m", "inference.frame_journal")
            FrameJournal.create(folder / arguments[1], {"rows_of": "in.mp4"})
            assert frame_journal.main(arguments[1:]) == 0
    assert ytvis_main([*looks[0][3:], "--export=page"]) == 0
    assert '"frame_rate":10' in (folder / "page" / "data" / "video-0.js").read_text()
    assert len(list(VideoFile("out.mp4"))) == LENGTH and VideoFile("out.mp4").frame_rate == 10
    assert len(read_results("out.json")[0]["segmentations"]) == LENGTH
    there = {path.name for path in folder.iterdir()}
    assert there >= {"drawn", "drawn.json", "out.png", "out.csv", "out_mots", "insides"}
    assert {path.stem for path in (folder / "insides").iterdir()} == set(PICTURES)


def test_the_program_of_the_page_runs(folder, capsys):
    (program,) = blocks("docs/your-video.md", "python")
    exec(program, {})
    assert len(capsys.readouterr().out.splitlines()) == LENGTH


def test_every_option_of_the_page_is_one():
    known = set(vars(own_video.make_parser().parse_args(["--video=0"]))) | set(
        vars(command.make_parser().parse_args([]))
    )
    named = {name for name in re.findall(r"--(\w+)", PAGE) if not name.endswith("_")}
    assert named <= known, named - known
    assert {"video", "images", "image", "classes", "scene_cut", "display_trails", "show"} <= named


def test_every_picture_of_the_page_is_there_and_small():
    pictures = re.findall(r"\(images/(.*?)\)", PAGE)
    assert {Path(name).stem for name in pictures} == {*PICTURES, "overlay"}
    for name in pictures:
        path = ROOT / "docs" / "images" / name
        assert read_picture(path).size and path.stat().st_size < 400_000
