"""Our numbers equal the published network's; tools/parity.py describes what is compared and prints the table.

In the recorded clips no two detections tie within tolerance, so orders, ids and labels must be the recorded ones.
"""

import json

import pytest
import torch

from tools.parity import (
    RECORDED,
    REFERENCE,
    RUNS,
    Comparison,
    compare_forward,
    compare_results,
    compare_tracking,
    compare_training,
    load_model,
)

DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)

# Relative to the largest recorded value; five times what a float32 run differs from a float64 run of the original.
FORWARD_TOLERANCE = {"priors": 1e-7, "conf_softmax_every4": 2e-4}
TRACKING_TOLERANCE = {  # absolute
    "box": 1e-5,
    "nms_box": 1e-5,
    "score": 2e-4,
    "nms_score": 2e-4,
    "post_score": 2e-4,
    "centerness": 2e-4,
    "mask_coeff": 2e-4,
    "mask_mean": 1e-4,
    "post_box": 1.0,
}


def test_a_comparison_sees_a_difference():
    comparison = Comparison()
    comparison.add([1.0, 4.0], [1.0, 5.0])
    assert (comparison.absolute, comparison.relative) == (1.0, 0.2)
    with pytest.raises(AssertionError):
        comparison.add([1.0], [1.0, 2.0])


@pytest.mark.parametrize("name", RECORDED)
def test_state_dict_has_the_published_names_shapes_and_order(name):
    recorded = json.loads((REFERENCE / name / f"keys_{name}_config.json").read_text())
    ours = {key: list(value.shape) for key, value in load_model(name).state_dict().items()}
    assert list(ours.items()) == list(recorded.items())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", RECORDED)
def test_network_stage_by_stage(name, device):
    differences = compare_forward(name, device)
    assert len(differences) == 28
    too_far = {k: c.relative for k, c in differences.items() if c.relative > FORWARD_TOLERANCE.get(k, 2e-5)}
    assert not too_far


@pytest.mark.parametrize("device, fixed_shapes", [("cpu", True), *((device, None) for device in DEVICES)])
@pytest.mark.parametrize(("name", "nms", "fusion"), RUNS)
def test_whole_clips_are_tracked_as_recorded(name, nms, fusion, device, fixed_shapes):
    run = compare_tracking(name, nms, fusion, device, fixed_shapes)
    assert run.discrete == []
    assert set(run.values) >= {"box", "score", "mask_coeff", "mask_mean", "post_box", "post_score"}
    assert not {k: c.absolute for k, c in run.values.items() if c.absolute > TRACKING_TOLERANCE[k]}
    assert run.mask_pixels > 100_000
    assert run.mask_flips <= 5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("name", "nms", "fusion"), RUNS)
def test_final_list_is_the_recorded_one(name, nms, fusion, device):
    recorded = json.loads((REFERENCE / name / f"{'' if fusion else 'notf_'}results_{nms}.json").read_text())
    pixels, score = compare_results(compare_tracking(name, nms, fusion, device).results, recorded)
    assert len(pixels) > 80
    assert max(pixels) <= 2  # a pixel on the 0.5 edge may fall either way in float32
    assert score < 2e-4


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", RECORDED)
def test_a_training_step_is_the_recorded_one(name, device):
    step = compare_training(name, device)
    assert step.matches == 0
    assert step.frozen == []
    assert len(step.losses) == 7 and max(step.losses.values()) < 1e-4
    assert max(step.losses_after.values()) < 5e-3
    gradients = sorted(step.gradient_norms.values())
    assert len(gradients) > 150 and gradients[-1] < 2e-2 and gradients[len(gradients) // 2] < 2e-3
    assert max(step.parameter_norms.values()) < 1e-5
