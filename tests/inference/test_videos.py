"""The results of a video from the objects of its frames, against recorded ones and by hand; frames tracked ahead."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.network import Network
from inference.tracker import VideoTracker
from inference.videos import track_videos
from tests.inference.test_tracker_step import make_model
from tests.reading import read_results
from tests.utils.test_transfers import StandIn
from tools.parity import frame_meta, load_model
from utils.structures import FrameInput, FrameMeta, FrameObjects
from utils.timer import StageTimer
from ytvis.annotations import Track
from ytvis.files import InputError
from ytvis.masks import decode_mask, encode_mask
from ytvis.results import VideoResultBuilder, write_results

REFERENCE = Path(__file__).parents[1] / "fixtures" / "reference"


def frame_objects(rows, masks, shifted=None):
    """`FrameObjects` of rows (track id, label, score) and masks [h,w]; by default none is shifted."""
    ids, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return FrameObjects(
        boxes_px=torch.zeros(len(rows), 4, dtype=torch.int64),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
        track_ids=torch.tensor(ids, dtype=torch.int64),
        masks=torch.stack(masks) if masks else torch.zeros(0, 4, 6, dtype=torch.bool),
        shifted=torch.tensor([False] * len(rows) if shifted is None else shifted, dtype=torch.bool),
    )


def as_dicts(results):
    return [
        {
            "video_id": result.video_id,
            "score": result.score,
            "category_id": result.category_id,
            "segmentations": list(result.segmentations),
        }
        for result in results
    ]


def one_pixel(place=0):
    """A mask [4,6] with a single pixel, the `place`-th down the columns."""
    mask = torch.zeros(6, 4, dtype=torch.bool)
    mask.view(-1)[place] = True
    return mask.T


def test_builder_gives_the_recorded_list():
    recorded = json.loads((REFERENCE / "unit" / "results_json.json").read_text())
    texts = sorted({item["counts"] for frame in recorded["input"] for item in frame["objects"]})
    masks = {text: one_pixel(place) for place, text in enumerate(texts)}  # the recorded texts are only labels
    rles = {text: encode_mask(mask.numpy()) for text, mask in masks.items()}

    results = []
    for video_id in (5, 9):
        frames = [frame for frame in recorded["input"] if frame["video_id"] == video_id]
        builder = VideoResultBuilder(video_id, len(frames), (4, 6), range(1, 41))
        for frame in frames:
            items = frame["objects"]
            rows = [(item["id"], item["label"], item["score"]) for item in items]
            builder.add(frame["frame_id"], frame_objects(rows, [masks[item["counts"]] for item in items]))
        results += builder.finish()

    expected = recorded["output"]
    for entry in expected:
        entry["segmentations"] = [rle and rles[rle["counts"]] for rle in entry["segmentations"]]
    assert as_dicts(results) == expected


@pytest.mark.parametrize("folder", ["STMask_plus_resnet50", "STMask_plus_resnet50_ada"])
@pytest.mark.parametrize("nms", ["cc", "pc"])
def test_builder_gives_the_recorded_results_of_whole_videos(folder, nms):
    tracking = np.load(REFERENCE / folder / f"tracking_{nms}.npz")
    expected = json.loads((REFERENCE / folder / f"results_{nms}.json").read_text())
    ends = np.cumsum(tracking["post_n"])
    # The recording has the masks in its results only: they are read from there, track by track in that order.
    tracks_seen = []
    results = []
    for video_id in sorted(set(tracking["video"].tolist())):
        frames = np.flatnonzero(tracking["video"] == video_id)
        builder = VideoResultBuilder(video_id, len(frames), (180, 320), range(1, 41))
        for frame_index, frame in enumerate(frames):
            rows, masks = [], []
            for row in range(ends[frame] - tracking["post_n"][frame], ends[frame]):
                track = (video_id, int(tracking["post_ids"][row]))
                if track not in tracks_seen:
                    tracks_seen.append(track)
                rle = expected[tracks_seen.index(track)]["segmentations"][frame_index]
                masks.append(torch.from_numpy(decode_mask(rle)))
                rows.append((track[1], int(tracking["post_class"][row]), tracking["post_score"][row]))
            builder.add(frame_index, frame_objects(rows, masks))
        results += builder.finish()
    assert as_dicts(results) == expected  # order, categories, scores and texts, all exactly


def test_majority_vote_takes_the_smallest_label_on_a_tie_and_maps_it():
    builder = VideoResultBuilder(1, 4, (4, 6), [90, 17, 5])
    for frame_index, label in enumerate([3, 2, 2, 3]):
        builder.add(frame_index, frame_objects([(0, label, 0.5)], [one_pixel()]))
    (result,) = builder.finish()
    assert result.category_id == 17  # label 2, though 5 would be the smallest id


def test_a_track_of_a_class_the_file_lacks_is_left_out_and_counted(caplog):
    caplog.set_level("INFO")
    builder = VideoResultBuilder(1, 2, (4, 6), [None, 7])
    builder.add(1, frame_objects([(4, 1, 0.5), (2, 2, 0.25)], [one_pixel(), one_pixel(3)]))
    (result,) = builder.finish()
    assert result == Track(1, 7, (None, encode_mask(one_pixel(3).numpy())), score=0.25, track_id=2)
    assert caplog.messages == [f"video {builder.video_id}: 1 tracks left out, the annotation file lacks their class"]


@pytest.mark.parametrize(("length_power", "expected"), [(0, 0.5), (0.5, 0.25), (1, 0.125)])
def test_the_score_falls_with_the_frames_that_do_not_show_the_track(length_power, expected):
    builder = VideoResultBuilder(1, 8, (4, 6), [1], length_power=length_power)
    for frame, score in ((2, 0.25), (5, 0.75)):
        builder.add(frame, frame_objects([(0, 1, score)], [one_pixel()]))
    assert builder.finish()[0].score == expected


@pytest.mark.parametrize("details", [True, False])
def test_details_are_the_score_of_each_frame_and_where_it_is_shifted(tmp_path, details):
    builder = VideoResultBuilder(1, 4, (4, 6), [1, 2], details)
    builder.add(0, frame_objects([(5, 1, 0.75), (3, 2, 0.5)], [one_pixel(), one_pixel(1)], [False, True]))
    builder.add(2, frame_objects([(3, 2, 0.25), (5, 1, 2 / 3)], [one_pixel(), one_pixel(1)], [False, True]))
    write_results(builder.finish(), tmp_path / "results.json")
    first, second = read_results(tmp_path / "results.json")
    assert first["score"] == pytest.approx((0.75 + 2 / 3) / 2, abs=1e-7)  # of the unrounded scores
    if details:
        assert first["scores"] == [0.75, None, 0.6667, None] and first["shifted"] == [False, False, True, False]
        assert second["scores"] == [0.5, None, 0.25, None] and second["shifted"] == [True, False, False, False]
    else:
        assert list(first) == list(second) == ["video_id", "score", "category_id", "track_id", "segmentations"]
        assert (first["track_id"], second["track_id"]) == (5, 3)


def test_an_empty_mask_counts_as_a_frame():
    builder = VideoResultBuilder(1, 2, (4, 6), [1])
    builder.add(0, frame_objects([(0, 1, 1.0)], [torch.zeros(4, 6, dtype=torch.bool)]))
    builder.add(1, frame_objects([(0, 1, 0.5)], [one_pixel()]))
    (result,) = builder.finish()
    assert result.score == 0.75
    assert not decode_mask(result.segmentations[0]).any()


def test_a_video_without_objects_has_no_results():
    builder = VideoResultBuilder(1, 2, (4, 6), [1])
    builder.add(0, frame_objects([], []))
    assert builder.finish() == []


def test_builder_refuses_a_frame_or_a_mask_of_another_video():
    builder = VideoResultBuilder(1, 2, (4, 7), [1])
    with pytest.raises(IndexError):
        builder.add(2, frame_objects([], []))
    with pytest.raises(ValueError, match="masks"):
        builder.add(0, frame_objects([(0, 1, 1.0)], [one_pixel()]))


# ------------------------------------------------------------------------------------------------ ahead of the host


@pytest.fixture(scope="module")
def model():
    """A small one that finds six objects in every frame."""
    return make_model("detection.conf_threshold=0", "detection.top_k=6", "tracking.new_object_similarity=0")


def small_frames(count):
    """`count` similar frames of noise."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.randint(0, 250, (64, 96, 3), generator=generator)
    for index in range(count):
        picture = (scene + torch.randint(0, 6, scene.shape, generator=generator)).byte()
        yield FrameInput(FrameMeta(1, index, (50, 70), (64, 96), (64, 96)), picture, index == count - 1)


def recorded_frames(videos=(1, 2, 3), bad=(), cuts=()):
    """The recorded clips, as pictures that the network normalises."""
    for video in videos:
        pictures = np.load(REFERENCE / "inputs.npz")[f"video{video}"]
        for index, picture in enumerate(pictures):
            error = "frame.jpg: cannot be decoded" if (video, index) in bad else None
            meta = replace(frame_meta(video, index), is_cut=(video, index) in cuts)
            image = None if error else torch.from_numpy(picture)
            yield FrameInput(meta, image, index == len(pictures) - 1, error=error)


def as_on_a_gpu(model, **settings):
    """(a tracker that runs as on a GPU, the calls it makes): the network, the step, and copies to the host."""
    calls = []

    def logged(name, function):
        def call(*arguments):
            calls.append(name)
            return function(*arguments)

        return call

    tracker = VideoTracker(model, network=Network(model), fixed_shapes=True, **settings)
    tracker.transfers = StandIn(calls)
    tracker.look = logged("network", tracker.look)
    tracker.compute_step = logged("step", tracker.compute_step)
    return tracker, calls


def assert_same_results(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.meta, ours.is_last, ours.error) == (theirs.meta, theirs.is_last, theirs.error)
        if theirs.objects is None:
            assert ours.objects is None
            continue
        for name in ("track_ids", "labels", "boxes_px", "shifted"):
            assert getattr(ours.objects, name).tolist() == getattr(theirs.objects, name).tolist(), name
        assert (ours.objects.masks ^ theirs.objects.masks).sum() <= 1
        torch.testing.assert_close(ours.objects.scores, theirs.objects.scores, atol=1e-4, rtol=0)


def frame_calls(number, then=()):
    return ["step", f"send {number}", *then, f"wait for {number}"]


def test_the_next_frame_s_network_is_launched_before_the_host_waits_for_a_frame(model):
    tracker, calls = as_on_a_gpu(model)
    found = list(track_videos(model, small_frames(3), tracker=tracker, overlap=True))
    expected = list(track_videos(model, small_frames(3)))
    assert_same_results(found, expected)
    launched_next = ["network"]
    assert calls == ["network", *frame_calls(0, launched_next), *frame_calls(1, launched_next), *frame_calls(2)]


def test_a_result_is_waited_for_before_the_next_frame_is_read_unless_they_overlap(model):
    tracker, calls = as_on_a_gpu(model)
    read = []

    def source():
        for frame in small_frames(3):
            read.append(frame)
            yield frame

    for count, _ in enumerate(track_videos(model, source(), tracker=tracker), start=1):
        assert len(read) == count
    assert calls == [call for number in range(3) for call in ("network", *frame_calls(number))]


def test_frames_of_a_batch_wait_for_each_other_and_the_last_one_for_the_next_network(model):
    tracker, calls = as_on_a_gpu(model)
    list(track_videos(model, small_frames(3), tracker=tracker, overlap=True, batch_size=2))
    assert calls == ["network", *frame_calls(0), *frame_calls(1, ["network"]), *frame_calls(2)]


@pytest.mark.parametrize("name, batch_size", [("STMask_plus_resnet50", 1), ("STMask_plus_resnet50_ada", 4)])
def test_results_ahead_of_the_host_are_those_of_frame_by_frame(name, batch_size):
    """Several videos, frames that cannot be read (also the first and the last), and cuts."""
    model = load_model(name)
    frames = list(recorded_frames(bad=[(1, 0), (1, 4), (2, 2)], cuts=[(1, 6), (3, 5)]))
    expected = list(track_videos(model, frames))
    tracker, _ = as_on_a_gpu(model)
    found = list(track_videos(model, frames, tracker=tracker, overlap=True, batch_size=batch_size))
    assert_same_results(found, expected)
    assert sum(len(result.objects) for result in found if result.objects) > 50


def test_frames_before_one_that_cannot_be_read_are_yielded_before_its_error(model):
    def broken():
        yield from small_frames(3)
        raise InputError("in.mp4: broken")

    tracker, calls = as_on_a_gpu(model)
    results = track_videos(model, broken(), tracker=tracker, overlap=True)
    assert [next(results).meta.frame_index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(InputError, match="broken"):
        next(results)
    assert calls[-1] == "wait for 2"


def test_a_run_ahead_of_the_host_can_be_closed_and_its_tracker_used_again(model):
    tracker, _ = as_on_a_gpu(model)
    results = track_videos(model, small_frames(8), tracker=tracker, overlap=True)
    next(results)
    results.close()
    tracker.reset()
    found = list(track_videos(model, small_frames(3), tracker=tracker, overlap=True))
    assert_same_results(found, list(track_videos(model, small_frames(3))))


def test_the_stages_of_a_frame_are_timed_ahead_of_the_host_too(model):
    timers = [StageTimer(torch.device("cpu")) for _ in range(2)]
    for timer, overlap in zip(timers, (False, True), strict=True):
        tracker, _ = as_on_a_gpu(model, timer=timer)
        for _ in track_videos(model, small_frames(3), timer, tracker, overlap=overlap, batch_size=2):
            timer.frame_done()
    counts = [{name: stats.count for name, stats in timer.summary().items()} for timer in timers]
    assert counts[0] == counts[1] == dict.fromkeys(("read", "network", "detect", "track", "write", "total"), 3)
