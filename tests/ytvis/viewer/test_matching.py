import pytest

from tests.ytvis.rectangles import rectangle
from ytvis.annotations import Track
from ytvis.viewer.matching import FrameMatches, link_tracks, match_frames


def rle(x1, x2):
    """A mask of row 0 of an image 20 pixels wide, columns x1…x2-1."""
    return rectangle(x1, 0, x2 - x1, 1, (1, 20))


def track(*ranges, score=0.5, category_id=1, is_crowd=False):
    masks = tuple(None if ends is None else rle(*ends) for ends in ranges)
    return Track(1, category_id, masks, iscrowd=is_crowd, score=score)


def test_no_tracks_and_no_frames():
    assert match_frames([], [], 0) == []
    assert match_frames([], [], 2) == [FrameMatches(), FrameMatches()]
    assert link_tracks([], [track((0, 4))], 1) == {}


def test_found_missed_and_false():
    truths = [track((0, 4), (0, 4)), track((10, 14), None)]
    predictions = [track((0, 4), None), track(None, (16, 18))]
    first, second = match_frames(predictions, truths, 2)
    assert first == FrameMatches(matched=[(0, 0)], missed=[1])
    assert second == FrameMatches(missed=[0], false=[1])


@pytest.mark.parametrize(("end", "is_found"), [(8, True), (9, False), (2, True), (1, False)])
def test_half_an_iou_is_enough_and_less_is_not(end, is_found):
    (frame,) = match_frames([track((0, end))], [track((0, 4))], 1)
    assert frame == (FrameMatches(matched=[(0, 0)]) if is_found else FrameMatches(missed=[0], false=[0]))


def test_the_higher_score_takes_the_object_even_if_it_overlaps_less():
    truths = [track((0, 10))]
    (frame,) = match_frames([track((0, 10), score=0.2), track((0, 8), score=0.9)], truths, 1)
    assert frame == FrameMatches(matched=[(1, 0)], false=[0])


def test_a_track_takes_the_object_it_overlaps_most():
    truths = [track((0, 10)), track((0, 8))]
    (frame,) = match_frames([track((0, 8))], truths, 1)
    assert frame == FrameMatches(matched=[(0, 1)], missed=[0])


def test_the_pair_of_the_frame_before_is_kept():
    truths = [track((0, 10), (0, 10))]
    predictions = [track((0, 9), (0, 7), score=0.2), track(None, (0, 10), score=0.9)]
    assert match_frames(predictions, truths, 2)[1] == FrameMatches(matched=[(0, 0)], false=[1])


def test_a_switch_is_marked_once_even_after_a_gap():
    truths = [track((0, 4), (0, 4), (0, 4), (0, 4))]
    predictions = [track((0, 4), None, None, None), track(None, None, (0, 4), (0, 4))]
    frames = match_frames(predictions, truths, 4)
    assert [frame.switched for frame in frames] == [[], [], [(1, 0)], []]
    assert [frame.missed for frame in frames] == [[], [0], [], []]


def test_two_tracks_that_swap_are_two_switches():
    truths = [track((0, 4), (0, 4)), track((10, 14), (10, 14))]
    predictions = [track((0, 4), (10, 14)), track((10, 14), (0, 4))]
    assert match_frames(predictions, truths, 2)[1].switched == [(0, 1), (1, 0)]


def test_another_class_is_found_but_wrong():
    (frame,) = match_frames([track((0, 4), category_id=2)], [track((0, 4))], 1)
    assert frame == FrameMatches(matched=[(0, 0)], wrong_class=[0])


def test_crowds_are_neither_missed_nor_is_what_lies_in_them_false():
    truths = [track((0, 10), is_crowd=True)]
    (frame,) = match_frames([track((2, 4)), track((9, 13))], truths, 1)
    assert frame == FrameMatches(false=[1])


def test_links_go_to_the_track_that_shares_the_most_frames():
    others = [track((0, 4), (0, 4), (0, 4))]
    tracks = [track((0, 4), None, None), track(None, (0, 4), (0, 4)), track(None, None, (12, 14))]
    assert link_tracks(tracks, others, 3) == {1: 0}


def test_as_dict_leaves_out_what_is_empty():
    assert FrameMatches(missed=[3]).as_dict() == {"missed": [3]}
