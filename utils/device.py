"""Devices: choosing, naming and waiting for one."""

import os
import platform
import sys
from importlib.metadata import version
from typing import Any

import torch

from ytvis.files import InputError


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device `name` ("cpu", "cuda", "cuda:1", …), or the GPU if there is one and `name` is None.

    It also turns TF32 off for this process: with it, torch's convolutions on a GPU round float32 factors to 10 bits,
    and numbers differ from the published ones. Use bf16 for speed.

    Raises:
        InputError: there is no such device.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device={name} cannot be used ({reason}); try --device=cpu") from None
    return device


def synchronize(device: torch.device) -> None:
    """Waits until `device` has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def has_spare_core(device: torch.device) -> bool:
    """Whether another thread has a core of its own while the network runs: if this runs on a GPU, or torch has fewer
    threads than the process has cores."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return device.type != "cpu" or torch.get_num_threads() < cores


def describe_device(device: torch.device) -> str:
    """The device for messages: with the GPU's model, or the number of CPU threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads, which timings need beside them."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "torchvision", "numpy")},
        "device": describe_device(device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }


def peak_memory_mib(device: torch.device) -> float:
    """The peak memory so far in MiB: of this process on the CPU, of torch's allocations on a GPU.

    NaN where the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
