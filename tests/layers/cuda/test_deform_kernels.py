"""The choice among the kernels for a GPU, tried with kernels that run on the CPU."""

from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import deform_conv2d

from layers.cuda import deform_kernels
from layers.deform_conv import deform_backend, deformable_conv2d
from ytvis.files import InputError

CPU = torch.device("cpu")


def right(features, offsets, weight, bias, stride, padding, dilation, modulation):
    return deform_conv2d(features, offsets, weight, bias, stride, padding, dilation, modulation)


def wrong(*arguments):
    return right(*arguments) * 1.01


def failing(*arguments):
    raise RuntimeError("no C compiler\nand more lines")


@pytest.fixture
def machine(monkeypatch):
    """A function that sets what the kernels "triton" and "nvrtc" do on this machine, and torchvision's release."""

    def is_given(triton, nvrtc, torchvision="0.29.1"):
        modules = {deform_kernels.KERNELS["triton"]: triton, deform_kernels.KERNELS["nvrtc"]: nvrtc}
        loader = SimpleNamespace(import_module=lambda name: SimpleNamespace(convolve=modules[name]))
        monkeypatch.setattr(deform_kernels, "importlib", loader)
        monkeypatch.setattr(deform_kernels, "installed_kernels", lambda: tuple(deform_kernels.KERNELS))
        monkeypatch.setattr(deform_kernels.torchvision, "__version__", torchvision)

    deform_kernels.find_kernel.cache_clear()
    deform_kernels.preferred_backend.cache_clear()
    yield is_given
    deform_kernels.find_kernel.cache_clear()
    deform_kernels.preferred_backend.cache_clear()


def preferred(dtype=torch.float32):
    return deform_kernels.preferred_backend(CPU, dtype)


def test_float32_takes_torchvision_if_it_follows_the_stream(machine):
    machine(right, right)
    assert preferred() == "torchvision"


@pytest.mark.parametrize("release", ["0.28.0", "0.9.1+cu130"])
def test_float32_takes_the_gathering_kernel_if_torchvision_does_not(machine, release):
    machine(right, right, release)
    assert preferred() == "nvrtc"


def test_kernels_that_fail_or_are_wrong_are_not_used(machine, caplog):
    machine(failing, wrong, "0.28.0")
    assert preferred() == "torchvision"
    assert "nvrtc deformable convolution is wrong on cpu by 0.01: not used" in caplog.text
    assert deform_kernels.find_kernel("triton", CPU, torch.float32) is None
    assert "triton deformable convolution does not run on cpu: no C compiler" in caplog.text
    assert "more lines" not in caplog.text


def test_a_right_kernel_is_found(machine):
    machine(right, failing)
    assert deform_kernels.find_kernel("triton", CPU, torch.float32) is right


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU")
def test_without_a_gpu_there_are_no_kernels():
    assert deform_kernels.installed_kernels() == ()
    with pytest.raises(InputError, match="triton here .*capability 8.0"), deform_backend("triton"):
        pass


def test_kernels_for_a_gpu_refuse_the_cpu(machine):
    machine(right, right)
    tensors = [torch.zeros(shape) for shape in ((1, 1, 2, 2), (1, 2, 2, 2), (1, 1, 1, 1))]
    with deform_backend("nvrtc"), pytest.raises(InputError, match="nvrtc .* runs on a GPU, not on cpu"):
        deformable_conv2d(*tensors)
