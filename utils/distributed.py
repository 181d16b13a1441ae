"""Several processes that train or evaluate as one; all of torch.distributed is here.

    with launch(options.device) as world:       # as many processes as torchrun started, otherwise one
        for video in world.share(videos):
            ...
        parts = world.collect(found)            # a list on the main process, None on the others

With one process every function returns its plain value, and torch.distributed is not used.
"""

import logging
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from utils.device import pick_device
from ytvis.files import InputError

logger = logging.getLogger(__name__)

# Limit for one process to wait for another where the work is uneven: a long video, the scoring of a validation.
# torchrun, not this limit, detects a process that died.
PATIENCE = timedelta(days=1)


class World:
    """The processes of a run, seen from one: its number `rank` of `size`, and its `device`. Made by `launch`.

    Every process has to call `gather`, `mean`, `any`, `collect`, `broadcast` and `barrier` in the same order.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1, control: dist.ProcessGroup | None = None):
        """`control` is a gloo group for flags and Python objects."""
        self.device = device
        self.rank = rank
        self.size = size
        self.is_queued = device.type == "cuda"  # works through a queue: the host waits for it only to read a value
        self._control = control

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and logs."""
        return self.rank == 0

    def share(self, items: Sequence) -> Sequence:
        """This process's part of `items`: number `rank`, `rank` + `size`, …; all parts together are all items."""
        return items[self.rank :: self.size]

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all processes, interleaved: the first of every process, then the second of every process, …

        That is the order of `share`. The number N ≥ 0 of `rows` [N,…] may differ between processes. Each process must
        compute the same scalar from the result. The gradient of a process's own rows is `size` times the scalar's, and
        the others have none: averaged over processes, as DistributedDataParallel does with parameters, that is the
        gradient of the scalar.
        """
        return rows if self.size == 1 else _Gather.apply(rows, self.rank, self.size)

    @torch.no_grad()
    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over processes, without gradient; not finite if one of them is not."""
        if self.size == 1:
            return values.detach()
        total = values.detach().clone()
        dist.all_reduce(total)
        return total / self.size

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any process."""
        if self.size == 1:
            return flag
        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._control)
        return bool(flags)

    def collect(self, item: Any) -> list | None:
        """The `item`s of all processes by rank on the main process, None on the others; anything that pickles."""
        if self.size == 1:
            return [item]
        items = [None] * self.size if self.is_main else None
        dist.gather_object(item, items, group=self._control)
        return items

    def broadcast(self, item: Any) -> Any:
        """The main process's `item`; that of the others is ignored."""
        items = [item]
        if self.size > 1:
            dist.broadcast_object_list(items, group=self._control)
        return items[0]

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Copies the main process's values into `tensors`, which are on `device`."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def barrier(self) -> None:
        """Waits until every process has called it."""
        self.any(False)

    def parallel(self, module: nn.Module, find_unused: bool) -> nn.Module:
        """`module` with the gradients of its parameters averaged over processes; `module` itself for one process.

        All parameters are copied from the main process. With `find_unused` a step may leave some without a gradient.
        """
        return module if self.size == 1 else DistributedDataParallel(module, find_unused_parameters=find_unused)

    def sync_batch_norm(self, model: nn.Module) -> nn.Module:
        """`model` with batch norms over the clips of all processes, under the same names; unchanged on CPUs, with a
        warning."""
        if self.size == 1:
            return model
        if self.device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model)
        logger.warning("batch norm is not frozen, and on CPUs each process normalises by its own share of the batch")
        return model


def keep_gradients(module: nn.Module) -> AbstractContextManager:
    """A block of forward and backward passes whose gradients of `module` are not averaged yet.

    They are averaged with those of the next backward pass outside of such a block.
    """
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


@contextmanager
def launch(device: str | None = None) -> Iterator[World]:
    """A context with the processes started by torchrun, or this one alone if it was started without torchrun.

    `device` is as for `pick_device`; several processes on a machine use a GPU each. Only the main process logs, except
    for errors.

    Raises:
        InputError: the device is not available, there are fewer GPUs than processes, or several processes are given one
            device.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= os.environ.keys():
        yield World(pick_device(device))
        return
    own_device = _own_device(device)
    on_gpu = own_device.type == "cuda"
    if on_gpu:
        torch.cuda.set_device(own_device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    world = World(own_device, dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=PATIENCE))
    if not world.is_main:
        logging.getLogger().setLevel(logging.ERROR)
    yield world
    # Not after an exception: the others may wait for this process, and it would wait for them here.
    dist.destroy_process_group()


def _own_device(name: str | None) -> torch.device:
    """The device of this process of torchrun."""
    local_rank = int(os.environ["LOCAL_RANK"])
    local_size = processes_here()
    if local_size == 1 or name == "cpu" or (name is None and not torch.cuda.is_available()):
        return pick_device(name)
    if name not in (None, "cuda"):
        raise InputError(
            f"--device={name} is one device for {local_size} processes; pass --device=cuda or leave it out"
        )
    count = torch.cuda.device_count()
    if 0 < count < local_size:
        raise InputError(f"{count} GPUs cannot serve {local_size} processes; use torchrun --nproc_per_node={count}")
    return pick_device(f"cuda:{local_rank}")


def processes_here() -> int:
    """The number of processes of this run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def torchrun_command(script: str, arguments: Sequence[str]) -> str | None:
    """The command that runs `script` on all visible GPUs; None with fewer than two, or if torchrun runs it."""
    count = torch.cuda.device_count()
    if count < 2 or dist.is_initialized():
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    prefix = "" if visible is None else f"CUDA_VISIBLE_DEVICES={shlex.quote(visible)} "
    return prefix + shlex.join(["torchrun", f"--nproc_per_node={count}", script, *arguments])


class _Gather(torch.autograd.Function):
    """`World.gather` for several processes."""

    @staticmethod
    def forward(ctx, rows: Tensor, rank: int, size: int) -> Tensor:
        counts = _gather_equal(torch.tensor([len(rows)], device=rows.device), size)  # [size,1]
        longest = int(counts.max())
        padded = rows.new_zeros(longest, *rows.shape[1:])
        padded[: len(rows)] = rows
        dealt = _gather_equal(padded, size).transpose(0, 1)  # [longest,size,…]
        is_row = torch.arange(longest, device=rows.device)[:, None] < counts[:, 0]
        owners = torch.arange(size, device=rows.device).expand(longest, size)[is_row]
        ctx.save_for_backward(owners == rank)
        ctx.size = size
        return dealt[is_row]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (is_own,) = ctx.saved_tensors
        return gradient[is_own] * ctx.size, None, None


def _gather_equal(tensor: Tensor, size: int) -> Tensor:
    """[size,…]: the tensors of all processes, of one shape."""
    parts = [torch.empty_like(tensor) for _ in range(size)]
    if tensor.numel():  # the same on every process, so that all or none take part
        dist.all_gather(parts, tensor)
    return torch.stack(parts)
