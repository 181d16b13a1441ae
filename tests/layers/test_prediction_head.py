import json

import pytest
import torch

from data.config import get_config
from layers.anchors import make_anchors
from layers.box_utils import decode
from layers.prediction_head import HeadOutput, PredictionHead, relative_to_kernel
from stmask import STMask

KERNELS = ((3, 3), (3, 5), (5, 3))
SIZES = ((4, 6), (2, 3), (1, 2))
OUTPUTS = {"box_deltas": 4, "class_logits": 6, "mask_coeffs": 3, "embeddings": 7}


def make_head(calibration="none", kernel_major=True, channels=8, square_kernels=False):
    torch.manual_seed(1)
    return PredictionHead(
        channels=channels,
        num_outputs=OUTPUTS["class_logits"],
        kernels=KERNELS,
        calibration=calibration,
        num_prototypes=OUTPUTS["mask_coeffs"],
        embedding_dim=OUTPUTS["embeddings"],
        centerness_kernel_major=kernel_major,
        square_kernels=square_kernels,
    ).requires_grad_(False)


def make_levels(batch=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 8, *size, generator=generator) for size in SIZES]


@pytest.mark.parametrize("name, calibration", [("STMask_plus_resnet50", "none"), ("STMask_plus_resnet50_ada", "ada")])
def test_parameters_have_the_published_names_and_shapes(reference, name, calibration):
    prefix = "prediction_layers.0."
    keys = json.loads((reference / name / f"keys_{name}_config.json").read_text("utf-8"))
    expected = {key.removeprefix(prefix): shape for key, shape in keys.items() if key.startswith(prefix)}
    with torch.device("meta"):
        head = PredictionHead(256, 41, KERNELS, calibration, 32, 128, True)
    assert {key: list(value.shape) for key, value in head.state_dict().items()} == expected


@pytest.mark.parametrize("square_kernels", [False, True])
def test_what_is_found_at_anchors_is_what_the_maps_say_there(square_kernels):
    levels = [level.double() for level in make_levels()]
    head = make_head(square_kernels=square_kernels).double()
    for layers in (head.mask_layer, head.track_layer):
        for layer in layers:
            torch.nn.init.normal_(layer.bias)
    whole, _ = head(levels)
    head.at_anchors = True
    output, _ = head(levels)
    everywhere = torch.randperm(whole.mask_coeffs.shape[1], generator=torch.Generator().manual_seed(2))
    for index in range(2):
        for anchors in (everywhere, everywhere[:1], everywhere[:0]):
            for name in ("mask_coeffs", "embeddings"):
                found, expected = getattr(output, name)[index, anchors], getattr(whole, name)[index, anchors]
                torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert torch.equal(output.box_deltas, whole.box_deltas) and torch.equal(output.class_logits, whole.class_logits)


@pytest.mark.parametrize("calibration", ["none", "ali", "ada"])
def test_every_anchor_has_every_output(calibration):
    levels = make_levels()
    output, shared = make_head(calibration)(levels)
    num = len(make_anchors(SIZES, KERNELS))
    assert {name: tuple(getattr(output, name).shape) for name in OUTPUTS} == {
        name: (2, num, size) for name, size in OUTPUTS.items()
    }
    assert output.centerness.shape == (2, num)
    assert output.centerness.abs().max() <= 1
    torch.testing.assert_close(output.embeddings.norm(dim=-1), torch.ones(2, num))
    assert [level.shape for level in shared] == [level.shape for level in levels]
    assert all((level >= 0).all() for level in shared)


@pytest.mark.parametrize("calibration", ["none", "ali", "ada"])
def test_batched_is_each_image_alone(calibration):
    head, levels = make_head(calibration), make_levels()
    batched, batched_shared = head(levels)
    for i in range(2):
        alone, shared = head([level[i : i + 1] for level in levels])
        for name, value in vars(alone).items():
            torch.testing.assert_close(getattr(batched, name)[i : i + 1], value, atol=1e-5, rtol=1e-4)
        for ours, theirs in zip(shared, batched_shared, strict=True):
            torch.testing.assert_close(theirs[i : i + 1], ours, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kernel_major", [True, False])
def test_levels_share_weights_and_follow_each_other(kernel_major):
    head, levels = make_head("ada", kernel_major), make_levels()
    together, _ = head(levels)
    alone = [head([level])[0] for level in levels]
    for name, value in vars(together).items():
        assert torch.equal(value, torch.cat([getattr(output, name) for output in alone], dim=1))


def test_order_is_row_column_kernel():
    head, levels = make_head(), make_levels()[:1]
    output, (shared,) = head(levels)
    for name, layers, tower in (
        ("box_deltas", head.bbox_layer, head.bbox_extra),
        ("class_logits", head.conf_layer, head.conf_extra),
        ("mask_coeffs", head.mask_layer, head.mask_extra),
    ):
        features = tower(shared)
        for kernel, layer in enumerate(layers):
            for row, column in ((0, 0), (0, 5), (2, 1), (3, 5)):
                anchor = (row * 6 + column) * len(KERNELS) + kernel
                assert torch.equal(getattr(output, name)[:, anchor], layer(features)[:, :, row, column])
    centerness = [layer(head.bbox_extra(shared)).flatten(1).tanh() for layer in head.centerness_layer]
    assert torch.equal(output.centerness, torch.cat(centerness, dim=1))  # read from the tower of the boxes
    raw = torch.stack([layer(head.track_extra(shared)) for layer in head.track_layer])  # [k,B,E,h,w]
    ours = output.embeddings.view(2, 4, 6, 3, -1)
    similarity = torch.einsum("bhwke,kbehw->bhwk", ours, raw) / raw.norm(dim=2).permute(1, 2, 3, 0)
    torch.testing.assert_close(similarity, torch.ones(2, 4, 6, 3))


@pytest.mark.parametrize("kernel, reach", list(zip(KERNELS, ((1, 1), (1, 2), (2, 1)), strict=True)))
def test_an_anchor_sees_what_a_kernel_of_its_shape_covers(kernel, reach):
    head = make_head(channels=1)
    index = KERNELS.index(kernel)
    for module in (head.upfeature, head.mask_extra):
        for name, parameter in module.named_parameters():
            parameter.zero_()
            if name.endswith("weight"):
                parameter[0, 0, 1, 1] = 1  # hands its input on
    for layer in head.mask_layer:
        layer.weight.fill_(1)
        layer.bias.zero_()
    level = torch.zeros(1, 1, 7, 7)
    level[0, 0, 3, 3] = 1
    seen = head([level])[0].mask_coeffs.view(7, 7, 3, -1)[:, :, index, 0]
    expected = torch.zeros(7, 7)
    expected[3 - reach[0] : 4 + reach[0], 3 - reach[1] : 4 + reach[1]] = 1
    assert torch.equal(seen, expected)


def test_calibration_reads_the_regression_of_its_own_kernel():
    head, levels = make_head("ali"), make_levels()[:1]
    before, _ = head(levels)
    head.bbox_layer[1].bias += torch.tensor([3.0, -2.0, 1.0, 2.0])
    after, _ = head(levels)
    changed = (before.class_logits != after.class_logits).view(2, -1, 3, OUTPUTS["class_logits"])
    assert changed.flatten(0, 1).any(dim=2).any(dim=0).tolist() == [False, True, False]
    assert torch.equal(before.mask_coeffs, after.mask_coeffs)
    assert torch.equal(before.centerness, after.centerness)


def test_quirk_centerness_is_kernel_major():
    head = make_head(kernel_major=True)
    for kernel, layer in enumerate(head.centerness_layer):
        layer.weight.zero_()
        layer.bias.fill_(kernel + 1.0)
    output, _ = head([torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)])
    expected = torch.tensor([[1.0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 1, 2, 3]]).tanh()
    torch.testing.assert_close(output.centerness, expected)


def test_quirk_centerness_switched_off_is_kernel_fastest():
    head = make_head(kernel_major=False)
    for kernel, layer in enumerate(head.centerness_layer):
        layer.weight.zero_()
        layer.bias.fill_(kernel + 1.0)
    output, _ = head([torch.randn(1, 8, 2, 2), torch.randn(1, 8, 1, 1)])
    torch.testing.assert_close(output.centerness, torch.tensor([[1.0, 2, 3]]).tanh().repeat(1, 5))


def test_quirk_centerness_order_changes_nothing_else():
    levels = make_levels()[:1]
    (kernel_major, _), (kernel_fastest, _) = (make_head(kernel_major=k)(levels) for k in (True, False))
    assert isinstance(kernel_major, HeadOutput)
    for name in OUTPUTS:
        assert torch.equal(getattr(kernel_major, name), getattr(kernel_fastest, name))
    assert not torch.equal(kernel_major.centerness, kernel_fastest.centerness)
    assert torch.equal(kernel_major.centerness.view(2, 3, -1).mT, kernel_fastest.centerness.view(2, -1, 3))


# ---------------------------------------------------------------------------------------------------- without FCA


@pytest.mark.parametrize("calibration", ["none", "ali", "ada"])
def test_square_kernels_leave_every_anchor_its_output(calibration):
    levels = make_levels()
    head = make_head(calibration, square_kernels=True)
    output, _ = head(levels)
    num = len(make_anchors(SIZES, KERNELS))
    assert {name: getattr(output, name).shape for name in OUTPUTS} == {
        name: (2, num, size) for name, size in OUTPUTS.items()
    }
    assert output.centerness.shape == (2, num) and output.class_logits.isfinite().all()
    weights = {
        name: tuple(value.shape[2:]) for name, value in head.named_parameters() if "layer" in name and value.ndim == 4
    }
    assert all(shape == (3, 3) for name, shape in weights.items() if "conv_offset" not in name)
    offsets = [value for name, value in head.named_parameters() if "conv_offset" in name]
    assert [tuple(value.shape) for value in offsets] == [(18, 4, 1, 1)] * (3 if calibration == "ada" else 0)


def test_square_kernels_change_nothing_for_square_anchors():
    """The first anchor is 3×3, like its convolution, so with the same weights it gives the same output."""
    levels = make_levels()[:1]
    square, usual = make_head("ali", square_kernels=True), make_head("ali")
    shapes = {name: value.shape for name, value in usual.state_dict().items()}
    state = {name: value for name, value in square.state_dict().items() if value.shape == shapes[name]}
    usual.load_state_dict(state, strict=False)
    ours, theirs = (head(levels)[0].class_logits.view(2, -1, 3, 6) for head in (square, usual))
    assert torch.equal(ours[:, :, 0], theirs[:, :, 0])
    assert not torch.equal(ours[:, :, 1], theirs[:, :, 1])


@pytest.mark.parametrize("anchor", [(3, 3), (3, 5), (5, 3), (1, 7)])
def test_a_box_stays_where_it_is_when_told_relative_to_the_kernel(anchor):
    deltas = torch.randn(2, 4, 3, 5, generator=torch.Generator().manual_seed(0))
    as_kernel = relative_to_kernel(deltas, anchor, (3, 3))

    def boxes(values, height, width):
        return decode(values.permute(0, 2, 3, 1), torch.tensor([10.0, 20.0, width, height]))

    torch.testing.assert_close(boxes(as_kernel, 3, 3), boxes(deltas, *anchor))


def test_square_kernels_are_laid_over_the_box_of_an_anchor_of_another_shape():
    """A box like its anchor of 3×5 cells is sampled in three columns 5/3 of a cell apart."""
    head = make_head("ali", square_kernels=True)
    seen = head._as_calibration_sees([torch.zeros(1, 4, 1, 1)] * 3)
    offsets = [layer.offsets(deltas).view(3, 3, 2) for layer, deltas in zip(head.conf_layer, seen, strict=True)]
    apart = 5 / 3 - 1
    across = torch.tensor([-apart, 0, apart]).expand(3, 3)
    for index, (dy, dx) in enumerate(((0 * across, 0 * across), (0 * across, across), (across.T, 0 * across))):
        torch.testing.assert_close(offsets[index], torch.stack((dy, dx), dim=-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("square", [True, False])
def test_the_config_key_is_about_the_convolutions_alone(square):
    config = get_config("STMask_demo_config", {"head.square_kernels": square})
    with torch.device("meta"):
        head = STMask(config).prediction_layers[0]
    assert config.head.kernels == KERNELS
    expected = [(3, 3)] * 3 if square else list(KERNELS)
    for layers in (head.bbox_layer, head.track_layer, head.mask_layer, head.centerness_layer):
        assert [layer.kernel_size for layer in layers] == expected
    assert [layer.conv.kernel_size for layer in head.conf_layer] == expected
