"""eval.py on a set of images: COCO's results, which pycocotools scores."""

import json

import cv2
import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

import eval as command
from data.config import get_config
from stmask import STMask
from utils.checkpoint import save_state_dict
from ytvis.annotations import Track, read_annotations
from ytvis.check_results import examine_results
from ytvis.masks import mask_area, to_rle
from ytvis.results import as_image_entry, write_results
from ytvis.score.ap import evaluate_results

HW = (48, 64)
SMALL = {
    **{"backbone.blocks": (1, 1, 1, 1), "backbone.stem_channels": 8, "head.channels": 16, "head.num_prototypes": 4},
    "input.size_hw": (256, 256),
}
CATEGORIES = {90: "toothbrush", 1: "person", 18: "dog"}  # COCO's ids
# image id → (category id, left, top, right, bottom) of each object
OBJECTS = {
    139: [(18, 4, 4, 30, 30), (1, 40, 8, 60, 40)],
    7: [(18, 10, 20, 50, 44)],
    581: [(18, 0, 0, 64, 48), (90, 2, 2, 20, 12)],
    8: [],
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The folder of a drawn set of images, which has instances.json."""
    root = tmp_path_factory.mktemp("images")
    annotations = []
    for image_id, objects in OBJECTS.items():
        picture = np.full((*HW, 3), 60, np.uint8)
        for category_id, left, top, right, bottom in objects:
            picture[top:bottom, left:right] = (2 * category_id, 255 - category_id, 90)
            polygon = [left, top, right, top, right, bottom, left, bottom]
            box = [left, top, right - left, bottom - top]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image_id, "category_id": category_id, "iscrowd": 0}
                | {"segmentation": [polygon], "bbox": box, "area": box[2] * box[3]}
            )
        cv2.imwrite(str(root / f"{image_id:012}.png"), picture)
    entries = [{"id": i, "height": HW[0], "width": HW[1], "file_name": f"{i:012}.png"} for i in OBJECTS]
    categories = [{"id": category_id, "name": name} for category_id, name in CATEGORIES.items()]
    content = {"images": entries, "categories": categories, "annotations": annotations}
    (root / "instances.json").write_text(json.dumps(content))
    return root


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A small YOLACT++ with random weights that takes everything for a dog and fills its boxes."""
    torch.manual_seed(0)
    config = get_config("YOLACT_plus_resnet50_config", SMALL)
    model = STMask.from_config(config)
    head, dog = model.prediction_layers[0], config.dataset.class_names.index("dog") + 1
    with torch.no_grad():
        head.conf_layer.bias.view(-1, config.num_classes + 1)[:, [0, dog]] = torch.tensor([4.0, 5.0])
        head.mask_layer.bias.fill_(2.0)
        model.proto_net[-1].bias.fill_(1.0)
        model.maskiou_net.maskiou_net[-2].bias.fill_(0.8)
    path = tmp_path_factory.mktemp("weights") / "yolact_plus_resnet50_1_10.pth"
    save_state_dict(model.state_dict(), path)
    return path


def official(images, results, kind="segm"):
    """The statistics of pycocotools."""
    truth = COCO(str(images / "instances.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(results)), kind)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats


def test_a_detector_of_coco_s_classes_writes_coco_s_results(images, checkpoint, tmp_path, capsys):
    out = tmp_path / "results.json"
    settings = (f"--set={key}={','.join(map(str, value)) if isinstance(value, tuple) else value}" for key, value in
                SMALL.items())  # fmt: skip
    files = (f"--ann_file={images / 'instances.json'}", f"--image_root={images}", f"--mask_det_file={out}")
    arguments = [f"--trained_model={checkpoint}", *files, "--device=cpu", "--num_workers=0", *settings]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out
    results = json.loads(out.read_text())
    assert {entry["image_id"] for entry in results} == set(OBJECTS)
    for entry in results:
        assert entry.keys() == {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert entry["category_id"] == 18  # by its name, whatever the order of the file
        assert 0.05 < entry["score"] <= 1 and entry["segmentation"]["size"] == list(HW)
        assert len(entry["bbox"]) == 4 and min(entry["bbox"][2:]) > 0
    assert all(fault.severity == "warning" for fault in examine_results(images / "instances.json", out))
    assert command.main(["--only_calc_metrics", *files]) == 0
    assert capsys.readouterr().out.splitlines()[-1] in printed
    truth = json.loads((images / "instances.json").read_text())  # some of what was found
    keys = ("image_id", "category_id", "segmentation", "bbox")
    found = [{key: entry[key] for key in keys} for entry in results if entry["bbox"][2] > 9][::9]
    truth["annotations"] = [
        {**entry, "id": number, "area": int(mask_area(entry["segmentation"])), "iscrowd": 0}
        for number, entry in enumerate(found, start=1)
    ]
    (tmp_path / "instances.json").write_text(json.dumps(truth))
    ours, theirs = evaluate_results(tmp_path / "instances.json", out).stats, official(tmp_path, out)
    assert 0.01 < theirs[0] < 1 and theirs[8] > 0.1
    assert ours[[0, 1, 2, 8]] == pytest.approx(theirs[[0, 1, 2, 8]], abs=1e-9)  # AP, AP50, AP75, AR100
    assert official(tmp_path, out, "bbox")[8] > 0.1


def test_perfect_results_score_one(images, tmp_path):
    annotations = read_annotations(images / "instances.json")
    tracks = [
        Track(track.video_id, track.category_id, (to_rle(track.segmentations[0], *HW),), score=0.5)
        for track in annotations.tracks
    ]
    out = tmp_path / "results.json"
    write_results(map(as_image_entry, tracks), out)
    assert [entry["bbox"] for entry in json.loads(out.read_text())] == [
        [left, top, right - left, bottom - top]
        for objects in OBJECTS.values()
        for _, left, top, right, bottom in objects
    ]
    assert official(images, out)[[0, 8]].tolist() == official(images, out, "bbox")[[0, 8]].tolist() == [1, 1]
    assert evaluate_results(images / "instances.json", out).stats[0] == 1


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"segmentation": None}, None),
        ({"image_id": 5}, "entry 0: unknown video"),
        ({"image_id": ...}, "entry 0: 'video_id' is missing"),
        ({"segmentation": ...}, "'segmentations' is missing"),
        ({"segmentation": {"size": [4, 4], "counts": "no"}}, "segmentation cannot be read"),
    ],
)
def test_coco_s_results_are_checked_as_others_are(images, tmp_path, changes, message):
    entry = {"image_id": 7, "category_id": 18, "bbox": [0, 0, 1, 1], "score": 0.5}
    entry["segmentation"] = to_rle([[0, 0, 9, 0, 9, 9, 0, 9]], *HW)
    entry = {key: value for key, value in {**entry, **changes}.items() if value is not ...}
    out = tmp_path / "results.json"
    out.write_text(json.dumps([entry]))
    found = [str(fault) for fault in examine_results(images / "instances.json", out) if "no track" not in str(fault)]
    if message:
        assert any(message in fault for fault in found), found
    else:
        assert not any("refused" in fault for fault in found)
