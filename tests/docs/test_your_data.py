"""The commands of docs/your-data.md in order, on a small set with labels as LabelMe writes them."""

import json
import math
import shlex
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision

import eval as eval_command
import train as train_command
from data.config import get_config
from data.dataset import YTVISDataset
from data.synthetic import generate
from stmask import STMask
from tests.docs import pages
from tests.docs.pages import ROOT, blocks, lines
from utils.checkpoint import save_state_dict
from ytvis import browse
from ytvis.__main__ import main as ytvis_main
from ytvis.convert.command import FORMATS

PAGE = "docs/your-data.md"
COMMANDS = {
    "-m ytvis": ytvis_main,
    "train.py": train_command.main,
    "eval.py": eval_command.main,
}
HW = (48, 64)
# Starts of the page: (its name, how many tensors of its file are taken, the file). The published one has 405.
STARTS = (
    ("coco", "385 of the 403", "weights/yolact_plus_resnet50_54_800000.pth"),
    ("imagenet", "339 of the 339", "weights/resnet50-11ad3fa6.pth"),
)


def commands():
    """[(command, its arguments)] of the page's shell blocks, in order."""
    shown = [line.removeprefix("python ") for block in blocks(PAGE, "sh") for line in lines(block)]
    found = [(name, line) for line in shown for name in COMMANDS if line.startswith(f"{name} ")]
    assert len(found) == len(shown), "every line of a shell block must be a command that is tested"
    return [(name, shlex.split(line.removeprefix(name))) for name, line in found]


def shape(label, group_id, left, top, side):
    points = [[left, top], [left + side, top], [left + side, top + side], [left, top + side]]
    return {"label": label, "points": points, "group_id": group_id, "shape_type": "polygon", "flags": {}}


def draw_video(folder, length, step):
    """A red box that moves to the right past a blue one, and a green ball that is not there at first."""
    folder.mkdir(parents=True)
    for frame in range(length):
        picture = np.full((*HW, 3), 90, np.uint8)
        shapes = [shape("box", 1, 2 + step * frame, 4, 16), shape("box", 2, 40, 28, 14)]
        if frame:
            shapes.append(shape("ball", 1, 4, 28, 12))
        for item in shapes:
            (left, top), _, (right, bottom), _ = item["points"]
            colour = {("box", 1): (0, 0, 255), ("box", 2): (255, 0, 0)}.get(
                (item["label"], item["group_id"]), (0, 255, 0)
            )
            picture[top:bottom, left:right] = colour
        cv2.imwrite(str(folder / f"{frame:05d}.jpg"), picture)
        content = {"imagePath": f"{frame:05d}.jpg", "imageData": None, "imageHeight": HW[0], "imageWidth": HW[1]}
        (folder / f"{frame:05d}.json").write_text(json.dumps({**content, "shapes": shapes}))


@pytest.fixture
def labelled(tmp_path, monkeypatch):
    """The folder in which the commands run, with data/mine as the page draws it."""
    monkeypatch.chdir(tmp_path)
    for split, lengths in (("train", (4, 5)), ("valid", (3,))):
        for number, length in enumerate(lengths):
            draw_video(tmp_path / "data" / "mine" / split / "JPEGImages" / f"clip{number}", length, step=4 + number)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "STMask_demo.pth").symlink_to(ROOT / "weights" / "STMask_demo.pth")
    return tmp_path


def run(wanted, *more):
    """Runs the page's commands of the program `wanted`; the starts with little data have a test of their own."""
    for name, arguments in commands():
        if name == wanted and not any("weights/mine_" in word for word in arguments):
            assert COMMANDS[name]([*arguments, *more]) == 0, (name, arguments)


def test_the_page_runs_from_labels_to_a_checked_and_drawn_set(labelled, capsys):
    run("-m ytvis")
    printed = capsys.readouterr().out
    assert printed.count("nothing is wrong") == 2
    assert "2 videos, 9 frames, 6 tracks, 25 masks\ntracks of 2 classes: ball 2, box 4\n" in printed
    sheet = cv2.imread("results/mine/train.png")
    assert sheet is not None and sheet.shape[1] > 4 * browse.TILE_WIDTH
    dataset = YTVISDataset("data/mine/train.json", "data/mine/train/JPEGImages", ("ball", "box"))
    truth = dataset.frame_annotations(1, 1)
    assert sorted(truth.labels.tolist()) == [1, 2, 2]
    frame = cv2.imread("data/mine/train/JPEGImages/" + dataset.videos[0].file_names[1])
    for label, mask in zip(truth.labels.tolist(), truth.masks.numpy(), strict=True):
        mask = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        blue, green, red = frame[mask].mean(axis=0)
        assert (green > 200) == (label == 1) and (max(red, blue) > 200) == (label == 2)


@pytest.mark.slow
def test_the_page_runs_from_labels_to_a_trained_and_scored_model(labelled, capsys):
    run("-m ytvis")
    small = ("--device=cpu", "--num_workers=0", "--set", "input.size_hw=64,96")
    run("train.py", "--max_iter=2", *small)
    run("eval.py", *small)
    printed = capsys.readouterr().out
    assert "AP50" in printed and "1 videos, 3 frames" in printed
    assert isinstance(json.loads(Path("results/mine/results.json").read_text()), list)
    assert "<html" in Path("results/mine/report/report.html").read_text()


@pytest.fixture
def pencil(tmp_path, monkeypatch):
    """The folder in which the commands run, with data/mine drawn in another style than the demo's weights know."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "STMask_demo.pth").symlink_to(ROOT / "weights" / "STMask_demo.pth")
    return partial(generate, tmp_path / "data" / "mine", workers=1, style="pencil", seed=7)


def start_command(name):
    """The arguments of the page's command that saves to weights/mine_`name`, less its length."""
    (command,) = [words[2:] for words in pages.commands(PAGE) if f"--save_folder=weights/mine_{name}" in words]
    return [word for word in command if not word.startswith("--epochs=")]


def last_record(folder):
    (log,) = Path(folder).glob("*_log.jsonl")
    return json.loads(log.read_text().splitlines()[-1])


@pytest.mark.slow
def test_the_demos_weights_learn_another_style_in_minutes(pencil):
    pencil(train_videos=16, valid_videos=10)
    small = ("--device=cpu", "--num_workers=0", "--set=input.size_hw=128,224", "--validation_epoch=1000")
    scores = []
    for folder, length in (("before", ("--max_iter=1", "--lr=0")), ("after", ("--max_iter=30",))):
        assert train_command.main([*start_command("demo"), *small, *length, f"--save_folder={folder}"]) == 0
        scores.append(last_record(folder)["validation"]["AP"])
    assert scores[1] > scores[0] + 0.03 > 0.03, scores


@pytest.mark.slow
@pytest.mark.parametrize(("name", "taken", "file"), STARTS)
def test_a_start_from_published_weights_trains(pencil, capsys, name, taken, file):
    """The files cannot be had here: others of their names and shapes show that the way is open."""
    pencil(train_videos=1, valid_videos=1)
    torch.manual_seed(0)
    if name == "coco":
        state = STMask.from_config(get_config("YOLACT_plus_resnet50_config")).state_dict()
    else:
        state = torchvision.models.resnet50().state_dict()
    save_state_dict(state, Path(file))
    small = ("--device=cpu", "--num_workers=0", "--set=input.size_hw=64,96", "--max_iter=1", "--batch_size=2")
    assert train_command.main([*start_command(name), *small, f"--set=train.pretrained={file}"]) == 0
    assert f"start: {taken} tensors of {file} taken" in capsys.readouterr().err
    assert 0 < last_record(f"weights/mine_{name}")["total"] < math.inf


def test_the_page_names_every_format():
    text = (ROOT / PAGE).read_text("utf-8")
    assert all(f"| `{name}` |" in text for name in FORMATS if name != "ytvis")
