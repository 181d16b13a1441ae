"""Inference and training on a GPU; tests/tools/test_parity.py, which also runs on one, compares the numbers.

These tests are skipped without a GPU.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

import train as command
from data.config import get_config
from data.synthetic import generate
from data.transforms import ColourChange, FrameTransform, PictureInput, change_colours
from inference.network import Network
from inference.tracker import VideoTracker
from layers.cuda import deform_kernels
from layers.deform_conv import deform_backend, deformable_conv2d
from stmask import STMask
from tests.layers.cuda import deform_cases
from tests.layers.cuda.deform_cases import CASES, DTYPES, TOLERANCE, arguments
from tools.launches import random_clip
from tools.parity import RECORDED, clip, load_for_training, load_model, training_batch
from utils.checkpoint import load_state_dict, load_training_state
from utils.device import peak_memory_mib, pick_device
from utils.distributed import World
from utils.structures import ClipBatch
from utils.timer import StageTimer
from utils.training_settings import TrainSettings
from utils.transfers import Transfers

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

WEIGHTS = Path(__file__).parent.parent / "weights" / "STMask_demo.pth"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data") / "ShapesVIS", train_videos=3, valid_videos=1, workers=1)


@pytest.mark.parametrize("kernel", [(3, 3), (3, 5), (5, 3)])
@pytest.mark.parametrize("modulated", [False, True])
def test_deformable_convolution_and_its_gradients_are_those_of_the_cpu(kernel, modulated):
    generator = torch.Generator().manual_seed(0)
    taps = kernel[0] * kernel[1]
    padding = (kernel[0] // 2, kernel[1] // 2)
    shapes = [(2, 16, 9, 14), (2, 2 * taps, 9, 14), (8, 16, *kernel), (8,), (2, taps, 9, 14)]
    values = [torch.randn(shape, generator=generator) for shape in shapes[: 5 if modulated else 4]]

    def run(device):
        inputs = [value.to(device).requires_grad_() for value in values]
        out = deformable_conv2d(*inputs, padding=padding)
        out.square().sum().backward()
        return [out.detach().cpu(), *(x.grad.cpu() for x in inputs)]

    pick_device("cuda")  # float32 is float32 from here on
    for ours, expected in zip(run("cuda"), run("cpu"), strict=True):
        assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", deform_kernels.KERNELS)
def test_our_kernels_compute_what_torchvision_does(backend, name, dtype):
    if backend not in deform_kernels.installed_kernels():
        pytest.skip(f"no {backend} here")
    *inputs, modulation = arguments(CASES[name], dtype)
    moved = [x.cuda() if isinstance(x, torch.Tensor) else x for x in (*inputs, modulation)]
    assert deform_kernels.find_kernel(backend, torch.device("cuda"), dtype)
    features, offsets, weight, bias, *geometry, modulation_there = moved
    with torch.inference_mode(), deform_backend(backend), torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda.current_stream().wait_stream(torch.cuda.default_stream())
        out = deformable_conv2d(features, offsets, weight, bias, modulation_there, *geometry).cpu()
    assert deform_cases.relative_error(out, deform_cases.expected(*inputs, modulation)) < TOLERANCE[dtype]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", RECORDED)
def test_the_fused_network_says_what_the_plain_one_does(name, precision):
    model = load_model(name, device="cuda")
    images = clip(1)[:2].to(model.device)
    with torch.inference_mode():
        expected, found = model(images), Network(model, precision)(images)
    limit = {"fp32": 1e-5, "bf16": 0.1, "fp16": 0.02}[precision]
    for field in ("box_deltas", "class_logits", "mask_coeffs", "embeddings", "prototypes"):
        ours, plain = getattr(found, field).float(), getattr(expected, field)
        assert (ours - plain).norm() < limit * plain.norm(), field


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_training_says_its_losses_of_the_recorded_batch(precision):
    model = load_for_training(RECORDED[0])
    losses = {}
    for device in ("cpu", "cuda"):
        world = World(pick_device(device))
        network = command.NetworkLosses(model.to(world.device), world, "fp32" if device == "cpu" else precision)
        losses[device] = network(ClipBatch(*training_batch()).to(world.device))
    for name, loss in losses["cuda"].items():
        expected = losses["cpu"][name].item()
        assert loss.item() == pytest.approx(expected, rel=1e-4 if precision == "fp32" else 0.1), name


@pytest.mark.parametrize("seed", range(8))
def test_colours_change_there_as_on_the_cpu(seed):
    """But for rounding: a value may be one off."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        change = ColourChange.draw()
        clips = torch.randint(256, (1, 2, 30, 40, 3), dtype=torch.uint8)
    found = change_colours(clips.cuda(), [change]).cpu()
    assert (found.int() - change_colours(clips, [change]).int()).abs().max() <= 1


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "more", [["train.photometric=true"], ["train.optimizer=sgd", "train.contrastive=true", "train.ema_decay=0.9"]]
)
def test_a_training_step_does_not_wait_for_the_device(precision, more):
    config = get_config("STMask_demo_config", ["input.size_hw=64,96", *more])
    world = World(pick_device("cuda"))
    torch.manual_seed(0)
    trainer = command.Trainer(STMask.from_config(config), TrainSettings(batch_size=2, precision=precision), 10, world)
    batch = command.collate_for(config, world)([random_clip(config, 3, first) for first in (0, 3)]).pin_memory()
    assert batch.targets.candidates is not None
    for _ in range(command.STEPS_AHEAD):
        trainer.step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        losses = trainer.step(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(loss.isfinite() for loss in losses.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_training_is_interrupted_resumed_and_read_on_a_cpu(data, tmp_path, precision):
    def arguments(iterations, *more):
        return [
            *("--config=STMask_demo_config", "--batch_size=2", f"--max_iter={iterations}", "--num_workers=1"),
            *(f"--save_folder={tmp_path}", "--set=input.size_hw=64,96", f"--set=dataset.root={data}"),
            *("--device=cuda", f"--precision={precision}", *more),
        ]

    assert command.main(arguments(4)) == 0
    assert command.main(arguments(6, "--resume=latest")) == 0
    (path,) = tmp_path.glob("STMask_demo_*_6.pth")
    assert all(x.device.type == "cpu" and x.isfinite().all() for x in load_state_dict(path).values())
    assert load_training_state(path)["iteration"] == 6
    model = STMask.from_pretrained(path, device="cpu")
    assert VideoTracker(model).step(torch.zeros(3, 64, 96)).boxes.device.type == "cpu"


@pytest.mark.parametrize("overlap", [False, True])
def test_a_stream_finds_the_same_objects_also_ahead_of_the_host(data, overlap):
    (video,) = (data / "valid" / "JPEGImages").iterdir()
    found = {}
    for device in ("cpu", "cuda"):
        model = STMask.from_pretrained(WEIGHTS, device=device)
        timer = StageTimer(model.device)
        found[device] = []
        for frame in model.stream(video, overlap=overlap, timer=timer):
            found[device].append((frame.track_ids.tolist(), np.asarray(frame.boxes_px)))
            timer.frame_done()
        assert timer.summary()["network"].median_ms > 0
    for (ids, boxes), (cpu_ids, cpu_boxes) in zip(found["cuda"], found["cpu"], strict=True):
        assert ids == cpu_ids
        assert np.abs(boxes - cpu_boxes).max(initial=0) <= 1
    assert any(ids for ids, _ in found["cuda"])
    assert peak_memory_mib(model.device) > 1


def test_pictures_become_the_images_of_the_cpu_bit_by_bit():
    config = get_config("STMask_demo_config")
    transform = FrameTransform.from_config(config)
    frames = np.random.default_rng(0).integers(0, 256, (3, 70, 50, 3), np.uint8)
    pictures = Transfers(torch.device("cuda")).to_device([transform.for_network(frame) for frame in frames])
    images = PictureInput(config.input, pictures.device)(pictures)
    assert torch.equal(images.cpu(), torch.stack([transform(frame)[0] for frame in frames]))


def test_what_is_under_way_to_the_host_arrives_whole_while_the_gpu_works():
    """Page-locked memory is not used again before it was read, though much more is under way than is kept."""
    device = torch.device("cuda")
    transfers, work = Transfers(device), torch.randn(2048, 2048, device=device)
    under_way = []
    for number in range(50):
        work = work @ work / 2048
        value = torch.full((1000,), number, device=device)
        under_way.append((number, transfers.to_host([value, value.float()])))
        if len(under_way) > 3:
            expected, arrived = under_way.pop(0)
            assert all((tensor == expected).all() for tensor in arrived())


def test_a_step_of_the_tracker_does_not_wait_for_the_device_and_finds_what_the_cpu_finds():
    cpu, gpu = VideoTracker(load_model(RECORDED[0])), VideoTracker(load_model(RECORDED[0], device="cuda"))
    for image in clip(1)[:5]:
        expected = cpu.step(image)
        predictions = gpu.look(image[None].to(gpu.model.device))
        torch.cuda.set_sync_debug_mode("error")
        try:
            with torch.inference_mode():
                gpu.compute_step(gpu._state, predictions)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        found = gpu.update(predictions)
        assert found.boxes.device.type == "cpu" and gpu.known.boxes.device.type == "cuda"
        assert found.track_ids.tolist() == expected.track_ids.tolist()
        assert found.labels.tolist() == expected.labels.tolist()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", RECORDED)
def test_replayed_graphs_find_what_the_kernels_one_by_one_find_and_do_not_wait(name, precision):
    model = load_model(name, device="cuda")
    plain, graphed = (VideoTracker(model, network=Network(model, precision, graphs=on)) for on in (False, True))
    assert graphed.network.graphs, "no deformable convolution here follows the stream"
    images = [*clip(1), *clip(1).flip(3)]  # every replay is of a fresh image
    states = []
    for image in images:
        image = image.to(model.device)
        states.append(graphed._state)
        found, expected = graphed.step(image), plain.step(image)
        assert found.track_ids.tolist() == expected.track_ids.tolist()
        assert found.labels.tolist() == expected.labels.tolist()
        assert torch.allclose(found.boxes, expected.boxes, atol=1e-4)
    for _ in range(3):  # of the last frame once more: its kind is recorded and checked by then
        predictions = graphed.look(image[None])
        graphed._replay_step(states[-1], predictions)
    assert graphed.network._forward.num_graphs == 1 and graphed._replay_step.num_graphs >= 1
    torch.cuda.set_sync_debug_mode("error")
    try:
        graphed._replay_step(states[-1], graphed.look(image[None]))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_state_of_a_tracker_is_taken_over():
    model = load_model(RECORDED[0], device="cuda")
    images = clip(1).to(model.device)
    first, second = VideoTracker(model), VideoTracker(model)
    for image in images[:3]:
        first.step(image)
    second.load_state_dict({name: value.cpu() for name, value in first.state_dict().items()})
    for image in images[3:5]:
        ours, expected = second.step(image), first.step(image)
        assert ours.track_ids.tolist() == expected.track_ids.tolist()
        assert torch.equal(ours.boxes, expected.boxes)
