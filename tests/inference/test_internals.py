import numpy as np
import pytest
import torch

from inference.internals import (
    AnchorPlace,
    anchor_place,
    explain_objects,
    find_anchor,
    sampling_points,
    without_padding,
)
from layers.anchors import make_anchors
from layers.box_utils import decode
from layers.fpn import level_sizes
from layers.prediction_head import PredictionHead
from utils.structures import FrameMeta, FusionFeatures, Predictions, Tracks

KERNELS = ((3, 3), (3, 5), (5, 3))
INPUT_HW = (64, 96)
META = FrameMeta(0, 1, original_hw=(120, 180), resized_hw=(60, 90), padded_hw=INPUT_HW)


def make_head(calibration="ada", square_kernels=False):
    torch.manual_seed(0)
    return PredictionHead(8, 4, KERNELS, calibration, 5, 6, False, square_kernels)


@pytest.fixture
def predictions():
    """Of one image, with random regression."""
    generator = torch.Generator().manual_seed(0)
    anchors = make_anchors(level_sizes(INPUT_HW), KERNELS)
    count = len(anchors)
    features = torch.zeros(1, 8, 4, 6)
    return Predictions(
        box_deltas=torch.randn(1, count, 4, generator=generator),
        class_logits=torch.zeros(1, count, 4),
        centerness=torch.zeros(1, count),
        mask_coeffs=torch.zeros(1, count, 5),
        embeddings=torch.zeros(1, count, 6),
        prototypes=torch.rand(1, 16, 24, 5, generator=generator),
        anchors=anchors,
        fusion_features=FusionFeatures(features, features),
    )


def tracks(boxes, track_ids):
    count = len(boxes)
    return Tracks(
        boxes=boxes,
        scores=torch.full((count,), 0.5),
        labels=torch.full((count,), 2),
        centerness=torch.ones(count),
        mask_coeffs=torch.full((count, 5), 0.3),
        embeddings=torch.zeros(count, 6),
        masks=torch.ones(count, 16, 24),
        track_ids=torch.tensor(track_ids),
        ages=torch.zeros(count, dtype=torch.int64),
    )


def test_the_place_of_every_anchor_is_its_own():
    anchors = make_anchors(level_sizes(INPUT_HW), KERNELS)
    for index in range(len(anchors)):
        place = anchor_place(index, INPUT_HW, len(KERNELS))
        height, width = place.size_hw
        kernel = KERNELS[place.kernel]
        box = [(place.column + 0.5) / width, (place.row + 0.5) / height, kernel[1] / width, kernel[0] / height]
        assert anchors[index].tolist() == pytest.approx(box)
        assert place.size_hw == level_sizes(INPUT_HW)[place.level - 3]
    for beyond in (len(anchors), -1):
        with pytest.raises(IndexError):
            anchor_place(beyond, INPUT_HW, len(KERNELS))


def test_the_anchor_of_a_box_is_found_and_that_of_another_is_not(predictions):
    boxes = decode(predictions.box_deltas[0], predictions.anchors)
    assert [find_anchor(boxes[index], predictions) for index in (0, 77, len(boxes) - 1)] == [0, 77, len(boxes) - 1]
    assert find_anchor(boxes[77] + 1e-4, predictions) is None


@pytest.mark.parametrize("kernel", range(3))
@pytest.mark.parametrize(("calibration", "square"), [("ada", False), ("ali", False), ("ali", True)])
def test_offsets_of_one_anchor_are_those_of_the_whole_map(calibration, square, kernel):
    head = make_head(calibration, square)
    seen = []
    layer = head.conf_layer[kernel]
    whole = layer.offsets
    layer.offsets = lambda deltas: seen.append(whole(deltas)) or seen[-1]
    with torch.no_grad():
        output, _ = head([torch.randn(1, 8, 4, 6)])
        del layer.offsets
        deltas = output.box_deltas[0].view(4, 6, 3, 4)[2, 5, kernel]
        torch.testing.assert_close(head.sampling_offsets(deltas, kernel).flatten(), seen[0][0, :, 2, 5])


def test_samples_by_hand():
    place = AnchorPlace(level=3, size_hw=(10, 20), row=4, column=7, kernel=1)  # 3 rows of 5 columns
    taps, samples = sampling_points(make_head("ali"), torch.zeros(4), place)
    assert torch.equal(taps, samples)  # the box is the anchor
    assert taps[0].tolist() == pytest.approx([5.5 / 20, 3.5 / 10])
    assert taps[1].tolist() == pytest.approx([6.5 / 20, 3.5 / 10])
    assert taps[7].tolist() == pytest.approx([7.5 / 20, 4.5 / 10])
    twice_as_high = torch.tensor([0, 0, 0, np.log(2) / 0.2])
    _, samples = sampling_points(make_head("ali"), twice_as_high.float(), place)
    assert samples[0].tolist() == pytest.approx([5.5 / 20, 2.5 / 10])
    with pytest.raises(ValueError, match="has no FCB"):
        sampling_points(make_head("none"), torch.zeros(4), place)


def test_content_leaves_the_padding_out():
    assert without_padding(torch.zeros(16, 24, 5), META).shape == (15, 22, 5)


def test_objects_are_explained_in_pixels_of_the_frame(predictions):
    detected = decode(predictions.box_deltas[0, 100], predictions.anchors[100])
    carried = torch.tensor([0.1, 0.2, 0.3, 0.4])
    last = tracks(torch.stack([carried - 0.05, carried]), [9, 4])
    shifted = tracks(torch.stack([carried, carried]), [9, 4])
    found, kept = explain_objects(
        tracks(torch.stack([detected, carried]), [3, 9]), last, shifted, predictions, make_head(), META
    )
    to_pixels = np.array([96 * 2, 64 * 2] * 2)  # the frame is twice the network's, and 6 and 4 columns are padding
    assert (found.track_id, found.label, found.score) == (3, 2, 0.5)
    assert found.box == pytest.approx(detected.numpy() * to_pixels, rel=1e-5)
    place = anchor_place(100, INPUT_HW, 3)
    assert (found.level, found.kernel) == (place.level, place.kernel)
    width = found.anchors[:, 2] - found.anchors[:, 0]
    assert width == pytest.approx([kernel[1] * 2 * 2**place.level for kernel in KERNELS])
    assert found.taps.shape == found.samples.shape and found.last_box is found.shifted_box is None
    assert found.mask.shape == (15, 22) and found.weights == pytest.approx(np.tanh(np.full(5, 0.3)))
    assert kept.last_box == pytest.approx((carried - 0.05).numpy() * to_pixels, rel=1e-5)
    assert kept.shifted_box == pytest.approx(kept.box)
    assert kept.level is kept.anchors is kept.taps is None


def test_the_first_frame_and_no_calibration_have_less_to_tell(predictions):
    box = decode(predictions.box_deltas[0, 100], predictions.anchors[100])
    (item,) = explain_objects(tracks(box[None], [0]), None, None, predictions, make_head("none"), META)
    assert item.anchors is not None and item.samples is None and item.shifted_box is None
    nothing = tracks(torch.zeros(0, 4), [])
    assert explain_objects(nothing, None, None, predictions, make_head(), META) == []
