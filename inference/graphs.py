"""CUDA graphs: a function of tensors whose kernels are recorded once and replayed with one launch.

`Graphs.of(function, …)` is used like the function. For each kind of input (shapes, dtypes, and the values that are no
tensors) the first call runs the function as it is, the second one also records it, the third one compares a replay with
the function on that other input, and later ones replay. Where recording fails or a replay differs, the function runs as
it is from then on, and one line in the log tells why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from layers.cuda import deform_kernels
from layers.cuda.graph_recorder import CudaRecorder
from utils.structures import map_tensors, tensors_in, with_tensors

logger = logging.getLogger(__name__)

MOST_GRAPHS = 16  # of a function: each holds memory, and other kinds of input are not worth a recording


class Recorder(Protocol):
    """How functions without arguments run before they are recorded, and how they are recorded."""

    def run(self, function: Callable[[], Any]) -> Any:
        """What `function` returns, computed as it will be recorded."""
        ...

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """(replay, outputs): each replay writes what `function` computes into the tensors of `outputs`.

        The kernels read and write the memory that `function` uses now, and nothing is computed before a replay.

        Raises:
            Exception: `function` cannot be recorded.
        """
        ...


def cuda_recorder(device: torch.device, dtype: torch.dtype, deforms: bool) -> CudaRecorder | None:
    """The recorder for a network that computes in `dtype` on `device`; None without a GPU, and, logged, if the network
    `deforms` (has deformable convolutions) and none here follows the current stream."""
    if device.type != "cuda":
        return None
    follows = deform_kernels.torchvision_follows_the_stream()
    if deforms and not follows and deform_kernels.preferred_backend(device, dtype) == "torchvision":
        logger.warning("no CUDA graphs: the deformable convolution of torchvision before 0.29 cannot be recorded")
        return None
    return CudaRecorder(device)


@dataclass
class _Recording:
    """A recorded function: `replay` reads the tensors of `inputs` and writes those of `outputs`."""

    replay: Callable[[], None]
    inputs: Any
    outputs: Any
    is_checked: bool = False

    def __call__(self, inputs: Any) -> Any:
        """The outputs for `inputs`, as copies, since the next replay overwrites them."""
        copy_into(tensors_in(self.inputs), tensors_in(inputs))
        self.replay()
        outputs = tensors_in(self.outputs)
        copies = [torch.empty_like(tensor) for tensor in outputs]
        copy_into(copies, outputs)
        return with_tensors(self.outputs, copies)


class Graphs:
    """Functions that `recorder` records. Threads take turns."""

    def __init__(self, recorder: Recorder, most: int = MOST_GRAPHS):
        self.recorder = recorder
        self.most = most
        self.lock = threading.RLock()

    def of(self, function: Callable[..., Any], name: str, tolerance: float) -> GraphedFunction:
        """`function`, recorded and replayed; `name` is for the log.

        It must be pure: its outputs, tensors in any nesting of dataclasses, tuples and lists, depend on its positional
        arguments alone and on tensors that stay in their place, and no shape depends on a value. A replay may differ by
        `tolerance` times the largest number of an output.
        """
        return GraphedFunction(self, function, name, tolerance)


class GraphedFunction:
    """A function that is recorded and replayed; made by `Graphs.of`. It runs in inference mode."""

    def __init__(self, graphs: Graphs, function: Callable[..., Any], name: str, tolerance: float):
        self._graphs = graphs
        self._function = function
        self._name = name
        self._tolerance = tolerance
        self._recordings: dict[Hashable, _Recording | None] = {}  # None: seen once
        self._has_failed = False

    @property
    def num_graphs(self) -> int:
        """The number of recordings whose replays equal the function."""
        return sum(recording is not None and recording.is_checked for recording in self._recordings.values())

    @torch.inference_mode()
    def __call__(self, *inputs: Any) -> Any:
        with self._graphs.lock:
            return self._function(*inputs) if self._has_failed else self._call(inputs)

    def _call(self, inputs: tuple) -> Any:
        kind = kind_of(inputs)
        recording = self._recordings.get(kind)
        if recording is not None and recording.is_checked:
            return recording(inputs)
        if kind not in self._recordings and len(self._recordings) >= self._graphs.most:
            return self._function(*inputs)
        expected = self._graphs.recorder.run(lambda: self._function(*inputs))
        if kind not in self._recordings:
            self._recordings[kind] = None
        elif recording is None:
            self._record(kind, inputs)
        elif agree(recording(inputs), expected, self._tolerance):
            recording.is_checked = True
        else:
            self._give_up("a replay differs")
        return expected

    def _record(self, kind: Hashable, inputs: tuple) -> None:
        inputs = map_tensors(inputs, torch.clone)
        try:
            replay, outputs = self._graphs.recorder.record(lambda: self._function(*inputs))
        except Exception as failure:  # a kernel that cannot be recorded raises anything, and runs without a graph
            self._give_up((str(failure).strip() or type(failure).__name__).splitlines()[0])
        else:
            self._recordings[kind] = _Recording(replay, inputs, outputs)

    def _give_up(self, reason: str) -> None:
        logger.warning("no CUDA graphs for %s: %s", self._name, reason)
        self._has_failed = True
        self._recordings.clear()


def kind_of(inputs: Any) -> Hashable:
    """What recordings are told apart by: shape, dtype and device of every tensor, and all that is no tensor."""
    return map_tensors(inputs, lambda tensor: (tensor.shape, tensor.dtype, tensor.device))


def copy_into(targets: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Copies each source into its target, of the same shape and dtype, with few launches."""
    groups: dict[Hashable, tuple[list[Tensor], list[Tensor]]] = {}
    for target, source in zip(targets, sources, strict=True):
        if target.numel():
            group = groups.setdefault((target.dtype, target.stride() == source.stride()), ([], []))
            group[0].append(target)
            group[1].append(source)
    for group in groups.values():
        torch._foreach_copy_(*group)


def agree(found: Any, expected: Any, tolerance: float) -> bool:
    """Whether two results have the same kind, and values that differ by `tolerance` times the largest number of their
    tensor at most; not at all where they are no floating-point numbers. The host waits for the device."""
    if kind_of(found) != kind_of(expected):
        return False
    return all(
        _are_close(ours, theirs, tolerance)
        for ours, theirs in zip(tensors_in(found), tensors_in(expected), strict=True)
    )


def _are_close(found: Tensor, expected: Tensor, tolerance: float) -> bool:
    if not found.is_floating_point() or not found.numel():
        return torch.equal(found, expected)
    size = torch.where(expected.isfinite(), expected, 0).abs().max().item()
    return torch.allclose(found, expected, rtol=0, atol=tolerance * size, equal_nan=True)
