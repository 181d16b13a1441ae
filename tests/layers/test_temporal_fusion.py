import json

import numpy as np
import pytest
import torch

from layers.mask_utils import assemble_masks
from layers.temporal_fusion import TemporalNet, correlate, fuse, shift_tracks
from utils.structures import FusionFeatures, Tracks

NUM_PROTOTYPES = 3


@pytest.fixture(scope="module")
def recorded(reference):
    return {name: torch.from_numpy(array) for name, array in np.load(reference / "unit" / "correlate_roi.npz").items()}


def near(ours, expected):
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


def make_net(in_channels=5, roi_size=7):
    torch.manual_seed(0)
    return TemporalNet(in_channels, (6, 5, 4), NUM_PROTOTYPES, roi_size).requires_grad_(False)


def make_tracks(boxes, mask_coeffs=None):
    num = len(boxes)
    return Tracks(
        boxes=torch.as_tensor(boxes, dtype=torch.float32).view(num, 4),
        scores=torch.linspace(1, 0.5, num),
        labels=torch.arange(num) + 1,
        centerness=torch.linspace(0.9, 0.1, num),
        mask_coeffs=torch.ones(num, NUM_PROTOTYPES) if mask_coeffs is None else mask_coeffs,
        embeddings=torch.eye(num, 4),
        masks=torch.full((num, 4, 6), 0.25),
        track_ids=torch.arange(num) + 10,
        ages=torch.arange(num),
    )


# ---------------------------------------------------------------------------------------------------- correlation


@pytest.mark.parametrize("patch_size", [11, 5])
def test_correlation_is_the_recorded_one(recorded, patch_size):
    near(correlate(recorded["x1"], recorded["x2"], patch_size), recorded[f"corr_p{patch_size}"])


def test_gradients_of_the_correlation_are_the_recorded_ones(recorded):
    a, b = recorded["x1"].clone().requires_grad_(), recorded["x2"].clone().requires_grad_()
    correlate(a, b).backward(recorded["corr_p11_upstream"])
    near(a.grad, recorded["corr_p11_grad_x1"])
    near(b.grad, recorded["corr_p11_grad_x2"])


def test_window_is_rows_first_and_holds_where_the_second_map_has_it():
    a, b = torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4)
    a[0, :, 1, 1] = torch.tensor([2.0, 1.0])
    b[0, :, 2, 0] = torch.tensor([3.0, 4.0])  # one down, one left
    window = correlate(a, b, 3)
    assert window.shape == (1, 9, 3, 4)
    found = window.nonzero().tolist()
    assert found == [[0, 2 * 3 + 0, 1, 1]]
    assert window[0, 6, 1, 1] == 5  # (2·3 + 1·4) / 2 channels


def test_negative_correlation_is_kept_by_a_tenth():
    a, b = torch.ones(1, 4, 1, 1), torch.full((1, 4, 1, 1), -3.0)
    torch.testing.assert_close(correlate(a, b, 1), torch.full((1, 1, 1, 1), -0.3))


def test_correlation_batched_is_each_pair_alone(recorded):
    a, b = recorded["x1"], recorded["x2"]
    alone = torch.cat([correlate(a[i : i + 1], b[i : i + 1], 5) for i in range(len(a))])
    assert torch.equal(correlate(a, b, 5), alone)


def test_fused_map_is_correlation_last_current_rectified():
    def features(value):
        return FusionFeatures(torch.full((1, 2, 3, 4), value), torch.full((1, 2, 3, 4), value * 10))

    last, current = features(2.0), features(3.0)
    fused = fuse(last, current, 1)
    assert fused[0, :, 1, 1].tolist() == [6, 20, 20, 30, 30]
    assert fuse(last, features(-3.0), 1)[0, :, 1, 1].tolist() == [0, 20, 20, 0, 0]


# ---------------------------------------------------------------------------------------------------- crops


def test_crops_and_their_gradient_are_the_recorded_ones(recorded):
    features = recorded["roi_feat"].clone().requires_grad_()
    crops = make_net().crop(features, recorded["roi_box"])
    near(crops, recorded["roi_out"])
    crops.backward(recorded["roi_upstream"])
    near(features.grad, recorded["roi_grad_feat"])


def test_crop_of_the_whole_map_at_its_own_size_is_the_map():
    features = torch.arange(30.0).view(1, 5, 2, 3).repeat_interleave(2, dim=-2)[..., :3, :]
    crop = make_net(roi_size=3).crop(features, torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(crop, features)


def test_crop_is_clamped_to_the_image_and_takes_corners_in_any_order():
    net, features = make_net(), torch.randn(1, 5, 6, 10)
    boxes = torch.tensor([[-1.0, -2.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]])
    crops = net.crop(features, boxes)
    assert torch.equal(crops[0], crops[2])
    assert torch.equal(crops[1], crops[2])


def test_crop_of_a_bfloat16_map_is_in_the_precision_of_the_boxes(recorded):
    net, half = make_net(), recorded["roi_feat"].bfloat16()
    crops = net.crop(half, recorded["roi_box"])
    assert crops.dtype == torch.float32
    assert torch.equal(crops, net.crop(half.float(), recorded["roi_box"]))


# ---------------------------------------------------------------------------------------------------- the net


def test_parameters_have_the_published_names_and_shapes(reference):
    keys = json.loads((reference / "STMask_plus_resnet50" / "keys_STMask_plus_resnet50_config.json").read_text("utf-8"))
    expected = {name.removeprefix("TemporalNet."): s for name, s in keys.items() if name.startswith("TemporalNet.")}
    with torch.device("meta"):
        net = TemporalNet(121 + 2 * 256, (512, 512, 1024), 32, 7)
    assert {name: list(value.shape) for name, value in net.state_dict().items()} == expected


def test_net_averages_over_the_crop():
    net = make_net(in_channels=1)
    for name, parameter in net.named_parameters():
        parameter.zero_()
        if name.startswith("conv") and name.endswith("weight"):
            parameter[0, 0, 1, 1] = 1  # the first channel goes through unchanged
    net.fc.weight[:, 0] = torch.tensor([1.0, 2.0, 0.0, -1.0])
    net.fc.bias[2] = 7
    net.fc_coeff.weight[:, 0] = torch.tensor([3.0, 0.0, 0.0])
    fused = torch.zeros(1, 1, 4, 4)
    fused[..., 2:] = 5  # the right half
    boxes = torch.tensor([[0.75, 0.0, 1.0, 1.0], [0.0, 0.0, 0.25, 1.0], [0.0, 0.0, 1.0, 1.0]])
    deltas, changes = net(fused, boxes)
    near(deltas, torch.tensor([[5.0, 10.0, 7.0, -5.0], [0.0, 0.0, 7.0, 0.0], [2.5, 5.0, 7.0, -2.5]]))
    near(changes, torch.tensor([[15.0, 0.0, 0.0], [0.0, 0.0, 0.0], [7.5, 0.0, 0.0]]))


def test_net_sees_each_box_alone(recorded):
    net, features, boxes = make_net(), recorded["roi_feat"], recorded["roi_box"]
    together = net(features, boxes)
    alone = [net(features, box[None]) for box in boxes]
    for ours, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.cat(parts), atol=1e-6, rtol=1e-5)


def test_net_of_no_boxes(recorded):
    net, none = make_net(), torch.zeros(0, 4)
    assert net.crop(recorded["roi_feat"], none).shape == (0, 5, 7, 7)
    deltas, changes = net(recorded["roi_feat"], none)
    assert (deltas.shape, changes.shape) == ((0, 4), (0, NUM_PROTOTYPES))


# ---------------------------------------------------------------------------------------------------- the shift


def test_shift_that_changes_nothing_ages_and_decays_and_assembles_the_mask_anew():
    tracks = make_tracks([[0.1, 0.2, 0.5, 0.8], [0.6, 0.1, 0.9, 0.3]])
    prototypes = torch.randn(8, 10, NUM_PROTOTYPES)
    shifted = shift_tracks(tracks, torch.zeros(2, 4), torch.zeros(2, 3), prototypes, 0.95)
    near(shifted.boxes, tracks.boxes)
    assert torch.equal(shifted.mask_coeffs, tracks.mask_coeffs)
    assert torch.equal(shifted.ages, tracks.ages + 1)
    near(shifted.scores, torch.tensor([0.95, 0.475]))
    near(shifted.masks, assemble_masks(prototypes, tracks.mask_coeffs, shifted.boxes))
    for name in ("labels", "centerness", "embeddings", "track_ids"):
        assert torch.equal(getattr(shifted, name), getattr(tracks, name))
    assert torch.equal(tracks.ages, torch.tensor([0, 1]))  # the input tracks do not change


def test_shift_moves_the_box_as_an_anchor_and_adds_to_the_coefficients():
    tracks = make_tracks([[0.1, 0.2, 0.5, 0.4]], mask_coeffs=torch.tensor([[1.0, 2.0, 3.0]]))
    prototypes = torch.randn(8, 10, NUM_PROTOTYPES)
    deltas, changes = torch.tensor([[5.0, -5.0, 0.0, 0.0]]), torch.tensor([[0.5, 0.0, -1.0]])
    shifted = shift_tracks(tracks, deltas, changes, prototypes, 1.0)
    near(shifted.boxes, torch.tensor([[0.3, 0.1, 0.7, 0.3]]))  # half its width right, half its height up
    near(shifted.mask_coeffs, torch.tensor([[1.5, 2.0, 2.0]]))
    near(shifted.masks, assemble_masks(prototypes, torch.tensor([[1.5, 2.0, 2.0]]), shifted.boxes))


def test_shift_of_no_tracks():
    none = make_tracks([])
    shifted = shift_tracks(none, *make_net()(torch.zeros(1, 5, 6, 10), none.boxes), torch.ones(8, 10, 3), 0.95)
    assert len(shifted) == 0
    assert shifted.masks.shape == (0, 8, 10)
    assert shifted.boxes.shape == (0, 4)
    assert shifted.ages.dtype == torch.int64
