import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as F
from torch.utils.data import DataLoader

import layers.cpu.threads
from layers import deform_conv
from layers.cpu import deform_columns
from layers.cpu.packed_products import PackedMatrices, can_pack
from layers.deform_conv import ModulatedDeformConv2d, available_backends, deform_backend, deformable_conv2d
from ytvis.files import InputError

needs_native = pytest.mark.skipif("native" not in available_backends(), reason="the native kernel is not built")


@pytest.fixture(params=["torchvision", pytest.param("native", marks=needs_native)])
def each_backend(request):
    with deform_backend(request.param):
        yield


on_each_backend = pytest.mark.usefixtures("each_backend")


@pytest.fixture(scope="module")
def recorded(reference):
    return {name: torch.from_numpy(array) for name, array in np.load(reference / "unit" / "dcn.npz").items()}


def near(ours, expected):
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


@on_each_backend
@pytest.mark.parametrize("stride", [1, 2])
def test_modulated_layer_and_its_gradients_are_the_recorded_ones(recorded, stride):
    case = {name.removeprefix(f"s{stride}_"): array for name, array in recorded.items() if f"s{stride}_" in name}
    layer = ModulatedDeformConv2d(8, 6, 3, stride)
    layer.load_state_dict(
        {name.removeprefix("param_"): array for name, array in case.items() if name.startswith("param_")}
    )
    x = case["x"].clone().requires_grad_()
    out = layer(x)
    near(out, case["out"])
    out.backward(case["upstream"])
    near(x.grad, case["grad_x"])
    for name, parameter in layer.named_parameters():
        near(parameter.grad, case[f"grad_{name}"])


@on_each_backend
@pytest.mark.parametrize("stride", [1, 2])
def test_without_offsets_it_is_half_a_convolution(stride):
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(3, 5, 3, stride)
    with torch.no_grad():
        layer.bias.uniform_()
        layer.conv_offset_mask.weight.zero_()
        layer.conv_offset_mask.bias.zero_()
    x = torch.randn(2, 3, 7, 6)
    # A sigmoid of zero lets half of every sample through.
    expected = 0.5 * F.conv2d(x, layer.weight, None, stride, 1) + layer.bias[:, None, None]
    near(layer(x), expected)


@on_each_backend
def test_offsets_are_dy_dx_and_samples_outside_are_zero():
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3)  # 1 2 3 / 4 5 6
    weight = torch.ones(1, 1, 1, 1)
    offsets = torch.zeros(1, 2, 2, 3)
    offsets[:, 1] = 1  # one to the right
    assert deformable_conv2d(x, offsets, weight)[0, 0].tolist() == [[2, 3, 0], [5, 6, 0]]
    offsets[:, 1] = 0
    offsets[:, 0] = -1  # one up
    assert deformable_conv2d(x, offsets, weight)[0, 0].tolist() == [[0, 0, 0], [1, 2, 3]]
    offsets[:, 0] = 0.5  # between two rows; half of the lower neighbour is outside
    assert deformable_conv2d(x, offsets, weight)[0, 0].tolist() == [[2.5, 3.5, 4.5], [2, 2.5, 3]]


@on_each_backend
def test_every_tap_has_its_own_offset_and_modulation():
    x = torch.tensor([[[[1.0, 10.0, 100.0, 1000.0]]]])
    weight = torch.ones(1, 1, 1, 2)  # taps at columns 0 and 1
    offsets = torch.zeros(1, 4, 1, 3)
    offsets[0, 3] = 1  # dx of the second tap
    assert deformable_conv2d(x, offsets, weight).flatten().tolist() == [101, 1010, 100]
    modulation = torch.tensor([2.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3).contiguous()
    bias = torch.tensor([0.5])
    assert deformable_conv2d(x, offsets, weight, bias, modulation).flatten().tolist() == [302.5, 3020.5, 200.5]


@on_each_backend
@pytest.mark.parametrize("kernel", [(3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize("size", [(6, 9), (1, 2)])
def test_zero_offsets_are_a_convolution_of_the_kernels_own_shape(kernel, size):
    torch.manual_seed(0)
    x, weight = torch.randn(2, 3, *size), torch.randn(4, 3, *kernel)
    padding = (kernel[0] // 2, kernel[1] // 2)
    offsets = torch.zeros(2, 2 * kernel[0] * kernel[1], *size)
    near(deformable_conv2d(x, offsets, weight, padding=padding), F.conv2d(x, weight, padding=padding))


@on_each_backend
def test_batched_is_each_image_alone(recorded):
    layer = ModulatedDeformConv2d(8, 6)
    x = recorded["s1_x"]
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.cat([layer(image[None]) for image in x]), atol=1e-6, rtol=1e-5)


@on_each_backend
def test_all_is_computed_in_the_dtype_of_the_weights(recorded):
    layer = ModulatedDeformConv2d(8, 6).requires_grad_(False)
    half = recorded["s1_x"].bfloat16()
    offsets, weight = torch.zeros(2, 18, 9, 11), layer.weight
    out = deformable_conv2d(half, offsets.bfloat16(), weight, None, torch.ones(2, 9, 9, 11).bfloat16(), padding=(1, 1))
    assert out.dtype == torch.float32
    near(out, F.conv2d(half.float(), weight, padding=1))
    double = layer.double()(recorded["s1_x"].double())
    assert double.dtype == torch.float64


@pytest.fixture
def threads_for_all(monkeypatch):
    """Uses all threads, even for work that is too small to gain from them."""
    monkeypatch.setattr(layers.cpu.threads, "THREAD_NUMBERS", 1)


def random_case(channels, out_channels, kernel, size, stride=1, dilation=1, groups=1, offset_groups=1, **options):
    """Arguments of `deformable_conv2d` for two images: offsets of a few pixels, and a tenth of them far outside."""
    dtype = options.get("dtype", torch.float64)
    generator = torch.Generator().manual_seed(0)
    stride, dilation, padding = (stride, stride), (dilation, dilation), (kernel[0] // 2, kernel[1] // 2)
    taps = kernel[0] * kernel[1]
    out_size = F.conv2d(torch.zeros(2, 1, *size), torch.zeros(1, 1, *kernel), None, stride, padding, dilation).shape[2:]

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    offsets = 2 * normal(2, 2 * offset_groups * taps, *out_size)
    offsets *= torch.where(torch.rand(offsets.shape, generator=generator) < 0.1, 1000, 1)
    tensors = {
        "features": normal(2, channels, *size),
        "offsets": offsets,
        "weight": normal(out_channels, channels // groups, *kernel),
        "bias": normal(out_channels) if options.get("bias", True) else None,
        "modulation": normal(2, offset_groups * taps, *out_size) if options.get("modulated", True) else None,
    }
    return tensors, {"stride": stride, "padding": padding, "dilation": dilation}


def result_and_gradients(backend, tensors, geometry):
    """The output of a `random_case` and its gradients by every tensor, for an upstream gradient of all signs."""
    leaves = {name: None if value is None else value.clone().requires_grad_() for name, value in tensors.items()}
    with deform_backend(backend):
        out = deformable_conv2d(**leaves, **geometry)
    out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).sin().view(out.shape))
    return {"out": out.detach(), **{name: leaf.grad for name, leaf in leaves.items() if leaf is not None}}


CASES = {
    "plain": {"modulated": False, "bias": False},
    "modulated": {},
    "map_smaller_than_kernel": {"size": (1, 2)},
    "one_pixel": {"size": (1, 1)},
    "stride": {"stride": 2},
    "dilation": {"dilation": 2},
    "stride_and_dilation": {"stride": 2, "dilation": 2, "size": (11, 8)},
    "wide_kernel": {"kernel": (3, 5), "modulated": False},
    "tall_kernel": {"kernel": (5, 3)},
    "one_tap": {"kernel": (1, 1)},
    "weight_groups": {"groups": 2},
    "offset_groups": {"offset_groups": 2},
    "groups_that_cross": {"channels": 48, "groups": 2, "offset_groups": 3},
    "depthwise": {"channels": 6, "groups": 6, "out_channels": 6},
    "blocks_that_cut_groups": {"channels": 36, "groups": 2, "offset_groups": 3},
    "odd_number_of_channels": {"channels": 37, "out_channels": 5},
}


@needs_native
@pytest.mark.parametrize(
    ("column_bytes", "thread_numbers"),
    [(8 << 20, 1), (20_000, 1), (1, 32768)],
    ids=["one chunk", "some chunks", "a pixel a chunk, one thread"],
)
@pytest.mark.parametrize("case", CASES)
def test_native_is_torchvision_forward_and_backward(monkeypatch, case, column_bytes, thread_numbers):
    monkeypatch.setattr(deform_columns, "COLUMN_BYTES", column_bytes)
    monkeypatch.setattr(layers.cpu.threads, "THREAD_NUMBERS", thread_numbers)
    shapes = {"channels": 4, "out_channels": 6, "kernel": (3, 3), "size": (7, 6)} | CASES[case]
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        tensors, geometry = random_case(**shapes, dtype=dtype)
        expected = result_and_gradients("torchvision", tensors, geometry)
        ours = result_and_gradients("native", tensors, geometry)
        assert ours.keys() == expected.keys()
        for name, value in expected.items():
            scale = max(1, value.abs().max().item())
            torch.testing.assert_close(ours[name], value, atol=tolerance * scale, rtol=0, msg=lambda m, n=name: n + m)
        with torch.inference_mode(), deform_backend("native"):
            out = deformable_conv2d(**tensors, **geometry)
            with torch.autocast("cpu", torch.bfloat16):
                half = deformable_conv2d(**tensors, **geometry)
        scale = max(1, out.abs().max().item())
        torch.testing.assert_close(out, expected["out"], atol=tolerance * scale, rtol=0)
        assert out.stride() == ours["out"].stride() and half.dtype == torch.bfloat16
        torch.testing.assert_close(half.to(dtype), out, atol=0.02 * scale, rtol=0)


@needs_native
def test_at_the_border_native_is_torchvision():
    """Whole offsets put samples exactly on -1 and H, where a sample is zero and its slope is not."""
    for dy in range(-4, 5):
        tensors, geometry = random_case(3, 4, (3, 3), (3, 4))
        tensors["offsets"] = torch.zeros_like(tensors["offsets"])
        tensors["offsets"][:, 0::2] = dy
        tensors["offsets"][:, 1::2] = -dy / 2
        expected = result_and_gradients("torchvision", tensors, geometry)
        torch.testing.assert_close(result_and_gradients("native", tensors, geometry), expected, atol=1e-12, rtol=0)


@needs_native
@pytest.mark.parametrize("modulated", [True, False])
def test_native_gradients_are_the_numerical_ones(modulated):
    tensors, geometry = random_case(4, 2, (3, 2), (3, 2), stride=2, groups=2, offset_groups=2, modulated=modulated)
    # Clear of whole numbers, where the slope jumps.
    tensors["offsets"] = tensors["offsets"].clamp(-3, 3).floor() + 0.3 + 0.4 * tensors["offsets"].sin().abs()
    inputs = [None if value is None else value.requires_grad_() for value in tensors.values()]
    with deform_backend("native"):
        assert torch.autograd.gradcheck(lambda *values: deformable_conv2d(*values, **geometry), inputs)


@needs_native
def test_native_gives_only_the_gradients_asked_for():
    tensors, geometry = random_case(32, 6, (3, 3), (5, 4))
    everything = result_and_gradients("native", tensors, geometry)
    for name in tensors:
        leaves = {key: value.clone().requires_grad_(key == name) for key, value in tensors.items()}
        with deform_backend("native"):
            out = deformable_conv2d(**leaves, **geometry)
        out.backward(torch.linspace(-1, 1, out.numel(), dtype=out.dtype).sin().view(out.shape))
        torch.testing.assert_close(leaves[name].grad, everything[name], atol=1e-12, rtol=0)
        assert all(leaf.grad is None for key, leaf in leaves.items() if key != name)


@needs_native
def test_native_gives_the_same_bits_in_every_run():
    tensors, geometry = random_case(64, 16, (3, 3), (24, 40), dtype=torch.float32)
    first = result_and_gradients("native", tensors, geometry)
    for _ in range(5):
        again = result_and_gradients("native", tensors, geometry)
        assert all(torch.equal(again[name], first[name]) for name in first)


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
def test_native_result_does_not_depend_on_the_threads(threads_for_all, threads):
    tensors, geometry = random_case(64, 6, (3, 3), (5, 7))
    expected = result_and_gradients("native", tensors, geometry)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(result_and_gradients("native", tensors, geometry), expected, atol=1e-11, rtol=0)
    finally:
        torch.set_num_threads(before)


class GatheredInWorker(torch.utils.data.Dataset):
    """One item: the columns of a `random_case`, gathered by the process that asks for it."""

    def __init__(self):
        tensors, geometry = random_case(64, 6, (3, 3), (5, 7))
        del tensors["bias"]
        self.source = deform_columns.Columns(**tensors, **geometry)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        chunk, columns = next(self.source.chunks())
        self.source.gather(chunk, columns)
        return columns.clone()


@needs_native
def test_native_works_in_a_forked_worker(threads_for_all, monkeypatch):
    """Threads do not survive a fork; a kernel that used them in the child would wait for ever."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)  # which is one in a worker
    dataset = GatheredInWorker()
    expected = dataset[0]  # starts the threads of this process
    loader = DataLoader(dataset, batch_size=None, num_workers=1, multiprocessing_context="fork", timeout=20)
    assert [torch.equal(columns, expected) for columns in loader] == [True]


@needs_native
def test_native_keeps_channels_last():
    tensors, geometry = random_case(4, 6, (3, 3), (7, 6))
    expected = result_and_gradients("native", tensors, geometry)
    tensors["features"] = tensors["features"].to(memory_format=torch.channels_last)
    ours = result_and_gradients("native", tensors, geometry)
    assert expected["out"].is_contiguous()
    assert ours["out"].is_contiguous(memory_format=torch.channels_last)
    for name, value in expected.items():
        torch.testing.assert_close(ours[name], value, atol=1e-12, rtol=0)


@needs_native
def test_native_does_not_hide_offsets_of_nan():
    tensors, geometry = random_case(4, 6, (1, 1), (3, 4), bias=False)
    tensors["offsets"][0, 1, 2, 3] = torch.nan
    with deform_backend("native"):
        out = deformable_conv2d(**tensors, **geometry)
    assert out.isnan().nonzero()[:, [0, 2, 3]].unique(dim=0).tolist() == [[0, 2, 3]]


@on_each_backend
def test_no_images_give_no_results_and_gradients_of_zero():
    features = torch.zeros(0, 4, 5, 6, requires_grad=True)
    offsets = torch.zeros(0, 18, 5, 6, requires_grad=True)
    weight, bias = torch.ones(3, 4, 3, 3, requires_grad=True), torch.ones(3, requires_grad=True)
    out = deformable_conv2d(features, offsets, weight, bias, padding=(1, 1))
    assert out.shape == (0, 3, 5, 6)
    out.sum().backward()
    assert features.grad.shape == features.shape
    assert not weight.grad.any()
    assert not bias.grad.any()


@needs_native
@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("weight", (6, 3, 3, 3), "weights"),
        ("weight", (6, 8, 3, 3), "weights"),
        ("weight", (5, 2, 3, 3), "weights"),
        ("weight", (6, 4, 10, 3), "too small"),
        ("offsets", (2, 20, 7, 6), "offsets have shape"),
        ("offsets", (2, 54, 7, 6), "54 channels of offsets"),
        ("offsets", (2, 16, 7, 6), "16 channels of offsets"),
        ("offsets", (2, 18, 7, 5), "offsets have shape"),
        ("offsets", (1, 18, 7, 6), "offsets have shape"),
        ("modulation", (2, 18, 7, 6), "modulation have shape"),
    ],
)
def test_native_refuses_shapes_that_would_lead_it_out_of_its_memory(name, shape, message):
    tensors, geometry = random_case(4, 6, (3, 3), (7, 6))
    tensors[name] = torch.zeros(shape, dtype=torch.float64)
    with deform_backend("native"), pytest.raises(ValueError, match=message):
        deformable_conv2d(**tensors, **geometry)


@on_each_backend
def test_under_autocast_the_result_is_in_its_dtype_and_places_are_not():
    x = torch.zeros(1, 1, 1, 400)
    x[..., 301] = 64
    offsets = torch.tensor([0.0, 300.25]).view(1, 2, 1, 1).expand(1, 2, 1, 400)  # as bfloat16: 300
    weight = torch.ones(1, 1, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = deformable_conv2d(x, offsets, weight)
    assert out.dtype == torch.bfloat16
    assert out[0, 0, 0, :2].tolist() == [16, 48]


@needs_native
def test_native_under_autocast_is_float32_where_the_cpu_has_no_bfloat16(monkeypatch):
    monkeypatch.setattr(deform_conv, "_multiplies_bfloat16", lambda: False)
    tensors, geometry = random_case(64, 16, (3, 3), (7, 6), dtype=torch.float32)
    expected = result_and_gradients("native", tensors, geometry)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = result_and_gradients("native", tensors, geometry)
    assert torch.equal(ours["out"], expected["out"].bfloat16())
    assert ours["weight"].dtype == torch.float32


@needs_native
@pytest.mark.parametrize("groups", [1, 2])
def test_native_multiplies_in_bfloat16_where_the_cpu_does(monkeypatch, groups):
    monkeypatch.setattr(deform_conv, "_multiplies_bfloat16", lambda: True)
    monkeypatch.setattr(deform_columns, "COLUMN_BYTES", 20_000)
    tensors, geometry = random_case(64, 16, (3, 3), (7, 6), groups=groups, dtype=torch.float32)
    expected = result_and_gradients("torchvision", tensors, geometry)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = result_and_gradients("native", tensors, geometry)
    assert ours["out"].dtype == torch.bfloat16
    for name, value in expected.items():
        # Of the largest value: a sum that cancels has the rounding of its terms.
        error = (ours[name].float() - value).abs().max() / value.abs().max()
        assert 0 < error < 0.02, name


@needs_native
def test_native_columns_in_bfloat16_are_rounded_to_nearest():
    ties = torch.tensor([1.00390625, 1.01171875])  # half-way: down to 1, up to 1.015625
    values = torch.cat((torch.randn(500), ties, torch.tensor([0.0, 3e38, 1e-40])))
    features = values.view(1, 1, 1, -1)
    offsets, weight = torch.zeros(1, 2, 1, values.numel()), torch.ones(1, 1, 1, 1).bfloat16()
    arguments = (features, offsets, None, weight, (1, 1), (0, 0), (1, 1))
    source = deform_columns.Columns(*arguments)
    chunk, columns = next(source.chunks())
    source.gather(chunk, columns)
    assert torch.equal(columns.flatten(), values.bfloat16())


@needs_native
def test_native_can_be_compiled_and_exported():
    torch.manual_seed(0)
    layer = ModulatedDeformConv2d(8, 6, 3, 2)
    torch.nn.init.normal_(layer.conv_offset_mask.weight)
    x = torch.randn(2, 8, 9, 7)
    with deform_backend("native"):
        expected = layer(x)
        torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), expected)
        torch.testing.assert_close(torch.export.export(layer, (x,)).module()(x), expected)
        tensors, geometry = random_case(4, 6, (3, 3), (7, 6), groups=2, offset_groups=2)
        order = ("features", "offsets", "modulation", "weight", "bias")
        inputs = [tensors[name].requires_grad_() for name in order] + [list(pair) for pair in geometry.values()]
        torch.library.opcheck(torch.ops.stmask.deform_conv2d.default, inputs)


def test_the_backend_is_chosen_by_a_context():
    def operators():
        with torch.profiler.profile() as profile:
            deformable_conv2d(torch.zeros(1, 1, 2, 2), torch.zeros(1, 2, 2, 2), torch.zeros(1, 1, 1, 1))
        return {event.key for event in profile.key_averages() if "deform_conv2d" in event.key}

    native, torchvision = {"stmask::deform_conv2d"}, {"torchvision::deform_conv2d"}
    with deform_backend("torchvision"):
        assert operators() == torchvision
        with deform_backend("auto"):
            assert operators() == (native if "native" in available_backends() else torchvision)
        assert operators() == torchvision


def test_without_the_extension_torchvision_does_all(monkeypatch):
    monkeypatch.setattr(deform_columns, "_deform_im2col", None)
    assert available_backends() == ("torchvision",)
    with deform_backend("auto"):
        assert deformable_conv2d(torch.ones(1, 1, 1, 1), torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1, 1)).item() == 1
    with pytest.raises(InputError, match="native.*compiler.*auto, torchvision"), deform_backend("native"):
        pass


def test_an_unknown_backend_is_refused():
    with pytest.raises(InputError, match="mmvc.*auto"), deform_backend("mmvc"):
        pass


class StandInForMmcv:
    """Stands in for mmcv's operator with torchvision's; `shifted` samples beside the place, as wrong padding does."""

    def __init__(self):
        self.shifted = False
        self.calls = 0

    def modulated_deform_conv2d(
        self, features, offsets, mask, weight, bias, stride, padding, dilation, groups, offset_groups
    ):
        self.calls += 1
        assert groups == features.shape[1] // weight.shape[1]
        assert offset_groups * 2 * weight.shape[2] * weight.shape[3] == offsets.shape[1]
        out = torchvision.ops.deform_conv2d(features, offsets, weight, bias, stride, padding, dilation, mask)
        return out.roll(1, dims=-1) if self.shifted else out


@pytest.fixture
def stand_in(monkeypatch):
    operators = StandInForMmcv()
    monkeypatch.setattr(deform_conv, "available_backends", lambda: ("torchvision", "mmcv"))
    monkeypatch.setattr(deform_conv.importlib, "import_module", {"mmcv.ops": operators}.__getitem__)
    return operators


@pytest.mark.parametrize("modulated", [True, False])
def test_mmcv_gets_its_arguments_in_its_own_order(stand_in, modulated):
    torch.manual_seed(0)
    features, weight, offsets = torch.randn(2, 4, 6, 7), torch.randn(6, 2, 3, 5), torch.randn(2, 60, 6, 7)
    modulation = torch.rand(2, 30, 6, 7) if modulated else None
    arguments = (features, offsets, weight, torch.randn(6), modulation, (1, 1), (1, 2))
    with deform_backend("torchvision"):
        expected = deformable_conv2d(*arguments)
    with deform_backend("mmcv"):
        stand_in.calls = 0
        near(deformable_conv2d(*arguments), expected)
    assert stand_in.calls == 1


def test_an_mmcv_that_pads_the_wrong_way_round_is_refused(stand_in):
    stand_in.shifted = True
    with pytest.raises(InputError, match="issue 1080"), deform_backend("mmcv"):
        pass


def test_an_mmcv_without_operators_is_refused(stand_in, monkeypatch):
    def fail(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(deform_conv.importlib, "import_module", fail)
    with pytest.raises(InputError, match="does not run here: No module named 'mmcv.ops'"), deform_backend("mmcv"):
        pass


def test_without_mmcv_it_is_refused(monkeypatch):
    monkeypatch.setattr(deform_conv.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="mmcv here .*a package of its own"), deform_backend("mmcv"):
        pass


@needs_native
def test_native_is_for_the_cpu_alone():
    arguments = [torch.zeros(shape, device="meta") for shape in ((1, 1, 2, 2), (1, 2, 2, 2), (1, 1, 1, 1))]
    with deform_backend("native"), pytest.raises(InputError, match="CPU, not on meta"):
        deformable_conv2d(*arguments)
    with deform_backend("auto"):
        assert deformable_conv2d(*arguments).device.type == "meta"


@needs_native
@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="oneDNN is not here")
def test_products_are_packed_in_inference_alone(monkeypatch):
    made = []
    monkeypatch.setattr(deform_columns, "PackedMatrices", lambda *line: made.append(line) or PackedMatrices(*line))
    layer, x = ModulatedDeformConv2d(4, 6, 3, 1), torch.randn(1, 4, 7, 6)
    with deform_backend("native"):
        trained = layer(x)
        with torch.no_grad():
            layer(x)
        assert made == []
        with torch.inference_mode():
            near(layer(x), trained.detach())
    assert len(made) == 1


@needs_native
@pytest.mark.skipif(not can_pack(torch.device("cpu"), torch.float32), reason="oneDNN is not here")
@torch.inference_mode()
@pytest.mark.parametrize("size", [(1, 1), (7, 6), (40, 31)])
def test_a_weight_that_is_laid_out_once_gives_the_same_bits_for_maps_of_any_size(size):
    layer, x = ModulatedDeformConv2d(16, 6, 3, 1), torch.randn(2, 16, *size)
    with deform_backend("native"):
        expected = layer(x)
        layer.packed = deform_columns.pack_weight(layer.weight)
        assert torch.equal(layer(x), expected)
