"""tools/launches.py counts what a GPU would be asked to do, and a frame does not cost more than it should."""

import json

import pytest
import torch

from data.config import MODELS, get_config
from tools import launches
from tools.launches import CountedTransfers, HostTensors, OperatorCounter, count_frame, on_host, page_locked

SMALL = ["input.size_hw=64,96"]


def counts_of(work, *tensors):
    counter = OperatorCounter()
    with torch.inference_mode(), HostTensors(counter), counter:
        work(*tensors)
    return counter.counts


def waits_of(work, *tensors):
    return {kind: number for (_, _, kind), number in counts_of(work, *tensors).waits.items()}


VALUES = torch.tensor([1.0, 2.0, 3.0])
WAITING = {
    "read": lambda x: x.sum().item(),
    "nonzero": lambda x: x.nonzero(),
    "index by a mask": lambda x: x[x > 1],
    "tolist": lambda x: x.tolist(),
    "copy to the host": lambda x: x.to("cpu"),
    "upload": lambda x: torch.zeros(2).to(x.device),
    "upload by tensor": lambda x: torch.tensor([1, 2], device=x.device),
    "upload by new_tensor": lambda x: x.new_tensor([1, 2]),
}


@pytest.mark.parametrize("kind", WAITING)
def test_what_makes_the_host_wait_is_a_wait_at_its_place(kind):
    counts = counts_of(WAITING[kind], VALUES)
    ((stage, where, found), number) = next(iter(counts.waits.items()))
    assert (stage, found, number, len(counts.waits)) == (launches.OTHER, kind, 1, 1)
    assert where.startswith("tests/tools/test_launches.py:") and where.endswith("<lambda>")


def test_a_branch_on_a_value_of_the_device_waits():
    assert waits_of(lambda x: 1 if x.sum() > 1 else 2, VALUES) == {"read": 1}


def test_work_on_the_device_and_on_what_the_host_has_does_not_wait():
    assert waits_of(lambda x: x.topk(2).values[x.argmax()[None] % 2] * 2, VALUES) == {}

    def on_both_sides(x):
        host = x.to("cpu")
        return host[host > 1].tolist(), host.new_tensor([1.0]), torch.cat((host, host)).sum().item()

    assert waits_of(on_both_sides, VALUES) == {"copy to the host": 1}


def test_from_and_to_page_locked_memory_the_host_does_not_wait_for_a_copy():
    def copies(x):
        page_locked(torch.zeros(3)).to(x.device, non_blocking=True)
        page_locked(torch.zeros(3)).copy_(x, non_blocking=True)

    counts = counts_of(copies, VALUES)
    assert not counts.waits and sum(counts.kernels.values()) == sum(counts.launches.values()) == 2
    assert waits_of(lambda x: on_host(torch.zeros(3)).copy_(x, non_blocking=True), VALUES) == {"copy to the host": 1}


def test_the_host_waits_for_what_it_fetches_and_not_for_what_it_uploads():
    counter = OperatorCounter()
    transfers = CountedTransfers(counter)
    with torch.inference_mode(), HostTensors(counter), counter:
        batch = transfers.to_device([on_host(torch.full((2, 3), 7, dtype=torch.uint8))] * 2)
        arrived = transfers.to_host([batch * 2, batch.float()])
        assert not counter.counts.waits
        found = arrived()
    assert [tensor.unique().tolist() for tensor in found] == [[14], [7]]
    assert [kind for _, _, kind in counter.counts.waits] == ["arrival"]
    # The copies of both sides, the product, the conversion, and one for what is sent in one piece.
    assert sum(counter.counts.kernels.values()) == 5


def test_operators_kernels_and_launches_are_told_apart():
    counts = counts_of(lambda x: torch.relu(x.view(1, 3) + 1).sort(), VALUES)
    (numbers,) = counts.as_json()["stages"].values()
    assert numbers == {"operators": 4, "kernels": 3, "launches": 6, "waits": 0}  # view; add, relu, sort


def test_a_product_arrives_in_its_parts():
    counts = counts_of(lambda x: torch.nn.functional.linear(x, x.expand(2, 3)), torch.ones(4, 3)[0])
    assert counts.as_json()["total"]["kernels"] == 1


def networks():
    """The name of a config of every network and tracker in `MODELS`, whatever its data set, training and depth."""
    names = {}
    for name in MODELS:
        config = get_config(name, {"backbone.blocks": (1, 1, 1, 1)})
        keys = {
            key: value for key, value in config.flat().items() if not key.startswith(("name", "dataset.", "train."))
        }
        names.setdefault(str(keys), name)
    return list(names.values())


@pytest.mark.parametrize(
    "config, more",
    [
        *((name, []) for name in networks()),
        ("STMask_demo_config", ["tracking.max_track_age=60"]),
        ("STMask_demo_config", ["temporal_fusion.enabled=False", "detection.cross_class_nms=False"]),
        ("STMask_demo_config", ["head.calibration=ali", "head.square_kernels=True"]),
    ],
)
def test_the_host_waits_once_a_frame(config, more):
    """For what is reported; and twice more if it shares out objects (`tracking.joint`)."""
    config = get_config(config, [*launches.overrides(3), *SMALL, "backbone.blocks=1,1,1,1", *more])
    if config.head.mask_iou_net:  # it needs masks of 63×63 pixels
        config = get_config(config.name, {**config.flat(), "input.size_hw": (256, 256)})
    counts = count_frame(config).as_json()
    assert counts["stages"].keys() >= {
        "input",
        "backbone",
        "pyramid",
        "prototypes",
        "head",
        "detect",
        "match",
        "report",
    }
    assert ("temporal" in counts["stages"]) == config.temporal_fusion.enabled
    waits = {(wait["kind"], wait["where"].split(":")[0]): wait["number"] for wait in counts["waits"]}
    shared = {(kind, "layers/association.py"): 1 for kind in ("copy to the host", "upload")}
    assert waits == {("arrival", "inference/tracker.py"): 1} | (shared if config.tracking.joint else {})


def test_every_config_is_among_those_that_are_counted():
    assert {"STMask_demo_config", "STMask_base_config", "YOLACT_resnet50_config"} <= set(networks())
    assert 6 <= len(networks()) < len(MODELS)


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ("STMask_demo_config", ["train.ema_decay=0.9", "train.contrastive=True", "train.photometric=True"]),
        pytest.param("STMask_plus_resnet50_ada_config", [], marks=pytest.mark.slow),
    ],
)
def test_a_training_step_waits_for_losses_of_earlier_steps_alone(config, more):
    counts = launches.count_step(get_config(config, [*SMALL, *more]), "fp32", num_objects=2).as_json()
    assert counts["stages"].keys() >= {"backbone", "head", "temporal", "losses", "update"}
    (wait,) = counts["waits"]
    assert (wait["kind"], wait["number"]) == ("arrival", 1) and wait["where"].startswith("train.py")


def test_the_command_prints_and_writes_the_counts(tmp_path, capsys):
    path = tmp_path / "counts.json"
    arguments = ["--config=STMask_demo_config", "--set=input.size_hw=64,96", "--objects=2", f"--json={path}"]
    assert launches.main(arguments) == 0
    written = json.loads(path.read_text())
    assert written["objects"] == 2
    for name, total in written["total"].items():
        assert total == sum(stage[name] for stage in written["stages"].values())
    assert written["total"]["waits"] == sum(wait["number"] for wait in written["waits"])
    printed = capsys.readouterr().out
    assert f"{written['total']['launches']}" in printed and all(wait["where"] in printed for wait in written["waits"])
    assert launches.main(["--config=unknown_config"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
