from dataclasses import FrozenInstanceError, fields, replace
from itertools import islice

import numpy as np
import pytest
import torch

from utils.structures import (
    ClipBatch,
    ClipTargets,
    Detections,
    FrameObjects,
    FrameTargets,
    FusionFeatures,
    Predictions,
    Tracks,
)


def make_tracks(num, first=0):
    numbers = torch.arange(first, first + num)
    return Tracks(
        boxes=numbers[:, None].expand(num, 4).float(),
        scores=numbers.float(),
        labels=numbers,
        centerness=numbers.float(),
        mask_coeffs=numbers[:, None].expand(num, 2).float(),
        embeddings=numbers[:, None].expand(num, 3).float(),
        masks=numbers[:, None, None].expand(num, 2, 3).float(),
        track_ids=numbers,
        ages=numbers,
        velocities=numbers[:, None].expand(num, 2).float(),
        past_embeddings=numbers[:, None, None].expand(num, 2, 3).float(),
    )


def make_predictions(batch):
    """Every tensor holds the index of its image."""
    images = torch.arange(float(batch))

    def of(*shape):
        return images.view(-1, *[1] * len(shape)).expand(batch, *shape)

    return Predictions(
        box_deltas=of(6, 4),
        class_logits=of(6, 3),
        centerness=of(6),
        mask_coeffs=of(6, 2),
        embeddings=of(6, 5),
        prototypes=of(4, 4, 2),
        anchors=torch.zeros(6, 4),
        fusion_features=FusionFeatures(of(2, 1, 1), of(2, 1, 1)),
        finest=of(2, 1, 1),
    )


def numbers_of(objects):
    """The numbers given to `make_tracks`, if all fields agree."""
    for field in fields(objects):
        value = getattr(objects, field.name)
        while value.ndim > 1:
            value = value[:, 0]
        assert torch.equal(value.long(), objects.labels)
    return objects.labels.tolist()


# ---------------------------------------------------------------------------------------------------- per object


@pytest.mark.parametrize("num", [0, 1, 3])
def test_length_is_the_number_of_objects(num):
    assert len(make_tracks(num)) == num


@pytest.mark.parametrize(
    "index, numbers",
    [
        (slice(1, 3), [1, 2]),
        (slice(0), []),
        (slice(None, None, 2), [0, 2]),
        ([2, 0, 2], [2, 0, 2]),
        (torch.tensor([3, 1]), [3, 1]),
        (torch.tensor([], dtype=torch.int64), []),
        (torch.tensor([True, False, False, True]), [0, 3]),
        (torch.zeros(4, dtype=torch.bool), []),
        (0, [0]),
        (2, [2]),
        (-1, [3]),
        (-4, [0]),
    ],
)
def test_an_index_selects_objects_in_every_field_and_keeps_the_axis(index, numbers):
    selected = make_tracks(4)[index]
    assert isinstance(selected, Tracks)
    assert numbers_of(selected) == numbers
    assert selected.masks.shape[1:] == (2, 3)


def test_objects_can_be_gone_through_one_by_one():
    # islice, because a sequence that never ends would be read for ever.
    assert [numbers_of(track) for track in islice(make_tracks(3), 10)] == [[0], [1], [2]]
    assert list(islice(make_tracks(0), 10)) == []


@pytest.mark.parametrize("index", [4, -5])
def test_an_object_that_is_not_there_is_an_error(index):
    with pytest.raises(IndexError):
        make_tracks(4)[index]


@pytest.mark.parametrize("sizes", [(2, 3), (0, 2), (2, 0), (0, 0), (1,), (1, 0, 2, 1)])
def test_concatenation_keeps_order(sizes):
    parts, first = [], 0
    for size in sizes:
        parts.append(make_tracks(size, first))
        first += size
    joined = Tracks.cat(parts)
    assert isinstance(joined, Tracks)
    assert numbers_of(joined) == list(range(sum(sizes)))


def test_parts_put_together_again_are_the_whole():
    tracks = make_tracks(5)
    assert numbers_of(Tracks.cat([tracks[:2], tracks[2:2], tracks[2:]])) == [0, 1, 2, 3, 4]


def test_every_kind_of_object_is_indexed_and_joined():
    targets = FrameTargets(torch.zeros(2, 4), torch.tensor([5, 6]), torch.zeros(2, 3, 3), torch.tensor([1, 2]))
    assert FrameTargets.cat([targets[1], targets]).labels.tolist() == [6, 5, 6]
    rows = (torch.zeros(2, 4), torch.ones(2), torch.tensor([5, 6]), torch.arange(2), torch.ones(2, 3, 3))
    objects = FrameObjects(*rows, shifted=torch.tensor([False, True]))
    both = FrameObjects.cat([objects[1:], objects])
    assert both.labels.tolist() == [6, 5, 6] and both.shifted.tolist() == [True, False, True]
    assert issubclass(Tracks, Detections)


def test_fields_cannot_be_replaced():
    with pytest.raises(FrozenInstanceError):
        make_tracks(1).scores = torch.ones(1)


def test_targets_of_clips_are_packed_and_are_those_of_their_frames():
    counts = ((1, 2), (0, 0), (3, 0))
    numbers = iter(range(9))
    clips = []
    for clip in counts:
        ids = [torch.tensor([next(numbers) for _ in range(count)]) for count in clip]
        clips.append(
            tuple(FrameTargets(n.float()[:, None].expand(-1, 4), n + 1, n[:, None, None].byte(), n.long()) for n in ids)
        )
    targets = replace(ClipTargets.pack(clips), candidates=np.arange(1, 7))
    assert len(targets) == 3 and targets.counts == counts and ClipTargets.pack(targets) is targets
    assert targets.image.tolist() == [0, 1, 1, 4, 4, 4]
    assert targets.rows.tolist() == [[0, -1, -1], [1, 2, -1], [-1] * 3, [-1] * 3, [3, 4, 5], [-1] * 3]
    assert targets.candidates_of_frames().tolist() == [[1, 5], [0, 0], [15, 0]]
    for part in (slice(0, 3), slice(1, 3), slice(2, 3), slice(0, 2)):
        found, expected = targets[part], ClipTargets.pack(clips[part])
        assert found.counts == expected.counts and found.image.tolist() == expected.image.tolist()
        assert found.candidates.tolist() == list(range(1, 7))[sum(map(sum, counts[: part.start])) :][: len(found.image)]
        for frame, rows in enumerate(found.rows.tolist()):
            assert [row for row in rows if row >= 0] == [row for row in expected.rows[frame].tolist() if row >= 0]
        for ours, clip in zip(found, clips[part], strict=True):
            assert [frame.instance_ids.tolist() for frame in ours] == [frame.instance_ids.tolist() for frame in clip]
            assert [frame.boxes.shape for frame in ours] == [frame.boxes.shape for frame in clip]


# ---------------------------------------------------------------------------------------------------- elsewhere


def test_to_moves_every_tensor_and_returns_another_object():
    tracks = make_tracks(2)
    moved = tracks.to("meta")
    assert isinstance(moved, Tracks)
    assert {getattr(moved, field.name).device.type for field in fields(moved)} == {"meta"}
    assert {getattr(tracks, field.name).device.type for field in fields(tracks)} == {"cpu"}


def test_to_reaches_nested_tensors():
    moved = make_predictions(2).to("meta")
    assert isinstance(moved.fusion_features, FusionFeatures)
    tensors = [value for name, value in vars(moved).items() if name != "fusion_features"]
    tensors += vars(moved.fusion_features).values()
    assert len(tensors) == len(fields(Predictions)) - 1 + 2
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_to_reaches_tensors_in_lists():
    moved = ClipBatch(torch.zeros(1, 1, 3, 4, 4), [[make_tracks(1)]]).to("meta")
    assert moved.targets[0][0].boxes.device.type == "meta"


def test_to_takes_a_dtype():
    assert make_predictions(1).to(torch.float64).fusion_features.shared.dtype == torch.float64


def test_features_are_cut_along_the_batch():
    features = make_predictions(3).fusion_features[1:3]
    assert features.pyramid.shape == features.shared.shape == (2, 2, 1, 1)
    assert features.pyramid.flatten(1)[:, 0].tolist() == features.shared.flatten(1)[:, 0].tolist() == [1, 2]
