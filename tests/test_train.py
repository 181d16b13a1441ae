"""train.py as its user runs it: steps, checkpoints, interruptions and exact resume."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train as command
from data.config import get_config
from data.synthetic import generate
from stmask import STMask
from utils.checkpoint import load_state_dict, save_state_dict

ROOT = Path(__file__).parent.parent
DEMO = "STMask_demo_config"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("data") / "ShapesVIS", train_videos=3, valid_videos=1, workers=1)


def arguments(data, folder, *more):
    return [
        "--batch_size=2",
        "--max_iter=6",
        f"--save_folder={folder}",
        "--set=input.size_hw=64,96",
        f"--set=dataset.root={data}",
        "--num_workers=0",
        "--device=cpu",
        *more,
    ]


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory):
    """The folder of an uninterrupted run of six iterations."""
    folder = tmp_path_factory.mktemp("straight")
    assert command.main(arguments(data, folder, f"--config={DEMO}", "--save_interval=2")) == 0
    return folder


def final_weights(folder):
    (path,) = folder.glob("STMask_demo_*_6.pth")
    return load_state_dict(path)


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


# ------------------------------------------------------------------------------------------------ a run


def test_a_run_leaves_checkpoints_their_states_and_a_log(straight):
    saved = sorted(straight.glob("*.pth"), key=lambda path: int(path.stem.split("_")[-1]))
    assert [path.stem.split("_")[-1] for path in saved] == ["2", "4", "6"]
    assert all(path.with_suffix(".state").exists() for path in saved)
    model = STMask.from_pretrained(saved[-1], device="cpu")
    fresh = STMask.from_config(get_config(DEMO)).state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in model.state_dict().items())
    (record,) = map(json.loads, (straight / "STMask_demo_log.jsonl").read_text().splitlines())
    names = {"BIoU", "C", "center", "M", "T", "B_shift", "M_shift"}
    assert record["iteration"] == 6 and names <= record.keys()
    assert record["total"] == pytest.approx(sum(record[name] for name in names))


def test_the_same_seed_gives_the_same_bits_and_workers_change_nothing(data, straight, tmp_path):
    line = arguments(data, tmp_path, f"--config={DEMO}", "--num_workers=2", "--keep_latest", "--save_interval=3")
    assert command.main(line) == 0
    assert_same_weights(final_weights(tmp_path), final_weights(straight))
    assert len(list(tmp_path.glob("*.pth"))) == len(list(tmp_path.glob("*.state"))) == 1  # --keep_latest
    other = tmp_path / "other"
    assert command.main(arguments(data, other, f"--config={DEMO}", "--seed=1")) == 0
    name = "prediction_layers.0.upfeature.0.weight"
    assert not torch.equal(final_weights(other)[name], final_weights(straight)[name])


def test_bf16_trains_too(data, tmp_path):
    line = arguments(data, tmp_path, f"--config={DEMO}", "--precision=bf16", "--max_iter=2")
    assert command.main(line) == 0
    record = json.loads((tmp_path / "STMask_demo_log.jsonl").read_text())
    assert 0 < record["total"] < 1000


def test_validation_scores_the_valid_split_and_changes_nothing(data, straight, tmp_path):
    assert command.main(arguments(data, tmp_path, f"--config={DEMO}", "--validation_epoch=1")) == 0
    records = list(map(json.loads, (tmp_path / "STMask_demo_log.jsonl").read_text().splitlines()))
    (validation,) = [record for record in records if "validation" in record]  # six steps are less than an epoch
    assert validation["iteration"] == 6
    assert 0 <= validation["validation"]["AP"] <= 1
    assert_same_weights(final_weights(tmp_path), final_weights(straight))


# ------------------------------------------------------------------------------------------------ interruptions


def start(data, folder, *more):
    line = [sys.executable, str(ROOT / "train.py"), *arguments(data, folder, *more)]
    # Sums depend on the number of threads in their last bits: as many as this process has.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    return subprocess.Popen(line, env={**os.environ, **threads}, stderr=subprocess.PIPE, text=True)


def wait_for(process, folder, pattern):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if list(folder.glob(pattern)):
            return
        time.sleep(0.005)
    pytest.fail(f"nothing like {pattern} came: {process.communicate()[1][-2000:]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_at_once_and_resumes_to_the_identical_weights(data, straight, tmp_path, number):
    process = start(data, tmp_path, f"--config={DEMO}", "--save_interval=1")
    wait_for(process, tmp_path, "STMask_demo_*_1.pth")
    process.send_signal(number)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 0 and "--resume=interrupt" in errors
    (interrupted,) = tmp_path.glob("*_interrupt.pth")
    assert int(interrupted.stem.split("_")[-2]) < 6
    assert command.main(arguments(data, tmp_path, "--resume=interrupt")) == 0
    assert_same_weights(final_weights(tmp_path), final_weights(straight))


def test_after_kill_9_the_last_checkpoint_is_whole_and_resumes_exactly(data, straight, tmp_path):
    process = start(data, tmp_path, f"--config={DEMO}", "--save_interval=1")
    wait_for(process, tmp_path, "STMask_demo_*_2.pth")
    process.kill()
    process.communicate()
    for path in tmp_path.glob("*.pth"):
        assert path.with_suffix(".state").exists()
        load_state_dict(path)
    assert command.main(arguments(data, tmp_path, "--resume=latest")) == 0
    assert_same_weights(final_weights(tmp_path), final_weights(straight))


def test_a_checkpoint_without_a_state_resumes_the_weights_and_says_so(data, straight, tmp_path, capsys):
    (path,) = straight.glob("STMask_demo_*_4.pth")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    assert command.main(arguments(data, tmp_path, f"--resume={copy}")) == 0
    assert "optimiser and warm-up start anew" in capsys.readouterr().err
    assert json.loads((tmp_path / "STMask_demo_log.jsonl").read_text())["iteration"] == 6


def test_resuming_with_another_seed_or_batch_is_refused(data, straight, tmp_path, capsys):
    (path,) = straight.glob("STMask_demo_*_4.pth")
    assert command.main(arguments(data, tmp_path, f"--resume={path}", "--seed=5")) == 2
    assert "--seed=0" in capsys.readouterr().err
    assert command.main(arguments(data, tmp_path, f"--resume={path}", "--batch_size=3")) == 2
    assert "--batch_size=2" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ the recipe


def test_the_published_schedule():
    config = get_config("STMask_plus_base_config")
    schedule = command.Schedule(config, batch_size=8)  # 16 images: everything takes half as long
    assert schedule.iterations == 125_000
    assert schedule(0) == pytest.approx(1e-4 / 250)
    assert schedule(124) == pytest.approx(1e-4 / 2)
    assert schedule(250) == schedule(74_999) == pytest.approx(1e-4)
    assert schedule(75_000) == pytest.approx(1e-5)
    assert schedule(100_000) == pytest.approx(1e-6)
    assert command.Schedule(config, batch_size=4).iterations == 250_000
    assert command.Schedule(config, batch_size=8, iterations=20).iterations == 20


def test_quirk_lr_is_not_autoscaled():
    for quirk, expected in ((True, 1e-4), (False, 2e-4)):
        config = get_config("STMask_plus_base_config", {"quirks.lr_not_autoscaled": quirk})
        assert command.Schedule(config, batch_size=8)(1000) == pytest.approx(expected)


def test_the_options_of_the_recipe_reach_the_optimiser(tmp_path):
    options = command.parse_arguments(["--config=STMask_resnet50", "--lr=0.5", "--momentum=0.7", "--decay=0.01"])
    config, _ = command.find_config(options)
    with torch.device("meta"):
        optimizer = command.make_optimizer(STMask.from_config(config).train(), config)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.7, 0.01)
    options = command.parse_arguments(["--config=STMask_resnet50", "--gamma=0.5"])
    assert command.Schedule(command.find_config(options)[0], 4)(160_000) == pytest.approx(0.5e-4)


def test_training_starts_from_every_tensor_that_fits(tmp_path, caplog):
    torch.manual_seed(1)
    state = dict(STMask.from_config(get_config(DEMO)).state_dict())
    state["fpn.lat_layers.0.weight"] = torch.ones(3, 3)
    del state["backbone.conv1.weight"]
    state["semantic_seg_conv.weight"] = torch.ones(1)
    save_state_dict(state, tmp_path / "yolact.pth")
    torch.manual_seed(2)
    model = STMask.from_config(get_config(DEMO))
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level("INFO"):
        command.start_from(model, tmp_path / "yolact.pth")
    ours = model.state_dict()
    for name in ("fpn.lat_layers.0.weight", "backbone.conv1.weight"):
        assert torch.equal(ours[name], fresh[name])
    assert torch.equal(ours["fpn.lat_layers.1.weight"], state["fpn.lat_layers.1.weight"])
    assert "1 missing" in caplog.text and "1 unexpected" in caplog.text and "1 of another shape" in caplog.text


# ------------------------------------------------------------------------------------------------ trouble


class Broken:
    """A criterion whose class loss is not finite in the steps named."""

    def __init__(self, criterion, bad_steps):
        self.criterion, self.bad_steps, self.step = criterion, bad_steps, -1

    def __call__(self, *arguments):
        self.step += 1
        losses = self.criterion(*arguments)
        return losses | {"C": losses["C"] * float("nan")} if self.step in self.bad_steps else losses


def run_broken(monkeypatch, data, folder, bad_steps, *more):
    make = command.MultiBoxLoss.from_config
    monkeypatch.setattr(command.MultiBoxLoss, "from_config", lambda config: Broken(make(config), bad_steps))
    return command.main(arguments(data, folder, f"--config={DEMO}", *more))


def test_a_loss_that_is_not_finite_names_itself_and_skips_the_step(monkeypatch, data, tmp_path, capsys):
    assert run_broken(monkeypatch, data, tmp_path, {2}) == 0
    assert "C not finite" in capsys.readouterr().err
    assert all(torch.isfinite(value).all() for value in final_weights(tmp_path).values())


def test_twenty_bad_steps_in_a_row_stop_the_run_and_the_good_checkpoint_stays(monkeypatch, data, tmp_path, capsys):
    code = run_broken(monkeypatch, data, tmp_path, range(2, 99), "--max_iter=40", "--save_interval=2")
    assert code == 1
    assert "20 times in a row" in capsys.readouterr().err
    saved = [path.stem.split("_")[-1] for path in tmp_path.glob("*.pth")]
    assert saved == ["2"]  # nothing is saved while the loss is not finite


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([], "--config"),
        (["--config=STMask_demo"], "data/ShapesVIS"),
        (["--config=STMask_demo", "--resume=latest"], "no checkpoint"),
        (["--resume=STMask_demo_1_5.pth"], "ShapesVIS"),
    ],
)
def test_bad_input_is_exit_code_2(line, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command.main([*line, f"--save_folder={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("train.py: error: ") and words in error


def test_a_missing_starting_point_says_what_to_do(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = arguments(data, tmp_path, "--config=STMask_plus_resnet50_config")
    line.append("--set=dataset.class_names=circle,ring,square,bar,triangle,star,cross,crescent")
    assert command.main(line) == 2
    error = capsys.readouterr().err
    assert "weights/yolact_plus_resnet50_54_800000.pth" in error and "train.pretrained=" in error


def test_print_config_prints_the_overrides(capsys):
    line = ["--config=STMask_demo", "--print_config", "--lr=0.25", "--set", "train.weight_decay=0"]
    assert command.main(line) == 0
    printed = capsys.readouterr().out
    assert "train.learning_rate = 0.25" in printed and "train.weight_decay = 0.0" in printed
