import math
import os

import pytest
import torch

from utils import device as device_module
from utils.device import cpu_shortage, describe_device, has_spare_core, peak_memory_mib, pick_device
from ytvis.files import InputError


@pytest.mark.parametrize("available, kind", [(False, "cpu"), (True, "cuda")])
def test_without_a_name_it_is_the_gpu_if_there_is_one(monkeypatch, available, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    assert pick_device() == torch.device(kind)


@pytest.mark.parametrize("name", ["cpu", torch.device("cpu")])
def test_a_device_that_is_there_is_taken(name):
    assert pick_device(name) == torch.device("cpu")


def test_float32_of_a_gpu_is_not_rounded_to_tf32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    pick_device("cpu")
    assert torch.backends.cudnn.allow_tf32 is False


@pytest.mark.parametrize("name", ["cuda:99", "cuda:x", "gpu", "", torch.device("cuda:99")])
def test_a_device_that_is_not_there_is_bad_input(name):
    with pytest.raises(InputError) as caught:
        pick_device(name)
    message = str(caught.value)
    assert f"--device={name} " in message
    assert "--device=cpu" in message
    assert "\n" not in message


@pytest.mark.parametrize("error", [RuntimeError, AssertionError])  # torch without CUDA raises AssertionError
def test_of_a_long_reason_the_first_line_is_told(monkeypatch, error):
    def refuse(*_, **__):
        raise error("not this one\nlong story")

    monkeypatch.setattr(torch, "empty", refuse)
    with pytest.raises(InputError) as caught:
        pick_device("cuda")
    assert str(caught.value) == "--device=cuda cannot be used (not this one); try --device=cpu"


def test_description_of_the_cpu_tells_its_threads():
    assert describe_device(torch.device("cpu")) == f"cpu ({torch.get_num_threads()} threads)"


def test_description_of_a_gpu_tells_its_model(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Model {device.index}")
    assert describe_device(torch.device("cuda:1")) == "cuda:1 (Model 1)"


def test_peak_memory_of_this_process_is_in_mib():
    peak = peak_memory_mib(torch.device("cpu"))
    assert math.isnan(peak) or 30 < peak < 2**16  # python with torch needs more than 30 MiB, and less than 64 GiB


def test_peak_memory_never_falls():
    before = peak_memory_mib(torch.device("cpu"))
    ballast = bytearray(2**20)
    after = peak_memory_mib(torch.device("cpu"))
    assert math.isnan(before) or after >= before
    assert len(ballast) == 2**20


def test_peak_memory_of_a_gpu_is_what_torch_allocated(monkeypatch):
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**20)
    assert peak_memory_mib(torch.device("cuda:0")) == 3


@pytest.mark.parametrize(("device", "threads", "expected"), [("cpu", 2, False), ("cpu", 1, True), ("cuda", 2, True)])
def test_a_core_is_spare_beside_a_gpu_or_fewer_threads(monkeypatch, device, threads, expected):
    monkeypatch.setattr(device_module.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert has_spare_core(torch.device(device)) is expected


@pytest.mark.parametrize(
    ("cores", "quota", "load", "threads", "processes", "expected"),
    [
        (2, math.inf, 0.2, 2, 1, None),
        (2, math.inf, 0.2, 1, 2, None),
        (2, math.inf, 0.2, 2, 2, "4 threads share 2 cores (affinity or quota), which slows all of them; set OMP_NUM_"),
        (
            8,
            2.5,
            0.2,
            8,
            1,
            "8 threads share 2.5 cores (affinity or quota), which slows all of them; set OMP_NUM_THREADS=2",
        ),
        (2, math.inf, 0.9, 1, 1, None),
        (
            2,
            math.inf,
            0.9,
            2,
            1,
            "2 threads on 2 cores whose load was 0.9 in the last minute, by other programs, which can slow these "
            "threads many times; set OMP_NUM_THREADS=1, or the number of free cores",
        ),
    ],
)
def test_a_cpu_with_too_few_cores_is_reported(monkeypatch, cores, quota, load, threads, processes, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 9.0, 9.0), raising=False)
    monkeypatch.setattr(device_module, "_core_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    line = cpu_shortage(torch.device("cpu"), processes)
    assert line is None if expected is None else line.startswith(expected) and "\n" not in line
    assert cpu_shortage(torch.device("cuda"), processes) is None


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/job/step", {"job/cpu.max": "400000 100000", "job/step/cpu.max": "max 100000"}, 4.0),
        ("0::/not/shown/in/a/container", {"cpu.max": "200000 100000"}, 2.0),
        ("3:cpuset:/\n1:cpu,cpuacct:/a", {"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 0.5),
        ("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("0::/", {"cpu.max": "odd"}, math.inf),
        ("", {}, math.inf),
    ],
)
def test_the_quota_of_a_control_group(tmp_path, groups, files, expected):
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert device_module._core_quota(tmp_path / "groups", tmp_path / "root") == expected
    assert device_module._core_quota(tmp_path / "no such file", tmp_path / "root") == math.inf
