"""tools/kernel_speed.py, tools/step_speed.py and tools/half_precision.py measure what they claim."""

import json
from dataclasses import replace

import pytest
import torch

import train
from data.synthetic import generate
from layers.deform_conv import available_backends
from tools import half_precision, kernel_speed, step_speed
from tools.parity import RECORDED, load_model

BACKENDS = [name for name in available_backends() if name != "mmcv"]


def test_the_kernel_is_timed_on_every_backend_and_drawn():
    measured = kernel_speed.measure(rounds=1, layer=(16, 6, 10), bf16=True)
    assert list(measured["cpu_ms"]["forward+backward"]) == BACKENDS
    assert [name for name in measured["cpu_ms"]["forward"] if name != "native bf16"] == BACKENDS
    assert all(ms > 0 for clock in ("wall_ms", "cpu_ms") for times in measured[clock].values() for ms in times.values())
    panels = kernel_speed.draw(measured).axes
    assert [axes.get_title() for axes in panels] == ["forward", "forward+backward"]
    assert [len(axes.patches) for axes in panels] == [len(times) for times in measured["cpu_ms"].values()]


def test_objects_of_another_precision_are_counted_by_mask_and_id():
    frames = half_precision.track(load_model(RECORDED[0]), "fp32")
    total = sum(map(len, frames))
    assert half_precision.compare(frames, frames) == (total, total, total) and total > 100
    renamed = [replace(tracks, track_ids=tracks.track_ids + 1) for tracks in frames]
    assert half_precision.compare(frames, renamed) == (total, 0, total)
    assert half_precision.compare(frames, [tracks[:0] for tracks in frames]) == (0, 0, total)


@pytest.mark.slow
def test_a_step_is_one_of_training_and_its_operators_are_told(tmp_path, monkeypatch):
    root = generate(tmp_path / "ShapesVIS", train_videos=3, valid_videos=1, workers=1)
    trained = []
    step = train.Trainer.step
    monkeypatch.setattr(train.Trainer, "step", lambda self, batch: trained.append(batch) or step(self, batch))
    line = ["--config=STMask_demo_config", "--batch_size=1", f"--set=dataset.root={root}", "--set=input.size_hw=64,96"]
    line += ["--device=cpu", "--rounds=1", "--num_workers=0", f"--output={tmp_path / 'step.json'}"]
    assert step_speed.main(line) == 0
    measured = json.loads((tmp_path / "step.json").read_text())
    assert measured["size_hw"] == [64, 96] and trained[0].frames.shape == (1, 2, 3, 64, 96)
    # One warms up, one is timed, one is profiled; with the loader and without one warms up, one is timed.
    assert len(trained) == 3 * len(BACKENDS) + 4
    training = measured["training"]
    assert training["clips_per_second"] == pytest.approx(1 / training["step"]) and training["step_alone"] > 0
    assert 0 <= training["share_of_loader"] < 1 and training["num_workers"] == 0
    assert list(measured["seconds"]) == list(measured["operators"]) == BACKENDS
    assert all(0 < part < 1 for parts in measured["operators"].values() for part in parts.values())
    if "native" in BACKENDS:
        assert any("stmask::deform_conv2d" in name for name in step_names(measured, "native"))
        assert not any("stmask::" in name for name in step_names(measured, "torchvision"))
    assert all(torch.isfinite(torch.tensor(list(times.values()))).all() for times in measured["seconds"].values())


@pytest.mark.parametrize(("more", "words"), [("--precision=fp16", "needs a GPU"), ("--set=dataset.root=no", "no/")])
def test_bad_input_of_a_step_is_one_line(tmp_path, monkeypatch, capsys, more, words):
    monkeypatch.chdir(tmp_path)
    assert step_speed.main(["--config=STMask_demo_config", "--device=cpu", more]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("step_speed: error: ") and words in error


@pytest.fixture(autouse=True)
def every_operator(monkeypatch):
    monkeypatch.setattr(step_speed, "SHOWN_OPERATORS", 1000)


def step_names(measured, backend):
    return list(measured["operators"][backend])
