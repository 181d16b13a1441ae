import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from torch.nn import functional as F

from layers.mask_utils import crop_window
from layers.postprocess import postprocess
from utils.structures import FrameMeta, Tracks
from ytvis.pixels import enlarge

THRESHOLD = 0.05


def make_tracks(boxes, scores, masks, labels=None, track_ids=None):
    num = len(boxes)
    return Tracks(
        boxes=torch.as_tensor(boxes, dtype=torch.float32).view(num, 4),
        scores=torch.as_tensor(scores, dtype=torch.float32),
        labels=torch.arange(num) + 1 if labels is None else torch.as_tensor(labels),
        centerness=torch.ones(num),
        mask_coeffs=torch.ones(num, 2),
        embeddings=torch.ones(num, 2),
        masks=torch.as_tensor(masks, dtype=torch.float32),
        track_ids=torch.arange(num) if track_ids is None else torch.as_tensor(track_ids),
        ages=torch.zeros(num, dtype=torch.int64),
    )


def frame_meta(original_hw, resized_hw, padded_hw):
    return FrameMeta(1, 0, original_hw, resized_hw, padded_hw)


def rle_counts(masks):
    return [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode() for mask in masks.numpy()]


# ---------------------------------------------------------------------------------------------------- recorded


@pytest.mark.parametrize("case", ["pad", "odd"])
def test_objects_of_two_paddings_are_the_recorded_ones(reference, case):
    recorded = np.load(reference / "unit" / "postprocess.npz")
    expected = json.loads((reference / "unit" / "postprocess_rle.json").read_text("utf-8"))[case]
    meta = frame_meta(*(tuple(expected["meta"][f"{size}_shape"][:2]) for size in ("ori", "img", "pad")))
    arrays = [recorded[f"in_{name}"] for name in ("box", "score", "mask", "class", "box_ids")]
    objects = postprocess(make_tracks(*arrays), meta, THRESHOLD)
    assert objects.boxes_px.dtype == torch.int64
    assert objects.boxes_px.tolist() == recorded[f"{case}_box"].tolist()
    assert torch.equal(objects.scores, torch.from_numpy(recorded[f"{case}_score"]))
    assert objects.labels.tolist() == recorded[f"{case}_class"].tolist()
    assert objects.track_ids.tolist() == recorded[f"{case}_ids"].tolist()
    assert list(objects.masks.shape[1:]) == expected["rle"][0]["size"]
    assert rle_counts(objects.masks) == [rle["counts"] for rle in expected["rle"]]


@pytest.mark.parametrize("name", ["STMask_plus_resnet50", "STMask_plus_resnet50_ada"])
def test_objects_of_a_real_frame_are_the_recorded_ones(reference, name):
    recorded = np.load(reference / name / "postprocess_input.npz")
    expected = json.loads((reference / name / "postprocess_expected.json").read_text("utf-8"))
    tracks = make_tracks(*(recorded[array] for array in ("box", "score", "mask", "class", "box_ids")))
    objects = postprocess(tracks, frame_meta((180, 320), (90, 160), (96, 160)), THRESHOLD)
    assert rle_counts(objects.masks) == expected["rle"]
    assert objects.boxes_px.tolist() == expected["box"]
    assert objects.track_ids.tolist() == expected["ids"]


# ---------------------------------------------------------------------------------------------------- by hand

# The content is the left half and the upper three quarters of the network input.
META = frame_meta(original_hw=(30, 40), resized_hw=(48, 32), padded_hw=(64, 64))


def whole_frame(height, width):
    """A frame of this size in its video, without padding in the network input."""
    return frame_meta((height, width), (64, 64), (64, 64))


def test_boxes_and_masks_are_scaled_by_the_content():
    masks = torch.zeros(2, 8, 8)
    masks[0, 3:] = 1  # the lower half of the 6×4 content, and padding
    masks[1, :, 2:] = 1  # the right half, and padding
    boxes = [[0.0, 0.375, 0.5, 0.75], [0.25, 0.0, 0.5, 0.75]]
    objects = postprocess(make_tracks(boxes, [0.9, 0.8], masks), META, THRESHOLD)
    assert objects.boxes_px.tolist() == [[0, 15, 40, 30], [20, 0, 40, 30]]
    assert objects.masks.dtype == torch.bool
    expected = torch.zeros(2, 30, 40, dtype=torch.bool)
    expected[0, 15:] = expected[1, :, 20:] = True
    assert torch.equal(objects.masks, expected)


def test_masks_are_resized_bilinearly_before_they_are_binarised():
    masks = torch.zeros(1, 2, 2)
    masks[0, 1, 1] = 1
    objects = postprocess(make_tracks([[0.0, 0.0, 1.0, 1.0]], [0.9], masks), whole_frame(4, 4), THRESHOLD)
    # The products of 1/4, 3/4 and 1 along both axes: 9/16 towards the middle, 3/4 on the edges, 1 in the corner.
    assert objects.masks[0].int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    soft = masks * 0.85  # now 0.48 and 0.64
    objects = postprocess(make_tracks([[0.0, 0.0, 1.0, 1.0]], [0.9], soft), whole_frame(4, 4), THRESHOLD)
    assert objects.masks[0].int().tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]]


SIZES = [
    ((24, 40), (180, 320)),  # larger, the same size, smaller, and odd
    ((24, 40), (24, 40)),
    ((24, 40), (11, 17)),
    ((23, 39), (101, 67)),
    ((1, 5), (7, 1)),
]


@pytest.mark.parametrize("size, new_size", SIZES)
def test_masks_resized_in_their_boxes_are_those_resized_whole(size, new_size):
    generator = torch.Generator().manual_seed(size[0] * new_size[1])
    masks = torch.rand(40, *size, generator=generator)
    corners = torch.rand(40, 4, generator=generator) * 2 - 0.5  # over the borders too, and some outside
    masks *= crop_window(corners, *size)
    masks[0] = torch.rand(size, generator=generator)
    masks[1] = 0
    whole = F.interpolate(masks[None], new_size, mode="bilinear", align_corners=False)[0]
    assert torch.equal(torch.from_numpy(enlarge(masks.numpy(), new_size)), whole > 0.5)
    # The surroundings of a mask change no bit: with a 1 in each corner, the whole mask is resized.
    corners_set = masks.clone()
    corners_set[:, :: max(size[0] - 1, 1), :: max(size[1] - 1, 1)] = 1
    far = F.interpolate((corners_set != masks)[None].float(), new_size, mode="bilinear", align_corners=False)[0] == 0
    apart, together = (torch.from_numpy(enlarge(m.numpy(), new_size)) for m in (masks, corners_set))
    assert torch.equal(apart[far], together[far])


def test_exactly_half_is_not_mask():
    masks = torch.tensor([[[0.5, 0.51], [0.49, 1.0]]])
    objects = postprocess(make_tracks([[0.0, 0.0, 1.0, 1.0]], [0.9], masks), whole_frame(2, 2), THRESHOLD)
    assert objects.masks.tolist() == [[[False, True], [False, True]]]


def test_boxes_are_rounded_down_and_clamped_and_put_in_order():
    boxes = [[-0.25, -0.25, 0.26, 0.38], [0.4, 0.7, 0.1, 0.1], [0.3, 0.3, 0.6, 0.8]]
    objects = postprocess(make_tracks(boxes, [0.9] * 3, torch.zeros(3, 8, 8)), META, THRESHOLD)
    assert objects.boxes_px.tolist() == [[0, 0, 20, 15], [8, 4, 32, 28], [24, 12, 40, 30]]


def test_low_scores_and_centers_in_the_padding_are_left_out():
    boxes = [
        [0.1, 0.1, 0.3, 0.3],  # a score at the threshold
        [0.1, 0.1, 0.3, 0.3],
        [0.4, 0.1, 0.7, 0.3],  # centre right of the content
        [0.1, 0.7, 0.3, 0.9],  # centre below it
        [0.25, 0.5, 0.75, 1.0],  # centre on its corner
        [-0.9, -0.9, 0.1, 0.1],  # centre left of and above the frame, which is no padding
    ]
    scores = [0.5, 0.51, 0.9, 0.9, 0.9, 0.9]
    objects = postprocess(make_tracks(boxes, scores, torch.zeros(6, 8, 8)), META, 0.5)
    assert objects.track_ids.tolist() == [1, 4, 5]
    assert objects.labels.tolist() == [2, 5, 6]
    torch.testing.assert_close(objects.scores, torch.tensor([0.51, 0.9, 0.9]))


def test_what_has_an_age_is_shifted():
    tracks = make_tracks([[0.1, 0.1, 0.3, 0.3]] * 4, [0.9, 0.1, 0.9, 0.9], torch.zeros(4, 8, 8))
    tracks = replace(tracks, ages=torch.tensor([0, 3, 1, 2]))
    objects = postprocess(tracks, META, 0.5)
    assert objects.track_ids.tolist() == [0, 2, 3] and objects.shifted.tolist() == [False, True, True]


@pytest.mark.parametrize(
    "top_k, track_ids", [(0, [0, 1, 2, 3]), (1, [2]), (2, [0, 2]), (3, [0, 2, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_keeps_the_best_in_their_order(top_k, track_ids):
    tracks = make_tracks([[0.1, 0.1, 0.3, 0.3]] * 4, [0.8, 0.6, 0.9, 0.7], torch.zeros(4, 8, 8))
    assert postprocess(tracks, META, THRESHOLD, top_k).track_ids.tolist() == track_ids


def test_top_k_does_not_count_what_is_left_out():
    tracks = make_tracks([[0.1, 0.1, 0.3, 0.3], [0.6, 0.1, 0.9, 0.3]], [0.5, 0.9], torch.zeros(2, 8, 8))
    assert postprocess(tracks, META, THRESHOLD, top_k=1).track_ids.tolist() == [0]


@pytest.mark.parametrize("scores", [[], [0.01, 0.02]])
@pytest.mark.parametrize("top_k", [0, 5])
def test_nothing_to_report(scores, top_k):
    num = len(scores)
    tracks = make_tracks([[0.1, 0.1, 0.3, 0.3]] * num, scores, torch.ones(num, 8, 8))
    objects = postprocess(tracks, META, THRESHOLD, top_k)
    assert len(objects) == 0
    assert objects.boxes_px.shape == (0, 4)
    assert objects.masks.shape == (0, 30, 40)
    assert objects.masks.dtype == torch.bool
    assert objects.boxes_px.dtype == torch.int64


def test_each_object_is_reported_as_if_alone():
    generator = torch.Generator().manual_seed(0)
    tracks = make_tracks(torch.rand(5, 4, generator=generator) / 2, [0.9] * 5, torch.rand(5, 8, 8, generator=generator))
    together = postprocess(tracks, META, THRESHOLD)
    alone = [postprocess(tracks[i], META, THRESHOLD) for i in range(5)]
    assert torch.equal(together.masks, torch.cat([objects.masks for objects in alone]))
    assert torch.equal(together.boxes_px, torch.cat([objects.boxes_px for objects in alone]))


def test_tracks_given_stay_as_they_were():
    tracks = make_tracks([[0.4, 0.7, 0.1, 0.1]], [0.9], torch.full((1, 8, 8), 0.7))
    before = replace(tracks, boxes=tracks.boxes.clone(), masks=tracks.masks.clone())
    postprocess(tracks, META, THRESHOLD)
    assert torch.equal(tracks.boxes, before.boxes)
    assert torch.equal(tracks.masks, before.masks)
