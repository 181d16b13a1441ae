"""Graphs: what is recorded, checked, replayed or given up, with a stand-in that replays by calling the function."""

import logging
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from data.config import get_config
from data.transforms import FrameTransform
from inference import graphs, network
from inference.graphs import Graphs, agree, copy_into, cuda_recorder, kind_of
from inference.network import Network
from inference.tracker import VideoTracker
from layers.cuda import deform_kernels
from stmask import STMask
from tests.inference.test_tracker_step import assert_same, make_model
from utils.structures import map_tensors, tensors_in


@dataclass
class StandIn:
    """Replays by calling the recorded function on its own inputs; `calls` are "run", "record" and "replay"."""

    calls: list[str] = field(default_factory=list)
    failure: str | None = None
    error: float = 0.0

    def run(self, function):
        self.calls.append("run")
        return function()

    def record(self, function):
        self.calls.append("record")
        if self.failure:
            raise RuntimeError(self.failure)
        outputs = map_tensors(function(), torch.zeros_like)  # a recording computes nothing

        def replay():
            self.calls.append("replay")
            for ours, new in zip(tensors_in(outputs), tensors_in(function()), strict=True):
                ours.copy_(new + self.error if new.is_floating_point() else new)

        return replay, outputs


def of(function, most=16, **settings):
    recorder = StandIn(**settings)
    return Graphs(recorder, most).of(function, "the sum", tolerance=1e-3), recorder


def total(numbers, count=1):
    return [numbers.sum() * count, numbers.long()]


def results(graphed, *sizes):
    return [graphed(torch.full((size,), float(value)))[0].item() for value, size in enumerate(sizes, start=1)]


def test_the_second_call_is_recorded_the_third_compared_and_later_ones_replayed():
    graphed, recorder = of(total)
    assert results(graphed, 3, 3, 3, 3, 3) == [3, 6, 9, 12, 15]
    assert recorder.calls == ["run", "run", "record", "run", "replay", "replay", "replay"]
    assert graphed.num_graphs == 1


def test_results_stay_when_the_next_replay_overwrites_the_recorded_ones():
    graphed, _ = of(total)
    found = [graphed(torch.full((2,), float(value))) for value in range(6)]
    assert [(sums.item(), numbers.tolist()) for sums, numbers in found] == [(2 * v, [v, v]) for v in range(6)]


def test_the_caller_s_tensors_are_read_and_not_kept():
    graphed, _ = of(total)
    numbers = torch.ones(2)
    for value in range(5):
        numbers.fill_(value)
        assert graphed(numbers)[0] == 2 * value


def test_each_shape_dtype_and_other_value_has_a_recording():
    graphed, recorder = of(total)
    for _ in range(4):
        assert graphed(torch.ones(2))[0] == 2
        assert graphed(torch.ones(3))[0] == 3
        assert graphed(torch.ones(2, dtype=torch.float64))[0].dtype == torch.float64
        assert graphed(torch.ones(2), 5)[0] == 10
    assert graphed.num_graphs == 4 and recorder.calls.count("record") == 4


def test_further_kinds_of_input_are_not_recorded_beyond_a_number():
    graphed, recorder = of(total, most=2)
    assert results(graphed, *[1, 2, 3] * 4) == [value * size for value, size in enumerate([1, 2, 3] * 4, start=1)]
    assert graphed.num_graphs == 2 and recorder.calls.count("record") == 2


def test_where_recording_fails_the_function_runs_and_one_line_tells_why(caplog):
    graphed, recorder = of(total, failure="operation not permitted\nmore")
    assert results(graphed, 3, 3, 3, 3, 2, 2) == [3, 6, 9, 12, 10, 12]
    assert recorder.calls == ["run", "run", "record"]
    assert [record.getMessage() for record in caplog.records] == ["no CUDA graphs for the sum: operation not permitted"]


@pytest.mark.parametrize("error", [1.0, float("nan")])
def test_where_a_replay_differs_the_function_runs_and_one_line_tells_why(caplog, error):
    graphed, recorder = of(total, error=error)
    assert results(graphed, 3, 3, 3, 3, 3) == [3, 6, 9, 12, 15]
    assert recorder.calls == ["run", "run", "record", "run", "replay"] and graphed.num_graphs == 0
    assert [record.getMessage() for record in caplog.records] == ["no CUDA graphs for the sum: a replay differs"]


def test_a_function_that_depends_on_the_recorded_values_is_not_replayed(caplog):
    """A graph contains the values that the host had when it was recorded."""
    kept = {}
    graphed, recorder = of(lambda numbers: [numbers * kept.setdefault(id(numbers), numbers.sum().item())])
    numbers = [torch.full((2,), float(value)) for value in (1, 2, 3, 4)]
    found = [graphed(x)[0].tolist() for x in numbers]
    assert found == [[2, 2], [8, 8], [18, 18], [32, 32]]
    assert "a replay differs" in caplog.text and recorder.calls[-1] == "replay"


def test_errors_of_the_function_are_the_caller_s():
    graphed, _ = of(total)
    with pytest.raises(TypeError):
        graphed(torch.ones(1), None)


def test_results_agree_up_to_the_tolerance_of_their_largest_number():
    nan, inf = float("nan"), float("inf")
    numbers = [torch.tensor([100.0, 0.0, nan, -inf]), torch.tensor([3, 4]), torch.empty(0)]
    assert agree([numbers[0] + 0.05, *numbers[1:]], numbers, 1e-3)
    assert not agree([numbers[0] + 0.2, *numbers[1:]], numbers, 1e-3)
    assert not agree([numbers[0], numbers[1] + 1, numbers[2]], numbers, 1.0)
    assert not agree([numbers[0].nan_to_num(), *numbers[1:]], numbers, 1.0)
    assert not agree([numbers[0].double(), *numbers[1:]], numbers, 1.0)
    assert not agree(numbers[:2], numbers, 1.0)


def test_tensors_of_any_layout_are_copied():
    sources = [torch.rand(2, 3), torch.rand(3, 2).T, torch.arange(3), torch.rand(1, 3).expand(2, 3), torch.empty(0)]
    targets = [
        torch.zeros(2, 3),
        torch.zeros(2, 3),
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(2, 3),
        torch.ones(0),
    ]
    copy_into(targets, sources)
    assert all(torch.equal(target, source) for target, source in zip(targets, sources, strict=True))
    assert kind_of(targets[0]) != kind_of(targets[2])


@pytest.mark.parametrize("follows", [False, True])
@pytest.mark.parametrize("backend", ["torchvision", "nvrtc"])
def test_graphs_need_a_deformable_convolution_that_follows_the_stream(monkeypatch, caplog, follows, backend):
    monkeypatch.setattr(deform_kernels, "torchvision_follows_the_stream", lambda: follows)
    monkeypatch.setattr(deform_kernels, "preferred_backend", lambda device, dtype: backend)
    gpu = torch.device("cuda")
    usable = follows or backend == "nvrtc"
    assert (cuda_recorder(gpu, torch.float32, deforms=True) is not None) == usable
    assert ("before 0.29" in caplog.text) != usable
    assert cuda_recorder(gpu, torch.float32, deforms=False)
    assert cuda_recorder(torch.device("cpu"), torch.float32, deforms=True) is None


# ------------------------------------------------------------------------------------------- the network and the step


@pytest.fixture
def recorder(monkeypatch):
    """A stand-in for the recorder of a GPU, on which networks run as on one."""
    recorder = StandIn()
    monkeypatch.setattr(network, "cuda_recorder", lambda *arguments, **settings: recorder)
    monkeypatch.setattr(network, "computes_at_anchors", lambda *arguments: False)
    return recorder


GROWING = ["detection.conf_threshold=0", "detection.top_k=6", "tracking.new_object_similarity=1"]


@pytest.mark.parametrize("more", [[], ["temporal_fusion.enabled=False"]])
def test_a_tracker_with_graphs_finds_what_one_without_does(recorder, more, caplog):
    model = make_model(*GROWING, *more)
    expected = VideoTracker(model, fixed_shapes=True, network=Network(model))
    tracker = VideoTracker(model, fixed_shapes=True, network=Network(model, graphs=True))
    images = torch.randn(1, 3, 64, 96) + 0.1 * torch.randn(4, 3, 64, 96)
    for keep_ids in (True, False):
        for image in images:
            assert_same(tracker.step(image), expected.step(image))
            assert_same(tracker.known, expected.known)
        for each in (tracker, expected):
            each.reset(keep_ids)
    assert tracker.network._forward.num_graphs == 1
    assert tracker._replay_step.num_graphs >= 1 and not caplog.records


def test_pictures_are_normalised_in_the_network_s_graph(recorder, caplog):
    model = make_model()
    plain, graphed = Network(model), Network(model, graphs=True)
    transform = FrameTransform.from_config(model.config)
    frames = np.random.default_rng(0).integers(0, 256, (5, 40, 70, 3), np.uint8)
    for frame in frames:
        expected = plain(transform(frame)[0][None])
        found = graphed(transform.for_network(frame)[None])
        assert all(torch.equal(*pair) for pair in zip(tensors_in(found), tensors_in(expected), strict=True))
    assert recorder.calls[-2:] == ["replay", "replay"] and not caplog.records
    (recording,) = graphed._forward._recordings.values()
    assert [(tensor.dtype, tensor.shape) for tensor in tensors_in(recording.inputs)] == [(torch.uint8, (1, 64, 96, 3))]


def test_a_batch_and_its_frames_are_replayed_one_by_one(recorder):
    model = make_model(*GROWING)
    expected = VideoTracker(model, fixed_shapes=True, network=Network(model))
    tracker = VideoTracker(model, fixed_shapes=True, network=Network(model, graphs=True))
    for _ in range(4):
        images = torch.randn(2, 3, 64, 96)
        ours, theirs = tracker.look(images), expected.look(images)
        for index in range(2):
            assert_same(tracker.update(ours, index), expected.update(theirs, index))
    assert tracker.network._forward.num_graphs == 1 and tracker._replay_step.num_graphs >= 1


def test_several_trackers_of_a_network_keep_their_videos_apart(recorder):
    model = make_model(*GROWING)
    shared = Network(model, graphs=True)
    trackers = [VideoTracker(model, fixed_shapes=True, network=shared) for _ in range(2)]
    expected = [VideoTracker(model, fixed_shapes=True, network=Network(model)) for _ in range(2)]
    for _ in range(4):
        images = torch.randn(2, 3, 64, 96)
        for index in range(2):
            assert_same(trackers[index].step(images[index]), expected[index].step(images[index]))


def test_what_cannot_be_recorded_has_no_graphs(recorder):
    model = make_model()
    assert Network(model, graphs=True).graphs and not Network(model).graphs
    assert not Network(model, fused=False, graphs=True).graphs
    assert not Network(model, compiled=True, graphs=True).graphs
    compact = VideoTracker(model, network=Network(model, graphs=True), fixed_shapes=False)
    assert compact._replay_step is None
    yolact = STMask.from_config(get_config("YOLACT_resnet50_config", ["input.size_hw=64,96"])).eval()
    assert yolact.config.tracking.joint
    assert VideoTracker(yolact, network=Network(yolact, graphs=True), fixed_shapes=True)._replay_step is None


def test_a_network_on_a_cpu_has_no_graphs(caplog):
    caplog.set_level(logging.INFO)
    assert Network(make_model(), graphs=True).graphs is None
    assert not caplog.records and graphs.MOST_GRAPHS >= 4
