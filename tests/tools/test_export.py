"""tools/export.py: other runtimes compute what torch does."""

import json

import numpy as np
import pytest
import torch

from data.config import get_config
from stmask import STMask
from tools import export as command
from tools.parity import RECORDED
from utils.structures import FusionFeatures
from ytvis.files import InputError

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    keys = {"backbone.blocks": (1, 1, 1, 1), "backbone.dcn_interval": 1, "head.channels": 32}
    return STMask(get_config(f"{RECORDED[1]}_config", keys)).eval()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder of `model` as ONNX, and the content of model.json as `export` returns it."""
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("exported")
    return folder, command.export(model, folder, SIZE, dynamic_batch=True)


def near(found, expected):
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("batch", [1, 3])
def test_the_onnx_network_takes_batches_and_gives_the_predictions(model, exported, batch):
    images = torch.randn(batch, 3, *SIZE)
    found = command.run_onnx(exported[0] / "network.onnx", {"images": images.numpy()})
    with torch.no_grad():
        predictions = model(images)
    names = list(exported[1]["files"]["network.onnx"]["outputs"])
    expected = vars(predictions) | vars(predictions.fusion_features)
    assert {"box_deltas", "centerness", "embeddings", "anchors", "pyramid", "shared"} <= set(names)
    for name, values in zip(names, found, strict=True):
        near(values, expected[name])


@pytest.mark.parametrize("objects", [1, 5])
def test_the_onnx_temporal_net_takes_any_number_of_objects(model, exported, objects):
    last, current = (FusionFeatures(*torch.rand(2, 1, 32, SIZE[0] // 16, SIZE[1] // 16)) for _ in range(2))
    boxes = torch.rand(objects, 4)
    inputs = {"last_pyramid": last.pyramid, "last_shared": last.shared, **vars(current), "boxes": boxes}
    found = command.run_onnx(exported[0] / "temporal.onnx", {name: tensor.numpy() for name, tensor in inputs.items()})
    with torch.no_grad():
        expected = command.ExportedTemporalNet(model)(*inputs.values())
    assert found[0].shape == (objects, 4)
    for ours, theirs in zip(found, expected, strict=True):
        near(ours, theirs)


def test_model_json_tells_all_that_a_program_needs(model, exported):
    folder, returned = exported
    written = json.loads((folder / "model.json").read_text())
    assert written == json.loads(json.dumps(returned))
    assert written["class_names"] == list(model.config.dataset.class_names)
    assert written["input"]["padded_hw"] == list(SIZE)
    assert written["detector"]["conf_threshold"] == model.config.detection.conf_threshold
    network, temporal = (written["files"][f"{name}.onnx"] for name in ("network", "temporal"))
    assert network["inputs"] == {"images": {"shape": ["batch", 3, *SIZE], "dtype": "float32"}}
    assert network["outputs"]["box_deltas"]["shape"][::2] == ["batch", 4]
    assert network["outputs"]["anchors"]["shape"] == [network["outputs"]["box_deltas"]["shape"][1], 4]
    assert temporal["inputs"]["boxes"]["shape"] == ["objects", 4]
    assert temporal["inputs"]["last_pyramid"]["shape"][0] == 1
    assert max(network["errors"].values()) < 1e-4
    tracker = written["files"]["tracker.onnx"]
    assert tracker["inputs"]["known_boxes"]["shape"] == ["objects", 4] and tracker["inputs"]["next_id"]["shape"] == []
    rows = f"objects + {model.config.detection.top_k}"
    assert tracker["outputs"]["new_known_boxes"]["shape"] == tracker["outputs"]["reported_boxes"]["shape"] == [rows, 4]
    assert max(tracker["errors"].values()) < 1e-4
    assert network["bytes"] == (folder / "network.onnx").stat().st_size


def test_a_network_without_embeddings_and_fusion_has_fewer_outputs(tmp_path, caplog):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    keys = {"input.size_hw": (276, 276), "backbone.blocks": (1, 1, 1, 1), "head.channels": 32}
    described = command.export(STMask(get_config("YOLACT_plus_resnet50_config", keys)).eval(), tmp_path, (276, 276))
    assert list(described["files"]) == ["network.onnx", "mask_ious.onnx"]
    assert "the tracker is not exported: with tracking.joint" in caplog.text
    outputs = described["files"]["network.onnx"]["outputs"]
    assert not {"centerness", "embeddings", "pyramid"} & set(outputs)
    assert max(error for entry in described["files"].values() for error in entry["errors"].values()) < 1e-4


def test_torch_loads_what_was_exported_for_it(model, tmp_path):
    described = command.export(model, tmp_path, SIZE, "torch")
    assert max(error for entry in described["files"].values() for error in entry["errors"].values()) < 1e-6
    program = torch.export.load(tmp_path / "temporal.pt2").module()
    features = torch.rand(4, 1, 32, SIZE[0] // 16, SIZE[1] // 16)
    assert program(*features, torch.rand(7, 4))[0].shape == (7, 4)


def test_openvino_computes_the_same(model, tmp_path):
    pytest.importorskip("openvino")
    described = command.export(model, tmp_path, SIZE, "openvino")
    assert list(described["files"]) == ["network.xml", "temporal.xml", "tracker.xml"]
    assert max(error for entry in described["files"].values() for error in entry["errors"].values()) < 1e-3


def test_the_command_prints_each_file(tmp_path, capsys):
    weights = "weights/STMask_demo.pth"
    arguments = [weights, "--output", str(tmp_path), "--format", "torch", "--size", "64", "96"]
    assert command.main(arguments) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [
        str(tmp_path / f"{name}.pt2") for name in ("network", "temporal", "tracker")
    ]
    assert all("MiB, largest relative error" in line for line in printed)


def test_the_size_of_resized_frames_is_the_config_s_or_the_given_one(model):
    height, width = model.config.input.size_hw
    padded = (-(-height // 32) * 32, -(-width // 32) * 32)
    assert command.describe_model(model, padded)["input"]["size_hw"] == [height, width]
    assert command.describe_model(model, SIZE)["input"]["size_hw"] == list(SIZE)


def test_errors_are_relative_and_equal_infinities_are_none():
    theirs = np.array([1.0, -np.inf, -4.0])
    assert command.largest_error(np.array([1.5, -np.inf, -4.0]), theirs) == 0.125
    assert command.largest_error(np.array([1.0, 0.0, -4.0]), theirs) == np.inf
    assert command.largest_error(np.zeros((0, 4)), np.zeros((0, 4))) == 0


def test_a_size_that_does_not_fit_is_refused(tmp_path, capsys):
    assert command.main(["weights/STMask_demo.pth", "--output", str(tmp_path), "--size", "64", "100"]) == 2
    assert "multiples of 32" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_the_library_one_line_says_which(model, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(InputError, match="onnxscript is not installed: pip install onnxscript"):
        command.export(model, tmp_path, SIZE)
