"""Records CUDA graphs."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch


class CudaRecorder:
    """Records CUDA graphs on `device`, on a stream of its own and all in one memory pool: replay them on one stream."""

    def __init__(self, device: torch.device):
        self._device = device

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self._device)

    @cached_property
    def _pool(self) -> Any:
        return torch.cuda.graph_pool_handle()

    def run(self, function: Callable[[], Any]) -> Any:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            outputs = function()
        current.wait_stream(self._stream)
        return outputs

    def record(self, function: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        graph = torch.cuda.CUDAGraph()
        # Only this thread must not wait: others read frames and write results meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            outputs = function()
        return graph.replay, outputs
