"""train.py on videos and images together: first lines, validation, exact resume, records, two processes as one."""

import json
from pathlib import Path

import pytest
import torch

import train as command
from data.config import DATASETS
from data.synthetic import generate
from tests import processes
from utils.checkpoint import load_state_dict
from utils.checkpoint_record import read_record

ROOT = Path(__file__).parent.parent
DEMO = "STMask_demo_config"
SHAPES = DATASETS["ShapesVIS"]["dataset.class_names"]
ALL = ("--accumulate=2", "--set=train.clip_frames=3", "--set=train.scales=64,96;96,128", "--set=train.ema_decay=0.3")
ALL += ("--set=train.contrastive=true", "--set=train.max_frame_distance=4")
PLAIN = ("--set=train.optimizer=sgd", "--set=train.freeze_batch_norm=true", "--set=train.warmup_iterations=0")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """ShapesVIS, and its first video as images.json in COCO's format, where some classes have other names."""
    root = generate(tmp_path_factory.mktemp("data") / "ShapesVIS", train_videos=2, valid_videos=1, workers=1)
    content = json.loads((root / "annotations" / "train.json").read_text())
    video = content["videos"][0]
    size = {"width": video["width"], "height": video["height"]}
    names = video["file_names"][:6]
    tracks = [track for track in content["annotations"] if track["video_id"] == video["id"]]
    shown = [(track, i) for track in tracks for i in range(len(names)) if track["segmentations"][i]]
    annotations = [
        {"id": number, "image_id": i, "category_id": track["category_id"], "segmentation": track["segmentations"][i]}
        | {"bbox": track["bboxes"][i], "area": track["areas"][i], "iscrowd": 0}
        for number, (track, i) in enumerate(shown, start=1)
    ]
    kept = {track["category_id"] for track in tracks}
    categories = [entry | {"name": f"{entry['name']}s"} for entry in content["categories"] if entry["id"] in kept]
    categories[0]["name"] = categories[0]["name"][:-1].upper()  # one class has its name
    images = [{"id": i, "file_name": name, **size} for i, name in enumerate(names)]
    joined = {"images": images, "categories": categories, "annotations": annotations}
    (root / "images.json").write_text(json.dumps(joined))
    return root


def sets_of(data):
    return f"ShapesVIS@{data}:3,{data}/images.json@{data}/train/JPEGImages"


def arguments(data, folder, *more):
    line = (f"--config={DEMO}", "--batch_size=2", "--max_iter=6", "--set=input.size_hw=64,96", "--num_workers=0")
    return [*line, f"--save_folder={folder}", "--device=cpu", f"--train_dataset={sets_of(data)}", *more]


def weights(folder, iteration):
    (path,) = folder.glob(f"*_{iteration}.pth")
    return load_state_dict(path)


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert command.main(arguments(data, folder, "--save_interval=3")) == 0
    return folder


def test_the_first_lines_state_the_shares_and_the_first_set_is_scored(data, tmp_path, capsys):
    assert command.main(arguments(data, tmp_path, "--max_iter=1", "--validation_epoch=1")) == 0
    lines = capsys.readouterr().err.splitlines()
    (first,) = [line for line in lines if "ShapesVIS: 75.0 % of the samples" in line]
    (second,) = [line for line in lines if "images.json: 25.0 % of the samples" in line]
    content = json.loads((data / "images.json").read_text())
    own, total = len(content["categories"]), len(content["categories"]) + 7
    assert f"; 8 of the {total} classes" in first
    assert f"epochs of its 6 key frames; {own} of the {total} classes, also of the sets before it: " in second
    assert lines.index(first) < lines.index(second) < next(i for i, line in enumerate(lines) if "reading data" in line)
    last = json.loads((tmp_path / "STMask_demo_log.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["validation"]["AP"] <= 1


def test_a_run_on_two_sets_resumes_exactly_and_its_file_knows_the_classes(data, straight, tmp_path):
    (halfway,) = straight.glob("*_3.pth")
    for file in (halfway, halfway.with_suffix(".state")):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    assert command.main([f"--resume={tmp_path / halfway.name}"]) == 0
    ours, theirs = weights(tmp_path, 6), weights(straight, 6)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []
    record = read_record(halfway)
    assert record.class_names[:8] == SHAPES and len(record.class_names) > 8
    assert record.category_ids[8:] == (None,) * (len(record.class_names) - 8)
    assert record.training["train_dataset"] == "ShapesVIS@ShapesVIS:3,images.json@JPEGImages"


def test_a_run_with_all_keys_on_resumes_exactly(data, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert command.main(arguments(data, first, *ALL, "--max_iter=2", "--save_interval=1")) == 0
    second.mkdir()
    for suffix in ("pth", "state"):
        (path,) = first.glob(f"*_1.{suffix}")
        (second / path.name).write_bytes(path.read_bytes())
    assert command.main([f"--resume={second}/latest"]) == 0
    ours, theirs = weights(second, 2), weights(first, 2)
    assert [name for name in theirs if not torch.equal(ours[name], theirs[name])] == []


def test_resuming_with_other_sets_is_refused_if_their_classes_differ(data, straight, capsys):
    (halfway,) = straight.glob("*_3.pth")
    assert command.main([f"--resume={halfway}", f"--train_dataset=ShapesVIS@{data}"]) == 2
    assert "was trained with the classes" in capsys.readouterr().err


def test_crops_of_two_sets_are_learnt_from(data, tmp_path):
    assert command.main(arguments(data, tmp_path, "--task=crops", "--max_iter=1")) == 0
    record = json.loads((tmp_path / "STMask_demo_log.jsonl").read_text().splitlines()[-1])
    assert {"C3", "C4", "C5"} <= record.keys()


@pytest.mark.slow
@pytest.mark.parametrize("more", [("--accumulate=2",), ALL], ids=["plain", "all"])
def test_two_processes_train_on_two_sets_as_one(data, tmp_path, more):
    line = [*PLAIN, *more, "--max_iter=3"]
    run = processes.torchrun([ROOT / "train.py", *arguments(data, tmp_path / "two", *line)])
    assert run.returncode == 0, run.stderr
    assert run.stderr.count("% of the samples") == 2  # of the main process alone
    assert command.main(arguments(data, tmp_path / "one", *line)) == 0
    one, two = (weights(tmp_path / name, 3) for name in ("one", "two"))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=name)
