from dataclasses import replace

import numpy as np
import pytest
import torch

from layers.association import (
    LOST,
    Affinity,
    absorb,
    as_tracks,
    assign,
    binary_mask_iou,
    move_on,
    with_past_embeddings,
    with_velocities,
)
from utils.structures import Detections, Tracks

PUBLISHED = Affinity((0.0, 1.0, 2.0, 0.0), new_object_similarity=0.5, new_object_iou=0.3)


def make_detections(*firsts, label=1):
    """Detections at boxes, masks and embeddings of their own, recognisable by their score `firsts`."""
    num = len(firsts)
    return Detections(
        boxes=torch.tensor([[first, 0.0, first + 1, 1.0] for first in firsts]).view(num, 4),
        scores=torch.tensor(firsts, dtype=torch.float32),
        labels=torch.full((num,), label),
        centerness=torch.tensor(firsts, dtype=torch.float32),
        mask_coeffs=torch.tensor(firsts, dtype=torch.float32)[:, None].expand(num, 2),
        embeddings=torch.eye(num, 4),
        masks=torch.tensor(firsts, dtype=torch.float32)[:, None, None].expand(num, 2, 3),
    )


def make_tracks(*firsts, ages=None, first_id=0):
    tracks = as_tracks(make_detections(*firsts), torch.arange(len(firsts)) + first_id)
    ages = torch.zeros(len(firsts), dtype=torch.int64) if ages is None else torch.tensor(ages)
    return Tracks(**{**vars(tracks), "ages": ages})


# ---------------------------------------------------------------------------------------------------- affinity


@pytest.mark.parametrize(
    "case, match_coeff",
    [("default", (0.0, 1.0, 2.0, 0.0)), ("all", (1.0, 2.0, 3.0, 4.0)), ("none", (0.0, 0.0, 0.0, 0.0))],
)
def test_affinity_is_the_recorded_one(reference, case, match_coeff):
    arrays = np.load(reference / "unit" / "comp_scores.npz")
    recorded = {name: torch.from_numpy(array) for name, array in arrays.items()}
    for i in range(5):  # every row was recorded with a dummy similarity of its own
        affinity = Affinity(match_coeff, float(recorded["match_ll"][i, 0]), 0.3)
        row = {name: array[i : i + 1] for name, array in recorded.items()}
        ours = affinity.combine(
            row["match_ll"][:, 1:], row["score"][:, 0], row["mask_iou"], row["box_iou"], row["label_delta"]
        )
        torch.testing.assert_close(ours, row[f"comp_{case}"], atol=1e-5, rtol=1e-5)


def test_affinity_by_hand():
    detections, tracks = make_detections(0.5, 3.0), make_tracks(0.0, 3.0)
    tracks = replace(tracks, embeddings=torch.eye(4)[[2, 1]], labels=torch.tensor([1, 2]))
    mask_ious = torch.tensor([[0.25, 0.0], [0.0, 1.0]])
    # Boxes of width 1 half a unit apart overlap by a third; embeddings are equal (1) or orthogonal (0.5).
    expected = [[1.4, 0.5 + 0.25 + 2 / 3, 0.5], [1.4, 0.5, 1 + 1 + 2]]
    torch.testing.assert_close(PUBLISHED(detections, tracks, mask_ious), torch.tensor(expected))
    labelled = Affinity((1.0, 0.0, 0.0, 4.0), 0.5, 0.3)(detections, tracks, mask_ious)
    expected = [[0.5 + 4 + 0.5, 0.5 + 4 + 0.5, 0.5 + 0.5], [0.5 + 4 + 3, 0.5 + 4 + 3, 1.0 + 3]]
    torch.testing.assert_close(labelled, torch.tensor(expected))


def test_opposite_embeddings_have_no_similarity():
    detections, tracks = make_detections(0.0), make_tracks(5.0)
    opposite = replace(tracks, embeddings=-detections.embeddings)
    torch.testing.assert_close(PUBLISHED(detections, opposite, torch.zeros(1, 1)), torch.tensor([[1.4, 0.0]]))


@pytest.mark.parametrize("n, m", [(0, 0), (0, 2), (2, 0)])
def test_affinity_of_nothing(n, m):
    detections, tracks = make_detections(*range(n)), make_tracks(*range(m))
    mask_ious = binary_mask_iou(detections, tracks)
    assert mask_ious.shape == (n, m)
    assert PUBLISHED(detections, tracks, mask_ious).shape == (n, 1 + m)


def test_masks_are_compared_binarised_over_a_half():
    masks = torch.tensor([[[0.5, 0.6, 0.9]], [[0.51, 0.2, 0.0]]])
    detections = replace(make_detections(1.0, 2.0), masks=masks)
    tracks = replace(make_tracks(1.0), masks=torch.tensor([[[1.0, 1.0, 0.0]]]))
    torch.testing.assert_close(binary_mask_iou(detections, tracks), torch.tensor([[1 / 3], [1 / 2]]))


# ---------------------------------------------------------------------------------------------------- assignment


@pytest.mark.parametrize(
    "affinity, rows",
    [
        ([[1.4, 3.0, 2.0], [1.4, 1.0, 2.0]], [0, 1]),
        ([[1.4, 1.0, 2.0], [1.4, 3.0, 2.0]], [1, 0]),
        ([[1.4, 1.3, 1.2], [1.4, 3.0, 2.0]], [2, 0]),  # new
        ([[1.4, 1.4, 1.4]], [2]),  # the dummy wins ties
        ([[1.4, 2.0, 2.0]], [0]),  # and the older of two known objects
        ([[1.4, 2.0, 0.0], [1.4, 3.0, 2.9]], [0, LOST]),  # claimed twice: no second choice, though it fits better
        ([[1.4, 2.0, 0.0], [1.4, 3.0, 0.0], [1.4, 3.0, 0.0]], [0, LOST, LOST]),
        ([[1.4, 0.0, 0.0], [1.4, 3.0, 0.0], [1.4, 1.0, 1.0]], [2, 0, 3]),  # two new ones: consecutive rows
        ([[1.4, 2.0], [1.4, 2.0], [1.4, 0.0], [1.4, 0.0]], [0, LOST, 1, 2]),  # a lost one takes no row
        ([[1.4], [1.4]], [0, 1]),  # nothing is known yet
    ],
)
def test_assignment_by_hand(affinity, rows):
    affinity = torch.tensor(affinity)
    every = torch.ones(len(affinity), dtype=torch.bool), torch.ones(affinity.shape[1] - 1, dtype=torch.bool)
    found = assign(affinity, *every)
    assert found.tolist() == rows
    assert found.dtype == torch.int64


@pytest.mark.parametrize(
    "affinity, rows",
    [
        ([[1.4, 3.0, 2.0], [1.4, 1.0, 2.0]], [0, 1]),
        ([[1.4, 2.0, 1.9], [1.4, 3.0, 1.4]], [1, 0]),  # the first takes its second choice, for both to gain most
        ([[1.4, 2.0, 0.0], [1.4, 3.0, 0.0]], [LOST, 0]),  # claimed twice, and no other fits
        ([[1.4, 1.3, 1.2], [1.4, 3.0, 2.0]], [2, 0]),  # new
        ([[0.0, 0.0, 0.0]], [2]),  # the dummy wins ties
        ([[1.4], [1.4]], [0, 1]),  # nothing is known yet
        ([[0.5, 1.0, 0.9, 0.5], [0.5, 0.9, 0.5, 0.7], [0.5, 0.6, 0.0, 0.0], [0.5, 0.0, 0.0, 0.0]], [1, 0, LOST, 3]),
    ],
)
def test_joint_assignment_by_hand(affinity, rows):
    affinity = torch.tensor(affinity)
    every = torch.ones(len(affinity), dtype=torch.bool), torch.ones(affinity.shape[1] - 1, dtype=torch.bool)
    found = assign(affinity, *every, joint=True)
    assert found.tolist() == rows
    assert found.dtype == torch.int64


@pytest.mark.parametrize("joint", [False, True])
@pytest.mark.parametrize("num_known", [0, 3])
def test_no_detections_are_assigned_to_nothing(num_known, joint):
    rows = assign(torch.zeros(0, 1 + num_known), torch.ones(0).bool(), torch.ones(num_known).bool(), joint)
    assert rows.shape == (0,)
    assert rows.dtype == torch.int64


@pytest.mark.parametrize("joint", [False, True])
def test_rows_that_are_not_real_take_no_part(joint):
    """Detections 1 and 3 and the last of three rows of objects are not real: whatever they say does not matter."""
    affinity = torch.tensor([[1.4, 2.0, 0, 9.0], [1.4, 3.0, 0, 0], [1.4, 0, 0, torch.nan], [0, 0, 0, 9.0]])
    affinity = torch.cat((affinity, torch.tensor([[1.4, 1.5, 0, 0], [1.4, 0, 0, 0]])))
    are_real = torch.tensor([True, False, True, False, True, True])
    rows = assign(affinity, are_real, torch.tensor([True, True, False]), joint)
    assert rows.tolist() == [0, LOST, 2, LOST, LOST, 3]  # new objects follow the two that are known
    source, are_known = absorb(rows, torch.ones(6, dtype=torch.bool), torch.tensor([True, True, False]))
    assert source[are_known].tolist() == [3, 1, 5, 8]  # three rows of objects, then the detections


# ---------------------------------------------------------------------------------------------------- state


def test_detections_become_objects_just_seen():
    detections = make_detections(0.9, 0.8)
    tracks = as_tracks(detections, torch.tensor([7, 3]))
    assert tracks.track_ids.tolist() == [7, 3]
    assert tracks.ages.tolist() == [0, 0]
    assert tracks.ages.dtype == torch.int64
    assert all(getattr(tracks, name) is value for name, value in vars(detections).items())
    assert len(as_tracks(make_detections(), torch.zeros(0, dtype=torch.int64))) == 0


def absorbed(rows, updates=None, known=(1.0, 2.0), seen=(10.0, 20.0, 30.0)):
    """The result of `absorb` for known objects of ages 4, 5, … and objects just seen."""
    tracks = make_tracks(*known, ages=list(range(4, 4 + len(known))))
    updates = torch.ones(len(seen), dtype=torch.bool) if updates is None else torch.tensor(updates)
    source, are_known = absorb(torch.tensor(rows, dtype=torch.int64), updates, torch.ones(len(known)).bool())
    result = Tracks.cat([tracks, make_tracks(*seen, first_id=100)])[source[are_known]]
    # All fields agree.
    assert torch.equal(result.boxes[:, 0], result.scores)
    assert torch.equal(result.masks[:, 0, 0], result.scores)
    assert torch.equal(result.mask_coeffs[:, 0], result.scores)
    return result


def test_matched_objects_take_their_new_state_and_new_ones_are_appended():
    result = absorbed([1, 2, 3])
    assert result.scores.tolist() == [1, 10, 20, 30]
    assert result.ages.tolist() == [4, 0, 0, 0]
    assert result.track_ids.tolist() == [0, 100, 101, 102]
    assert torch.equal(result.embeddings, torch.eye(4)[[0, 0, 1, 2]])


def test_a_lost_detection_leaves_no_trace():
    result = absorbed([0, LOST, 2])
    assert result.scores.tolist() == [10, 2, 30]
    assert result.ages.tolist() == [0, 5, 0]


def test_without_update_a_matched_object_keeps_its_old_state():
    result = absorbed([0, 1, 2], updates=[False, True, True])
    assert result.scores.tolist() == [1, 20, 30]
    assert result.ages.tolist() == [4, 0, 0]


def test_a_new_object_is_appended_whatever_the_updates_say():
    assert absorbed([2, LOST, 3], updates=[False, False, False]).scores.tolist() == [1, 2, 10, 30]


@pytest.mark.parametrize(
    "rows, known, seen, scores",
    [
        ([], (1.0, 2.0), (), [1, 2]),
        ([0, 1], (), (10.0, 20.0), [10, 20]),
        ([], (), (), []),
        ([LOST], (1.0,), (10.0,), [1]),
    ],
)
def test_absorbing_nothing_or_into_nothing(rows, known, seen, scores):
    assert absorbed(rows, known=known, seen=seen).scores.tolist() == scores


# ---------------------------------------------------------------------------------------------------- memory


def test_the_similarity_is_that_with_the_best_of_all_embeddings():
    detections, tracks = make_detections(0.5), make_tracks(0.0, 3.0)
    detections = replace(detections, embeddings=torch.tensor([[0.6, 0.8, 0.0, 0.0]]))
    axes = torch.eye(4)
    tracks = replace(tracks, embeddings=axes[[0, 2]], past_embeddings=axes[torch.tensor([[1, 3], [2, 3]])])
    similarity = Affinity((0.0, 0.0, 0.0, 0.0), 0.5, 0.3)(detections, tracks, torch.zeros(1, 2))
    torch.testing.assert_close(similarity, torch.tensor([[0.5, (1 + 0.8) / 2, 0.5]]))
    tracks = replace(tracks, past_embeddings=None)
    similarity = Affinity((0.0, 0.0, 0.0, 0.0), 0.5, 0.3)(detections, tracks, torch.zeros(1, 2))
    torch.testing.assert_close(similarity, torch.tensor([[0.5, (1 + 0.6) / 2, 0.5]]))


def test_the_embeddings_of_the_last_detections_are_kept():
    axes = torch.eye(4)
    tracks = replace(make_tracks(0.0, 1.0), embeddings=axes[[0, 1]])
    tracks = replace(tracks, past_embeddings=axes[torch.tensor([[1, 2], [3, 3]])])
    seen = as_tracks(make_detections(0.0, 1.0, 2.0), torch.tensor([1, 9, 0]), num_past=2)
    seen = replace(seen, embeddings=axes[[2, 3, 0]], past_embeddings=axes[[2, 3, 0], None].expand(-1, 2, -1))
    rows, are_again = torch.tensor([1, LOST, 0]), torch.tensor([True, False, True])
    found = with_past_embeddings(seen, tracks, rows, are_again)
    # The newest of each track comes first and its oldest goes; what is not found again repeats its own.
    assert found.past_embeddings.argmax(dim=2).tolist() == [[1, 3], [3, 3], [0, 1]]
    assert with_past_embeddings(seen, tracks[:0], rows, are_again) is seen


# ---------------------------------------------------------------------------------------------------- motion


def test_velocities_are_a_running_mean_of_steps_per_frame():
    nan = torch.nan
    tracks = make_tracks(0.0, 1.0, 5.0, ages=[0, 1, 3])
    tracks = replace(tracks, velocities=torch.tensor([[nan, nan], [0.4, 0.2], [9.0, 9.0]]))
    seen = as_tracks(make_detections(2.0, 0.5, 7.0, 8.0), torch.tensor([1, 0, 3, 9]), moving=True)
    assert seen.velocities.isnan().all()
    rows, are_again = torch.tensor([1, 0, 3, LOST]), torch.tensor([True, True, False, False])
    found = with_velocities(seen, tracks, rows, are_again, newest_share=0.25)
    # Object 1 went 1 in two frames; object 0, seen once before, 0.5 in one; the others are new and lost.
    expected = [[0.75 * 0.4 + 0.25 * 0.5, 0.75 * 0.2], [0.5, 0.0], [nan, nan], [nan, nan]]
    torch.testing.assert_close(found.velocities, torch.tensor(expected), equal_nan=True)
    source, are_known = absorb(rows, torch.ones(4, dtype=torch.bool), torch.ones(3, dtype=torch.bool))
    taken = Tracks.cat([tracks, found]).velocities[source[are_known]]
    torch.testing.assert_close(taken, torch.tensor([*expected[1::-1], [9.0, 9.0], [nan, nan]]), equal_nan=True)


def test_objects_move_on_for_as_many_frames_as_are_allowed():
    tracks = make_tracks(0.0, 0.0, 0.0, 0.0, ages=[0, 1, 7, 7])
    masks = torch.tensor([[[0.9, 0.4, 0.0, 0.0], [0.0, 0.0, 0.0, 0.6]]]).repeat(4, 1, 1)
    velocities = torch.tensor([[0.25, 0.0], [0.25, 0.0], [0.25, -0.25], [torch.nan, torch.nan]])
    moved = move_on(replace(tracks, masks=masks, velocities=velocities), max_age=1)
    expected = [[0.25, 0, 1.25, 1], [0.5, 0, 1.5, 1], [0.5, -0.5, 1.5, 0.5], [0, 0, 1, 1]]
    torch.testing.assert_close(moved.boxes, torch.tensor(expected))
    first, second, third, still = moved.masks.int().tolist()
    assert first == [[0, 1, 0, 0], [0, 0, 0, 0]]
    assert second == [[0, 0, 1, 0], [0, 0, 0, 0]]
    assert third == [[0, 0, 0, 0], [0, 0, 0, 0]]  # up and right by half of the frame, each
    assert still == [[1, 0, 0, 0], [0, 0, 0, 1]]
    assert len(move_on(replace(tracks, velocities=velocities)[:0], max_age=1)) == 0
