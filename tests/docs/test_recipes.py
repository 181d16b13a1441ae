"""The trainings of docs/recipes.md in order, on small sets and with a small network."""

import json
import math
from pathlib import Path

import pytest
import torch
import torchvision

import train as train_command
from data.config import DATASETS, get_config
from data.synthetic import generate
from stmask import STMask
from tests.docs.pages import ROOT, commands
from utils.checkpoint import save_state_dict
from ytvis.files import read_json

PAGE = "docs/recipes.md"
SMALL_NET = ("backbone.blocks=1,1,1,1", "head.channels=16", "temporal_fusion.channels=16,16,32")
SMALL = ("--device=cpu", "--num_workers=0", "--batch_size=2", "--max_iter=1", "--set=input.size_hw=64,96")
FOLDER = "--save_folder=results/recipes/"


def trainings():
    """The arguments of train.py for each of the page's commands that saves to results/recipes, in order."""
    found = [words[2:] for words in commands(PAGE) if words[1] == "train.py"]
    return [words for words in found if any(word.startswith(FOLDER) for word in words)]


def test_the_page_has_trainings():
    assert len(trainings()) >= 8


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder in which the commands run, with the sets and the weights that they name."""
    monkeypatch.chdir(tmp_path)
    root = generate(tmp_path / "data" / "mine", train_videos=2, valid_videos=1, workers=1)
    names = DATASETS["YTVIS2019"]["dataset.class_names"]
    for split in ("train", "valid"):
        path = root / "annotations" / f"{split}.json"
        content = read_json(path)
        content["categories"] = [{**one, "name": names[i]} for i, one in enumerate(content["categories"])]
        path.write_text(json.dumps(content))
        (root / f"{split}.json").symlink_to(path)
    Path("data/YouTube_VIS2019").symlink_to(root)
    write_images(Path("data/COCO2017"), read_json(root / "train.json"), root / "train" / "JPEGImages")
    Path("classes.json").write_text(json.dumps({"COCO2017": {"*": ""}}))
    Path("weights").mkdir()
    Path("weights/STMask_demo.pth").symlink_to(ROOT / "weights" / "STMask_demo.pth")
    torch.manual_seed(0)
    for name in ("resnet50", "base"):
        config = get_config(f"YOLACT_plus_{name}_config", [key for key in SMALL_NET if not key.startswith("temporal")])
        save_state_dict(STMask.from_config(config).state_dict(), Path(f"weights/yolact_plus_{name}_54_800000.pth"))
    save_state_dict(torchvision.models.resnet50().state_dict(), Path("weights/imagenet.pth"))
    return tmp_path


def write_images(root, content, pictures):
    """A set of one image in COCO's format at `root`, with COCO's classes: the first frame of the first video."""
    video = content["videos"][0]
    image = {"id": 1, "file_name": video["file_names"][0], "height": video["height"], "width": video["width"]}
    objects = [
        {"id": track["id"], "image_id": 1, "category_id": 1, "segmentation": track["segmentations"][0], "iscrowd": 0}
        | {"bbox": track["bboxes"][0], "area": track["areas"][0]}
        for track in content["annotations"]
        if track["video_id"] == video["id"] and track["segmentations"][0]
    ]
    names = DATASETS["COCO2017"]["dataset.class_names"]
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    (root / "annotations").mkdir(parents=True)
    (root / "train2017").symlink_to(pictures)
    whole = {"images": [image], "categories": categories, "annotations": objects}
    (root / "annotations" / "instances_train2017.json").write_text(json.dumps(whole))


@pytest.mark.slow
def test_every_training_of_the_page_runs(folder, capsys):
    for words in trainings():
        words = [word.replace("torchvision:resnet50", "weights/imagenet.pth") for word in words]
        words = [word for word in words if not word.startswith("--epochs=")]
        small = [*SMALL, *(f"--set={key}" for key in SMALL_NET if "STMask_demo_config" not in " ".join(words))]
        if "train.pretrained=weights/imagenet.pth" in words:  # whose backbone has to be the config's
            small.append("--set=backbone.blocks=3,4,6,3")
        if any("train.scales=" in word for word in words):
            small.append("--set=train.scales=64,96;96,128")
        assert train_command.main([*words, *small]) == 0, words
        printed = capsys.readouterr().err
        assert "start: 0 " not in printed, printed
        (target,) = [word.removeprefix("--save_folder=") for word in words if word.startswith(FOLDER)]
        (log,) = Path(target).glob("*_log.jsonl")
        records = [json.loads(line) for line in log.read_text().splitlines()]
        assert 0 < next(record["total"] for record in records if "total" in record) < math.inf
