"""Devices: choosing, naming and waiting for one."""

import math
import os
import platform
import sys
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ytvis.files import InputError


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device `name` ("cpu", "cuda", "cuda:1", …), or the GPU if there is one and `name` is None.

    It also turns TF32 off for this process: with it, torch's convolutions on a GPU round float32 factors to 10 bits,
    and numbers differ from the published ones. Use bf16 for speed.

    Raises:
        InputError: the device is not available.
    """
    torch.backends.cudnn.allow_tf32 = False
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type == "meta":
            raise RuntimeError("it does not compute")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device={name} cannot be used ({reason}); try --device=cpu") from None
    return device


def synchronize(device: torch.device) -> None:
    """Waits until `device` has finished its queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def record_event(device: torch.device) -> torch.cuda.Event:
    """The point that the queue of a GPU has now; its `synchronize` waits until the GPU has come to it."""
    return torch.cuda.current_stream(device).record_event()


def usable_cores() -> float:
    """The CPU cores that this process may use: those of its affinity, or the quota of its control group if less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _core_quota())


def has_spare_core(device: torch.device) -> bool:
    """Whether a core is free for another thread while the network runs: on a GPU, or if torch has fewer threads than
    the process has cores."""
    return device.type != "cpu" or torch.get_num_threads() < usable_cores()


def cpu_shortage(device: torch.device, processes: int = 1) -> str | None:
    """A line that says why `processes` like this one will be slow on a CPU: they have more threads than they may use
    cores, or than other programs leave free. None if there are enough, or on a GPU."""
    if device.type != "cpu":
        return None
    threads, usable = processes * torch.get_num_threads(), usable_cores()
    if threads > usable:
        advice = f"OMP_NUM_THREADS={max(1, int(usable / processes))}"
        return f"{threads} threads share {usable:g} cores (affinity or quota), which slows all of them; set {advice}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    # The load is that of the whole machine. Starting this program itself takes half a core.
    if threads > (os.cpu_count() or 1) - load + 0.5:
        return (
            f"{threads} threads on {os.cpu_count()} cores whose load was {load:.1f} in the last minute, by other "
            "programs, which can slow these threads many times; set OMP_NUM_THREADS=1, or the number of free cores"
        )
    return None


def _core_quota(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> float:
    """The cores that the quota of this process's control group allows, as containers have it; inf without one.

    Reads version 2 (`cpu.max`: "QUOTA PERIOD" or "max PERIOD") and version 1 (a file for each, quota -1 for none).
    """
    least = math.inf
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, own = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
        top = root / ("cpu" if controllers else "")
        group = top / own.strip("/")
        for folder in (group, *group.parents):  # a container shows its own group as the top
            with suppress(OSError, ValueError):
                quota, period = map(float, " ".join((folder / name).read_text() for name in names).split())
                least = min(least, quota / period if quota > 0 else math.inf)
            if folder == top:
                break
    return least


def describe_device(device: torch.device) -> str:
    """The device for messages: with the GPU's model, or the number of CPU threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device} ({torch.get_num_threads()} threads)"


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions, device and threads, to be reported with timings."""
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

    NaN if the system does not report it.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
