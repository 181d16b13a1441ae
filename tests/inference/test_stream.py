"""STMask.stream: tracks of a stream of frames, and the state and memory of its tracker."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from data.config import TRACKING_BY_OVERLAP, get_config
from data.transforms import FrameTransform
from data.video import SceneCuts, VideoWriter
from inference.network import Network
from inference.stream import Stream
from inference.tracker import VideoTracker
from inference.tracker_step import make_detector
from layers.postprocess import postprocess
from stmask import STMask
from utils.structures import FrameMeta
from ytvis.files import InputError

SMALL = {"input.size_hw": (60, 90)}


def make_model(**overrides):
    """A demo model with random weights, but a centerness with which it finds objects."""
    torch.manual_seed(0)
    model = STMask.from_config(get_config("STMask_demo_config", {**SMALL, **overrides}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "centerness_layer" in name and name.endswith("bias"):
                parameter += 1
    return model.eval()


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def frames():
    """Five frames of a picture that moves right: [5,48,64,3]."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return np.stack([np.roll(picture, 2 * index, axis=1) for index in range(5)])


def summary(stream):
    return [
        (frame.index, frame.track_ids.tolist(), frame.names, frame.boxes_px.tolist(), frame.rles) for frame in stream
    ]


# ------------------------------------------------------------------------------------------------ what comes out


def test_each_frame_has_what_the_tracker_finds(model, frames):
    tracker, transform = VideoTracker(model, network=Network(model)), FrameTransform.from_config(model.config)
    seen = list(model.stream(frames, frame_rate=10))
    assert [frame.index for frame in seen] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in seen] == [0, 0.1, 0.2, 0.3, 0.4]
    for index, frame in enumerate(seen):
        image, resized_hw, padded_hw = transform(frames[index])
        meta = FrameMeta(0, index, (48, 64), resized_hw, padded_hw)
        expected = postprocess(tracker.step(image), meta, model.config.postprocess.score_threshold)
        assert np.array_equal(frame.frame, frames[index])
        assert len(expected) > 0
        for name, value in vars(expected).items():
            assert torch.equal(getattr(frame.objects, name), value), name
        assert frame.masks.shape == (len(expected), 48, 64) and frame.masks.dtype == torch.bool
        assert frame.names == [frame.class_names[label - 1] for label in expected.labels]
        assert frame.draw().shape == (48, 64, 3) and not np.array_equal(frame.draw(), frame.frame)


def test_a_file_a_folder_and_an_iterable_give_the_same(model, frames, tmp_path):
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame[..., ::-1])
    expected = summary(model.stream(iter(frames)))
    assert summary(model.stream(tmp_path)) == expected
    assert summary(model.stream(f"{tmp_path}/*.png")) == expected
    names = [frame.name for frame in model.stream(tmp_path)]
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert [row.file_name for frame in model.stream(tmp_path) for row in frame.rows[:1]] == names
    assert [frame.to_labelme()["imagePath"] for frame in model.stream(tmp_path)] == names
    assert [frame.to_labelme()["imagePath"] for frame in model.stream(iter(frames))] == [
        f"00000{n}.png" for n in range(5)
    ]
    (first,) = list(model.stream(iter(frames[:1])))
    assert first.to_labelme("other.jpg")["imagePath"] == "other.jpg" and first.rows[0].file_name == ""


def test_a_video_of_variable_frame_rate_keeps_its_times(model, frames, tmp_path):
    times = [0.0, 0.04, 0.5, 0.53, 2.0]
    with VideoWriter(tmp_path / "a.mp4", 25, (48, 64)) as writer:
        for frame, time_s in zip(frames, times, strict=True):
            writer.write(frame, time_s)
    stream = model.stream(tmp_path / "a.mp4")
    assert stream.source.num_frames == 5
    assert [frame.time_s for frame in stream] == pytest.approx(times, abs=1e-4)


def test_the_first_result_comes_after_the_first_frame(model, frames):
    fetched = []

    def source():
        for index, frame in enumerate(frames):
            fetched.append(index)
            yield frame

    stream = model.stream(source())
    assert fetched == []
    assert next(stream).index == 0
    assert fetched == [0]


def test_a_broken_file_gives_its_frames_and_then_one_error(model, frames, tmp_path):
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    (tmp_path / "2.png").write_bytes(b"no picture")
    seen = []
    with pytest.raises(InputError, match=r"2\.png: cannot be decoded"):
        for frame in model.stream(tmp_path):
            seen.append(frame.index)
    assert seen == [0, 1, 3, 4]


def test_nothing_in_nothing_out(model):
    assert list(model.stream([])) == []


def test_what_is_not_there_is_told_at_once(model):
    with pytest.raises(InputError, match="missing.mp4"):
        model.stream("missing.mp4")
    with pytest.raises(InputError, match="unknown class 'dog, cat'; the model knows circle, ring"):
        model.stream([], classes=["dog", "circle", "cat"])


def test_only_the_classes_asked_for(frames):
    model = make_model(**{"postprocess.top_k": 1})
    every = list(make_model().stream(frames))
    counts = {name: sum(frame.names.count(name) for frame in every) for name in every[0].class_names}
    name = min((name for name in counts if counts[name]), key=counts.get)
    best = {frame.index: frame.scores[[n == name for n in frame.names]].max() for frame in every if name in frame.names}
    some = list(model.stream(frames, classes=[name]))
    assert best and {frame.index: frame.scores.max() for frame in some if frame.names} == best
    assert {n for frame in some for n in frame.names} == {name}  # the best of its class, though others score higher


def test_pil_images_and_views_are_frames_like_arrays(model, frames):
    expected = summary(model.stream(frames[:2]))
    assert summary(model.stream(Image.fromarray(frame) for frame in frames[:2])) == expected
    assert summary(model.stream([frame[..., ::-1].copy()[..., ::-1] for frame in frames[:2]])) == expected
    turned = Image.fromarray(np.rot90(frames[0]).copy())
    turned.getexif()[0x0112] = 6  # shown turned by 90° clockwise
    assert summary(model.stream([turned])) == summary(model.stream(frames[:1]))


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (None, TypeError, "not NoneType"),
        ([[[0, 0, 0]]], TypeError, "not list"),
        ("frame.png", TypeError, "not str"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), TypeError, "not Tensor"),
        (np.zeros((4, 4, 3)), TypeError, "not float64"),
        (np.zeros((4, 4), np.uint8), ValueError, r"not of shape \[4, 4\]"),
        (np.zeros((3, 4, 4), np.uint8), ValueError, r"not of shape \[3, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"not of shape \[0, 4, 3\]"),
        (Image.fromarray(np.zeros((4, 4), np.uint16)), ValueError, "more than 8 bits"),
    ],
)
@pytest.mark.parametrize("overlap", [False, True])
def test_what_is_no_frame_is_refused_with_its_number(model, frames, frame, error, words, overlap):
    stream = model.stream([frames[0], frame], overlap=overlap)
    next(stream)
    with pytest.raises(error, match=f"^frame 1: .*{words}"):
        next(stream)


@pytest.mark.parametrize("source", [None, 1.5, True, object()])
def test_what_is_no_source_is_refused_at_once(model, source):
    with pytest.raises(TypeError, match="a source of frames is a path"):
        model.stream(source)


# ------------------------------------------------------------------------------------------------ ends and jumps


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "read_ahead"]


@pytest.mark.parametrize("how", ["close", "with", "drop", "exhaust"])
def test_the_end_of_a_stream_releases_its_source_and_the_model(frames, tmp_path, how):
    model = make_model().train()
    for index, frame in enumerate([*frames, *frames]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    stream = model.stream(tmp_path)
    next(stream)
    assert threads() and not model.training
    if how == "close":
        stream.close()
        assert list(stream) == []
    elif how == "with":
        with stream:
            next(stream)
    elif how == "exhaust":
        list(stream)
    else:
        del stream
    assert threads() == [] and model.training


@pytest.mark.parametrize("read", [0, 1, 2])
@pytest.mark.parametrize("overlap", [False, True])
def test_the_end_of_a_stream_closes_a_generator_of_frames(model, frames, read, overlap):
    is_closed = []

    def source():
        try:
            yield None
            yield from frames
        finally:
            is_closed.append(True)

    generator = source()
    next(generator)
    stream = model.stream(generator, overlap=overlap)
    for _ in range(read):
        next(stream)
    assert is_closed == []
    stream.close()
    assert is_closed == [True]


def test_a_stream_that_never_began_can_be_closed(model, tmp_path, frames):
    cv2.imwrite(str(tmp_path / "0.png"), frames[0])
    stream = model.stream(tmp_path)
    assert isinstance(stream, Stream)
    stream.close()
    assert list(stream) == [] and threads() == []


def test_reset_forgets_the_objects_but_no_id_comes_twice(model, frames):
    stream = model.stream([frames[0], frames[1], frames[0]])
    first, second = next(stream), next(stream)
    highest = max(*first.track_ids.tolist(), *second.track_ids.tolist(), len(stream.tracker.known) - 1)
    stream.reset()
    third = next(stream)
    assert third.boxes_px.tolist() == first.boxes_px.tolist()
    assert third.track_ids.min() > highest


def test_a_hard_cut_resets_and_slow_motion_does_not(model, frames):
    shots = [frames[0] // 2, frames[1] // 2, frames[1] // 2 + 127, frames[2] // 2 + 127]
    seen = list(model.stream(shots, scene_cut=True))
    assert [frame.is_cut for frame in seen] == [False, False, True, False]
    alone = list(model.stream(shots[2:]))
    for ours, theirs in zip(seen[2:], alone, strict=True):
        assert ours.boxes_px.tolist() == theirs.boxes_px.tolist() and len(ours.names) > 0
        shift = ours.track_ids - theirs.track_ids
        assert (shift == shift[0]).all() and shift[0] > 0
    assert not any(frame.is_cut for frame in model.stream(shots))
    assert not any(frame.is_cut for frame in model.stream(shots, scene_cut=1.0))
    assert [frame.is_cut for frame in model.stream(shots, scene_cut=0.0)] == [False, False, True, False]
    assert 0 < SceneCuts.DEFAULT_THRESHOLD < 1


# ------------------------------------------------------------------------------------------------ state


@pytest.mark.parametrize(
    "overrides", [{}, {"temporal_fusion.enabled": False}, TRACKING_BY_OVERLAP], ids=["fusion", "without", "overlap"]
)
@pytest.mark.parametrize("at", [0, 2])
def test_a_restored_tracker_goes_on_identically(frames, tmp_path, overrides, at):
    model = make_model(**overrides)
    whole = list(model.stream(frames, tracker=VideoTracker(model)))
    tracker = VideoTracker(model)
    list(model.stream(frames[:at], tracker=tracker))
    torch.save(tracker.state_dict(), tmp_path / "state.pth")
    restored = VideoTracker(model)
    restored.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    for ours, theirs in zip(model.stream(frames[at:], tracker=restored), whole[at:], strict=True):
        for name, value in vars(theirs.objects).items():
            assert torch.equal(getattr(ours.objects, name), value), name
    for name, value in tracker.state_dict().items():  # the saved one was not moved on
        saved = torch.load(tmp_path / "state.pth", weights_only=True)[name]
        torch.testing.assert_close(value, saved, rtol=0, atol=0, equal_nan=True)


def test_the_state_is_a_copy_of_plain_tensors(model, frames):
    tracker = VideoTracker(model)
    list(model.stream(frames[:2], tracker=tracker))
    state = tracker.state_dict()
    assert all(type(value) is torch.Tensor and not value.is_inference() for value in state.values())
    state["known.boxes"].zero_()
    assert tracker.known.boxes.any()


def test_the_state_of_another_model_is_refused(model, frames):
    tracker = VideoTracker(model)
    list(model.stream(frames[:1], tracker=tracker))
    state = tracker.state_dict()
    without_fusion = VideoTracker(make_model(**{"temporal_fusion.enabled": False}))
    narrow = VideoTracker(make_model(**{"head.embedding_dim": 16}))
    for other in (without_fusion, narrow):
        with pytest.raises(ValueError, match="not the state of a tracker of this model"):
            other.load_state_dict(state)
    with pytest.raises(ValueError, match="known.masks is missing"):
        tracker.load_state_dict({key: value for key, value in state.items() if key != "known.masks"})
    with pytest.raises(ValueError, match="not the state"):
        tracker.load_state_dict({})


# ------------------------------------------------------------------------------------------------ a long stream


@pytest.mark.parametrize("fusion", [True, False])
def test_known_objects_do_not_grow_with_a_stream(frames, fusion):
    """Every frame shows one object, and it is never matched with a known one."""
    model = make_model(**{"temporal_fusion.enabled": fusion, "tracking.new_object_similarity": 9.0})
    with torch.inference_mode():
        predictions = model(FrameTransform.from_config(model.config)(frames[0])[0][None])
    one = make_detector(model.config)(predictions)[:1]
    detector = SimpleNamespace(detect=lambda *_: (one, torch.ones(1, dtype=torch.bool)))
    counts, sizes = {}, {}
    for max_track_age in (0, 5):
        tracker = VideoTracker(model, max_track_age=max_track_age)
        tracker.compute_step = replace(tracker.compute_step, detector=detector)
        counts[max_track_age], sizes[max_track_age] = [], []
        for _ in range(60):
            tracker.update(predictions)
            counts[max_track_age].append(len(tracker.known))
            sizes[max_track_age].append(sum(value.numel() for value in tracker.state_dict().values()))
        assert tracker.known.track_ids[-1] == 59  # an id is never used again
    assert counts[0] == list(range(1, 61))
    assert counts[5] == [1, 2, 3, 4, 5, *[6] * 55]  # seen now, and one to five frames ago
    assert sizes[0][-1] > 2 * sizes[5][-1] and len(set(sizes[5][5:])) == 1


def test_a_stream_forgets_after_sixty_frames_unless_told_otherwise(model):
    assert VideoTracker(model).max_track_age == 0
    assert model.stream([]).tracker.max_track_age == 60
    assert model.stream([], max_track_age=0).tracker.max_track_age == 0
    tracker = VideoTracker(model, max_track_age=7)
    assert model.stream([], tracker=tracker).tracker is tracker


def test_a_track_seen_in_time_is_kept(model, frames):
    still = [frames[0]] * 6
    assert summary(model.stream(still, max_track_age=1)) == summary(model.stream(still, max_track_age=0))
