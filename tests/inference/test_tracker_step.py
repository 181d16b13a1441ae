"""The tracker's step: the same objects in fixed shapes as with as many rows as objects, and nothing to wait for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from data.config import get_config
from data.synthetic import generate
from data.transforms import FrameTransform
from inference.network import Network, fused_copy
from inference.tracker import VideoTracker, num_rows
from inference.tracker_step import Reported, TrackerState
from layers.deform_conv import deform_backend
from stmask import STMask
from tools.launches import overrides
from utils.structures import FusionFeatures, Predictions, RescoredTracks, Tracks
from ytvis.pictures import read_picture

WEIGHTS = Path(__file__).parent.parent.parent / "weights" / "STMask_demo.pth"

EXACT = ("track_ids", "labels", "ages")


def assert_same(found, expected):
    """The same objects in the same order, with values that differ by rounding at most and no pixel of a mask."""
    assert type(found) is type(expected)
    for name, value in vars(expected).items():
        ours = getattr(found, name)
        if name in EXACT:
            assert ours.tolist() == value.tolist(), name
        elif value is not None:
            torch.testing.assert_close(ours, value, atol=2e-4, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")
    assert torch.equal(found.masks > 0.5, expected.masks > 0.5)


PER_CLASS = ["detection.cross_class_nms=False", "detection.max_detections=16"]
SETTINGS = {
    "cross-class": [],
    "per class, forgetting": [*PER_CLASS, "tracking.max_track_age=2"],
    "without fusion": ["temporal_fusion.enabled=False"],
    "without fusion, per class": [*PER_CLASS, "temporal_fusion.enabled=False"],
    "with a memory": ["tracking.memory=3", "tracking.max_track_age=2"],
    "without fusion, with a memory": ["tracking.memory=3", "temporal_fusion.enabled=False"],
}


def make_model(*overrides):
    """A demo model with random weights and scores above 0."""
    torch.manual_seed(0)
    model = STMask.from_config(get_config("STMask_demo_config", ["input.size_hw=64,96", *overrides])).eval()
    for layer in model.prediction_layers[0].centerness_layer:
        torch.nn.init.constant_(layer.bias, 1.0)
    return model


@pytest.fixture(scope="module")
def growing():
    """{kind of settings: (a model that finds twelve objects in a frame, of which some are new, predictions for a batch
    of frames)}."""

    def make(*settings):
        found = ["detection.conf_threshold=0", "detection.top_k=12", "tracking.new_object_similarity=1.6"]
        model = make_model(*found, *settings)
        with torch.inference_mode():
            return model, model(torch.randn(1, 3, 64, 96) + torch.randn(6, 3, 64, 96))

    return {kind: make(*settings) for kind, settings in SETTINGS.items()}


@pytest.mark.parametrize("kind", SETTINGS)
def test_fixed_shapes_track_alike_while_more_objects_become_known(growing, kind):
    model, batch = growing[kind]
    compact, fixed = VideoTracker(model), VideoTracker(model, fixed_shapes=True)
    rows = []
    for keep_ids in (False, True):
        for tracker in (compact, fixed):
            tracker.reset(keep_ids)
        for index in range(6):
            expected = compact.update(batch, index)
            assert_same(fixed.update(batch, index), expected)
            assert_same(fixed.known, compact.known)
            rows.append(len(fixed._state.known))
    assert len(expected) > 0 and expected.track_ids.max() > 12
    assert set(rows) <= {8, 16, 32, 64, 128} and len(set(rows)) > 1


@pytest.mark.parametrize("kind", ["cross-class", "with a memory"])
def test_fixed_shapes_go_on_from_a_state_that_is_taken_over(growing, kind):
    model, batch = growing[kind]
    first, expected = VideoTracker(model, fixed_shapes=True), VideoTracker(model)
    for index in range(3):
        assert_same(first.update(batch, index), expected.update(batch, index))
    state = first.state_dict()
    shapes = {key: value.shape for key, value in expected.state_dict().items()}
    assert {key: value.shape for key, value in state.items()} == shapes
    assert ("known.past_embeddings" in state) == (kind == "with a memory")
    second = VideoTracker(model, fixed_shapes=True)
    second.load_state_dict(state)
    for index in range(3, 6):
        assert_same(second.update(batch, index), expected.update(batch, index))


def test_a_state_with_another_memory_is_refused(growing):
    models = [growing[kind][0] for kind in ("cross-class", "with a memory")]
    states = []
    for model in models:
        tracker = VideoTracker(model)
        tracker.update(growing["cross-class"][1])
        states.append(tracker.state_dict())
    states.append({**states[1], "known.past_embeddings": states[1]["known.past_embeddings"][:, :1]})
    for state in (states[0], states[2]):
        with pytest.raises(ValueError, match="not the state of a tracker"):
            VideoTracker(models[1]).load_state_dict(state)
    VideoTracker(models[0]).load_state_dict(states[1])  # all that the published tracker needs is there


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Videos of the demo's data set, 400 frames and some more."""
    return generate(tmp_path_factory.mktemp("data") / "ShapesVIS", train_videos=1, valid_videos=24, workers=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SETTINGS)
def test_fixed_shapes_track_400_frames_of_the_demo_alike(shapes, kind):
    model = STMask.from_pretrained(WEIGHTS, get_config("STMask_demo_config", SETTINGS[kind]), device="cpu")
    network = Network(model)
    compact, fixed = (VideoTracker(model, network=network, fixed_shapes=fixed) for fixed in (False, True))
    transform = FrameTransform.from_config(model.config)
    count = 0
    for folder in sorted((shapes / "valid" / "JPEGImages").iterdir()):
        for path in sorted(folder.iterdir()):
            predictions = compact.look(transform(read_picture(path))[0][None])
            assert_same(fixed.update(predictions), compact.update(predictions))
            count += 1
        for tracker in (compact, fixed):
            tracker.reset()
    assert count >= 400


def test_many_more_objects_than_before_are_all_fetched():
    """The first frame has more objects than the tracker fetches at once, and so has one after an empty frame."""
    model = make_model(*overrides(40), "temporal_fusion.enabled=False")
    with torch.inference_mode():
        predictions = model(torch.randn(1, 3, 64, 96))
    nothing = replace(predictions, class_logits=torch.full_like(predictions.class_logits, -100.0))
    nothing.class_logits[..., 0] = 100.0
    compact, fixed = VideoTracker(model), VideoTracker(model, fixed_shapes=True)
    for shown in (predictions, nothing, predictions):
        expected = compact.update(shown)
        assert_same(fixed.update(shown), expected)
    assert len(expected) == 40
    assert fixed._state.known.boxes.shape[0] == num_rows(len(fixed.known)) == 64


def test_numbers_of_rows():
    assert [num_rows(n) for n in (0, 1, 8, 9, 16, 17, 33, 64, 65)] == [0, 8, 8, 16, 16, 32, 64, 64, 128]


# ------------------------------------------------------------------------------------------------ nothing to wait for


@pytest.fixture(scope="module", autouse=True)
def dataclasses_as_trees():
    for kind in (Predictions, FusionFeatures, Tracks, RescoredTracks, TrackerState, Reported):
        if kind not in pytree.SUPPORTED_NODES:
            pytree.register_dataclass(kind)


@pytest.mark.parametrize("known", [0, 5])
@pytest.mark.parametrize("kind", SETTINGS)
def test_no_shape_of_a_step_depends_on_a_value(kind, known):
    """The whole step is traced with tensors that have no values: reading one, or a shape that depends on one, fails."""
    model = fused_copy(make_model(*SETTINGS[kind]), torch.float32, pack=False)  # as it runs on a GPU
    tracker = VideoTracker(model, network=Network(model, fused=False), fixed_shapes=True)
    with torch.inference_mode(False), torch.no_grad(), deform_backend("torchvision"):
        predictions = model(torch.randn(1, 3, 64, 96))
        state, reported = tracker.compute_step(tracker._state, predictions)
        rows = num_rows(known)
        state = replace(state, known=state.known[:rows], are_known=state.are_known[:rows])
        traced = make_fx(tracker.compute_step, tracing_mode="fake", _allow_non_fake_inputs=True)(state, predictions)
        found, expected = traced(state, predictions), tracker.compute_step(state, predictions)
    leaves, expected_leaves = pytree.tree_leaves(found), pytree.tree_leaves(expected)
    assert len(leaves) == len(expected_leaves) > 10
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(leaves, expected_leaves, strict=True))


def test_with_as_many_rows_as_objects_shapes_depend_on_values():
    """The test above can fail."""
    model = fused_copy(make_model(), torch.float32, pack=False)
    tracker = VideoTracker(model, network=Network(model, fused=False))
    with torch.inference_mode(False), torch.no_grad(), deform_backend("torchvision"):
        predictions = model(torch.randn(1, 3, 64, 96))
        with pytest.raises(Exception, match="(?i)data.dependent|nonzero"):
            make_fx(tracker.compute_step, tracing_mode="fake", _allow_non_fake_inputs=True)(tracker._state, predictions)
