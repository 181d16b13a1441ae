"""tools/launches.py counts what a GPU would be asked to do, and a frame does not cost more than it should."""

import json

import pytest
import torch

from data.config import get_config
from tools import launches
from tools.launches import HostTensors, OperatorCounter, count_frame, on_host

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
    "upload": lambda x: on_host(torch.zeros(2)).to(x.device),
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


def test_operators_kernels_and_launches_are_told_apart():
    counts = counts_of(lambda x: torch.relu(x.view(1, 3) + 1).sort(), VALUES)
    (numbers,) = counts.as_json()["stages"].values()
    assert numbers == {"operators": 4, "kernels": 3, "launches": 6, "waits": 0}  # view; add, relu, sort


def test_a_product_arrives_in_its_parts():
    counts = counts_of(lambda x: torch.nn.functional.linear(x, x.expand(2, 3)), torch.ones(4, 3)[0])
    assert counts.as_json()["total"]["kernels"] == 1


@pytest.mark.parametrize(
    "config, more",
    [
        ("STMask_demo_config", ["tracking.max_track_age=60"]),
        ("STMask_demo_config", ["temporal_fusion.enabled=False", "detection.cross_class_nms=False"]),
        ("STMask_plus_resnet50_ada_config", []),
    ],
)
def test_a_frame_does_not_cost_more(config, more):
    counts = count_frame(get_config(config, [*launches.overrides(3), *SMALL, *more])).as_json()
    assert counts["stages"].keys() >= {"backbone", "pyramid", "prototypes", "head", "detect", "match", "report"}
    assert ("temporal" in counts["stages"]) == ("temporal_fusion.enabled=False" not in more)
    # The host waits for what is reported, and a frame is copied from memory that is not page-locked.
    waits = {(wait["kind"], wait["where"].split(":")[0]): wait["number"] for wait in counts["waits"]}
    assert waits == {("copy to the host", "inference/tracker.py"): 1, ("upload", "inference/videos.py"): 1}


@pytest.mark.parametrize(
    ("config", "more"),
    [
        ("STMask_demo_config", ["train.ema_decay=0.9", "train.contrastive=True"]),
        pytest.param("STMask_plus_resnet50_ada_config", [], marks=pytest.mark.slow),
    ],
)
def test_a_training_step_waits_for_losses_of_earlier_steps_alone(config, more):
    counts = launches.count_step(get_config(config, [*SMALL, *more]), "fp32", num_objects=2).as_json()
    assert counts["stages"].keys() >= {"backbone", "head", "temporal", "losses", "update"}
    (wait,) = counts["waits"]
    assert (wait["kind"], wait["number"]) == ("tolist", 1) and wait["where"].startswith("train.py")


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
