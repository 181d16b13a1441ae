"""Tracking without temporal fusion, by overlap or by embeddings alone, over detections made by hand."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from data.config import MODELS, TRACKING_BY_OVERLAP, get_config
from inference.tracker import VideoTracker
from utils.structures import Detections

SIZE = 40  # of the masks, pixels


@pytest.fixture(params=[False, True], ids=["as many rows as objects", "fixed shapes"])
def follow(request):
    """A function: detections of each frame, as lists of (x, y, label) → the track ids of each frame.

    Objects are squares of 4 pixels with their upper left corner at x, y.
    """

    def run(*frames, **settings):
        overrides = {**TRACKING_BY_OVERLAP, **{f"tracking.{name}": value for name, value in settings.items()}}
        tracker = make_tracker(overrides, request.param)
        return [tracker.update(squares(frame)).track_ids.tolist() for frame in frames]

    return run


@pytest.fixture(params=[False, True], ids=["as many rows as objects", "fixed shapes"])
def recognise(request):
    """A function: embeddings of the detections of each frame, as lists of angles in degrees → the track ids of each
    frame. A detection continues an object if their embeddings are less than 45° apart; nothing else counts."""

    def run(*frames, **settings):
        overrides = {"temporal_fusion.enabled": False, "head.embedding_dim": 2, "tracking.match_coeff": (0, 0, 0, 0)}
        overrides |= {"tracking.new_object_similarity": (math.sqrt(1 / 2) + 1) / 2}
        overrides |= {f"tracking.{name}": value for name, value in settings.items()}
        tracker = make_tracker(overrides, request.param)
        return [tracker.update(turned(frame)).track_ids.tolist() for frame in frames]

    return run


def make_tracker(overrides, fixed_shapes):
    """A tracker whose detector takes detections for predictions."""
    config = get_config("STMask_demo_config", {**overrides, "head.centerness": False})
    model = SimpleNamespace(config=config, device=torch.device("cpu"))
    tracker = VideoTracker(model, fixed_shapes=fixed_shapes)
    detector = SimpleNamespace(detect=with_other_rows if fixed_shapes else with_no_other_rows)
    tracker.compute_step = replace(tracker.compute_step, detector=detector)
    return tracker


def with_no_other_rows(detections, *_):
    return detections, torch.ones(len(detections), dtype=torch.bool)


def with_other_rows(detections, *_):
    """`detections`, then four rows that are not real and have the best of scores."""
    others = squares([(0, 0, 1), (3, 0, 1), (8, 8, 1), (9, 0, 2)])
    if detections.embeddings is not None:
        others = replace(others, embeddings=turned([0, 40, 80, 120]).embeddings)
    return Detections.cat([detections, others]), torch.arange(len(detections) + 4) < len(detections)


def squares(places):
    num = len(places)
    masks = torch.zeros(num, SIZE, SIZE)
    for mask, (x, y, _) in zip(masks, places, strict=True):
        mask[y : y + 4, x : x + 4] = 1
    corners = torch.tensor([[x, y, x + 4, y + 4] for x, y, _ in places], dtype=torch.float32).view(num, 4)
    labels = torch.tensor([label for *_, label in places], dtype=torch.int64)
    return Detections(corners / SIZE, torch.linspace(0.9, 0.5, num), labels, None, torch.zeros(num, 16), None, masks)


def turned(angles):
    """Detections beside each other with such embeddings."""
    radians = torch.tensor(angles, dtype=torch.float32).deg2rad()
    detections = squares([(5 * number, 0, 1) for number in range(len(angles))])
    return replace(detections, embeddings=torch.stack((radians.cos(), radians.sin()), dim=1))


def test_a_memory_recognises_what_an_object_looked_like_in_its_last_detections(recognise):
    # An object turns by 80 degrees, is gone, and comes back as it was.
    frames = [[0], [40], [], [80], [], [], [0]]
    assert recognise(*frames) == [[0], [0], [], [0], [], [], [1]]
    assert recognise(*frames, memory=2) == [[0], [0], [], [0], [], [], [0]]  # 40 degrees away
    # Frames without a detection take no place: three detections are known in the end.
    assert recognise(*frames, [-30], memory=3) == [[0], [0], [], [0], [], [], [0], [0]]
    further = [[0], [40], [80], [120], [160], [0]]
    assert [recognise(*further, memory=memory)[-1] for memory in (1, 3, 4, 5)] == [[1], [1], [0], [0]]


def test_each_object_has_a_memory_of_its_own_and_a_forgotten_one_has_none(recognise):
    frames = [[0, 180], [40, 220], [80, 260], [180, 0]]
    assert recognise(*frames, memory=3) == [[0, 1], [0, 1], [0, 1], [1, 0]]
    assert recognise(*frames)[-1] == [2, 3]
    gone = [[0], [40], [80], [], [], [], [0]]
    assert recognise(*gone, memory=3)[-1] == [0] and recognise(*gone, memory=3, max_track_age=2)[-1] == [1]
    many = [[30 * number for number in range(12)]] * 3  # more than the rows of a few objects
    assert recognise(*many, memory=4, new_object_similarity=0.99) == [list(range(12))] * 3


def test_a_moving_object_is_found_again_after_missed_frames(follow):
    seen = [[(0, 0, 1)], [(3, 0, 1)], [], [], [], [(15, 0, 1)]]
    assert follow(*seen) == [[0], [0], [], [], [], [0]]
    assert follow(*seen, motion=0) == [[0], [0], [], [], [], [1]]  # it is no longer where it was last seen
    assert follow(*seen, max_track_age=2) == [[0], [0], [], [], [], [1]]  # forgotten
    assert follow(*seen, max_hidden_age=2) == [[0], [0], [], [], [], [0]]  # stops at 12, which overlaps
    assert follow(*seen, max_hidden_age=1) == [[0], [0], [], [], [], [1]]  # stops at 9


def test_a_still_object_is_found_again_where_it_was(follow):
    still = [(8, 8, 1)]
    assert follow(still, *[[]] * 30, still) == [[0], *[[]] * 30, [0]]
    assert follow(still, *[[]] * 31, still) == [[0], *[[]] * 31, [1]]  # as YOLACT's configs have max_track_age = 30


def test_objects_that_cross_keep_their_ids(follow):
    frames = [[(x, 0, 1), (16 - x, 0, 1)] for x in range(0, 17, 2)]
    assert follow(*frames) == [[0, 1]] * 9
    assert follow(*frames, motion=0)[-1] != [0, 1]


def test_two_detections_share_two_objects_so_that_both_keep_one(follow):
    # The better detection overlaps both objects, the first one more; the other overlaps only that one.
    frames = [[(4, 0, 1), (7, 0, 1)], [(5, 0, 1), (2, 0, 1)]]
    assert follow(*frames) == [[0, 1], [1, 0]]
    assert follow(*frames, joint=False) == [[0, 1], [0]]


def test_an_object_of_another_class_has_to_overlap_more(follow):
    assert follow([(0, 0, 1)], [(3, 0, 1)]) == [[0], [0]]
    assert follow([(0, 0, 1)], [(3, 0, 2)]) == [[0], [1]]
    assert follow([(0, 0, 1)], [(1, 0, 2)]) == [[0], [0]]
    assert follow([(0, 0, 1)], [(4, 0, 1)]) == [[0], [1]]  # beside it


def test_no_detections_and_no_objects(follow):
    assert follow([], [], [(0, 0, 1)], []) == [[], [], [0], []]


def test_only_networks_without_embeddings_are_tracked_so():
    published = get_config("STMask_plus_base_config").tracking
    assert (published.joint, published.motion) == (False, 0)
    for name in MODELS:
        config = get_config(name)
        assert (config.tracking.motion > 0) == config.tracking.joint == (config.head.embedding_dim == 0)
