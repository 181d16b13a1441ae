"""train.py, run by its command line: steps, checkpoints, interruptions, exact resume, in one process and in two."""

import copy
import json
import math
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import torchvision

import train as command
from data.clips import ClipDataset
from data.config import get_config
from data.dataset import YTVISDataset
from data.synthetic import generate
from inference.network import Network
from layers.losses import MultiBoxLoss
from stmask import STMask
from tests import processes
from tests.serving import serving
from utils.checkpoint import load_state_dict, load_training_state, save_state_dict, save_training_state
from utils.checkpoint_record import read_record
from utils.distributed import World
from utils.precision import PRECISIONS
from utils.structures import ClipBatch, CropBatch, FrameTargets
from utils.training_settings import TrainSettings
from ytvis.files import InputError

ROOT = Path(__file__).parent.parent
DEMO = "STMask_demo_config"
# Nothing here magnifies the last bits, in which two processes differ from one, as Adam's division by tiny numbers does.
PLAIN = ("--set=train.optimizer=sgd", "--set=train.freeze_batch_norm=true", "--set=train.warmup_iterations=0")


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
    names = {"BIoU", "C", "center", "M", "T", "B_shift", "M_shift", "S"}
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


@pytest.mark.parametrize("key", ["input.size_hw=128,224", "train.scales=192,320;128,224"])
def test_bf16_on_a_cpu_is_refused_where_its_gradients_are_wrong(data, tmp_path, capsys, key):
    line = arguments(data, tmp_path, f"--config={DEMO}", "--precision=bf16", f"--set={key}", "--set=head.channels=128")
    assert command.main(line) == 2
    assert "needs frames of more than 128 pixels in height, these have 128" in capsys.readouterr().err


def test_validation_scores_the_valid_split_and_changes_nothing(data, straight, tmp_path):
    assert command.main(arguments(data, tmp_path, f"--config={DEMO}", "--validation_epoch=1")) == 0
    records = list(map(json.loads, (tmp_path / "STMask_demo_log.jsonl").read_text().splitlines()))
    (validation,) = [record for record in records if "validation" in record]  # six steps are less than an epoch
    assert validation["iteration"] == 6
    assert 0 <= validation["validation"]["AP"] <= 1
    assert_same_weights(final_weights(tmp_path), final_weights(straight))


# ------------------------------------------------------------------------------------------------ interruptions


def start(data, folder, *more):
    return processes.start([ROOT / "train.py", *arguments(data, folder, *more)])


def wait_for(process, folder, pattern):
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if list(folder.glob(pattern)):
            return
        time.sleep(0.005)
    pytest.fail(f"nothing like {pattern} came: {process.communicate()[1][-2000:]}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_at_once_and_resumes_to_the_identical_weights(data, straight, tmp_path, number):
    process = start(data, tmp_path, f"--config={DEMO}", "--save_interval=1", "--num_workers=1")
    wait_for(process, tmp_path, "STMask_demo_*_1.pth")
    os.killpg(process.pid, number)  # the workers get it too, as from terminals and clusters
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


def test_a_run_that_has_ended_says_that_nothing_is_left(data, straight, tmp_path, capsys):
    (path,) = straight.glob("STMask_demo_*_6.pth")
    assert command.main(arguments(data, tmp_path, f"--resume={path}")) == 0
    assert "nothing left to train: iteration 6 of 6" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.pth"))


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
    assert command.main(arguments(data, tmp_path, f"--resume={path}", "--accumulate=2")) == 2
    assert "--accumulate=1" in capsys.readouterr().err
    for other in ("train.optimizer=sgd", "train.freeze_batch_norm=true", "train.semantic_loss=0"):
        assert command.main(arguments(data, tmp_path, f"--resume={path}", f"--set={other}")) == 2
        assert "other --set train" in capsys.readouterr().err


def test_a_state_that_does_not_fit_and_a_name_that_tells_nothing_are_refused(data, straight, tmp_path, capsys):
    (path,) = straight.glob("STMask_demo_*_4.pth")
    copy = tmp_path / path.name
    copy.write_bytes(path.read_bytes())
    state = load_training_state(path)
    torch.save({name: value for name, value in state.items() if name != "optimizer"}, copy.with_suffix(".state"))
    assert command.main(arguments(data, tmp_path, f"--resume={copy}")) == 2
    assert "delete it to resume with the weights only" in capsys.readouterr().err
    nameless = tmp_path / "weights.ckpt"
    save_state_dict(load_state_dict(path), nameless)
    assert command.main(arguments(data, tmp_path, f"--config={DEMO}", f"--resume={nameless}")) == 2
    assert "name does not contain an iteration" in capsys.readouterr().err


def test_basic_blocks_train_resume_and_run_fused_as_unfused(data, tmp_path):
    line = [f"--config={DEMO}", "--set=backbone.block=basic", "--set=backbone.blocks=1,2,1,1"]
    assert command.main(arguments(data, tmp_path, *line, "--max_iter=3", "--save_interval=2")) == 0
    folder = tmp_path / "resumed"
    folder.mkdir()
    for path in tmp_path.glob("STMask_demo_*_2.*"):
        (folder / path.name).write_bytes(path.read_bytes())
    assert command.main(arguments(data, folder, *line, "--max_iter=3", "--resume=latest")) == 0
    trained, resumed = (next(place.glob("*_3.pth")) for place in (tmp_path, folder))
    assert_same_weights(load_state_dict(trained), load_state_dict(resumed))
    overrides = ["backbone.block=basic", "backbone.blocks=1,2,1,1", "input.size_hw=64,96"]
    model = STMask.from_pretrained(trained, get_config(DEMO, overrides), device="cpu")
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        plain, fused = (Network(model, fused=fused)(images) for fused in (False, True))
    assert plain.class_logits.isfinite().all()
    for name in ("box_deltas", "class_logits", "prototypes"):
        torch.testing.assert_close(getattr(fused, name), getattr(plain, name), atol=1e-3, rtol=1e-3)


def test_odd_states_are_refused_in_one_line(tmp_path):
    first = trainer(*PLAIN[1:], f"--save_folder={tmp_path}")
    first.step(two_clips())
    first.save()
    (path,) = tmp_path.glob("*.pth")
    state = load_training_state(path)
    adam = state["optimizer"]["state"]
    moments = adam[0]
    shape = moments["exp_avg"].shape
    weights = load_state_dict(path)
    largest = max(weights, key=lambda name: weights[name].numel())
    second = trainer(*PLAIN[1:])
    for odd in (
        [],
        torch.zeros(3),
        {**state, "iteration": "6"},
        {**state, "iteration": -1},
        {**state, "weights": [torch.zeros(3)], "averaged_steps": 1},
        {**state, "weights": {"fpn": torch.zeros(3)}, "averaged_steps": 1},
        {**state, "weights": {**weights, largest: torch.zeros(1).expand(60_000, 60_000)}, "averaged_steps": 1},
        {**state, "weights": {**weights, largest: weights[largest].long()}, "averaged_steps": 1},
        {**state, "weights": weights},
        {**state, "weights": weights, "averaged_steps": -10},
        {**state, "weights": weights, "averaged_steps": 1.5},
        {**state, "seed": torch.zeros(3)},
        {**state, "random": torch.zeros(3)},
        {**state, "random": "abc"},
        {**state, "recipe": state["optimizer"]},
        {**state, "auxiliary": {"weight": 3}},
        {**state, "optimizer": [state["optimizer"]]},
        {**state, "optimizer": {"state": {len(adam): moments}}},
        {**state, "optimizer": {"state": {0: {**moments, "exp_avg": torch.zeros(*shape, 1)}}}},
        {**state, "optimizer": {"state": {0: {**moments, "exp_avg": torch.zeros(1).expand(60_000, 60_000)}}}},
        {**state, "optimizer": {"state": {0: {**moments, "exp_avg": torch.zeros(shape).to_sparse()}}}},
        {**state, "optimizer": {"state": {0: {**moments, "exp_avg": torch.zeros(shape, device="meta")}}}},
        {**state, "optimizer": {"state": {0: {**moments, "exp_avg": [0.0]}}}},
        {**state, "optimizer": {"state": {0: {"exp_avg": moments["exp_avg"]}}}},
    ):
        torch.save(odd, path.with_suffix(".state"))
        with pytest.raises(InputError, match="delete it to resume|other --set train") as caught:
            second.resume(path)
        assert str(caught.value).startswith(str(path.with_suffix(""))) and str(caught.value).isprintable()
    save_training_state(state, path)
    second.resume(path)


def test_what_is_resumed_goes_on_with_the_settings_of_today(tmp_path):
    first = trainer(*PLAIN[1:], f"--save_folder={tmp_path}")
    first.step(two_clips())
    first.save()
    (path,) = tmp_path.glob("*.pth")
    second = trainer(*PLAIN[1:], "--decay=0.25")
    second.resume(path)
    assert second.optimizer.param_groups[0]["weight_decay"] == 0.25
    assert second.optimizer.state_dict()["state"].keys() == first.optimizer.state_dict()["state"].keys()


# ------------------------------------------------------------------------------------------------ averaged weights

AVERAGED = "--set=train.ema_decay=0.3"


@pytest.fixture(scope="module")
def averaged(data, tmp_path_factory):
    """The folder of an uninterrupted run of six iterations that averages the weights."""
    folder = tmp_path_factory.mktemp("averaged")
    assert command.main(arguments(data, folder, f"--config={DEMO}", AVERAGED, "--save_interval=1")) == 0
    return folder


def final_state(folder):
    (path,) = folder.glob("STMask_demo_*_6.pth")
    return load_training_state(path)


def test_checkpoints_hold_the_average_and_states_the_weights_of_the_same_training(averaged, straight):
    saved = sorted(averaged.glob("*.pth"), key=lambda path: int(path.stem.split("_")[-1]))
    assert_same_weights(final_state(averaged)["weights"], final_weights(straight))
    assert "weights" not in final_state(straight)
    average = None
    for path, decay in zip(saved, (0, 2 / 11, 3 / 12, 0.3, 0.3, 0.3), strict=True):
        weights = {
            name: value for name, value in load_training_state(path)["weights"].items() if value.is_floating_point()
        }
        average = average or weights
        average = {name: decay * average[name] + (1 - decay) * value for name, value in weights.items()}
        ours = load_state_dict(path)
        assert_close_weights({name: ours[name] for name in average}, average)
        assert read_record(path).changed["train.ema_decay"] == 0.3
    name = "prediction_layers.0.upfeature.0.weight"
    assert (average[name] - weights[name]).abs().max() > 1e-5
    assert (average["backbone.bn1.running_var"] - weights["backbone.bn1.running_var"]).abs().max() > 1e-5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_averaging_run_that_is_stopped_resumes_exactly(data, averaged, tmp_path, number):
    process = start(data, tmp_path, f"--config={DEMO}", AVERAGED, "--save_interval=1")
    wait_for(process, tmp_path, "STMask_demo_*_2.pth")
    process.send_signal(number)
    process.communicate(timeout=120)
    assert bool(list(tmp_path.glob("*_interrupt.pth"))) == (number == signal.SIGTERM)
    assert not list(tmp_path.glob("STMask_demo_*_6.pth"))
    assert command.main(arguments(data, tmp_path, "--resume=latest")) == 0
    assert_same_weights(final_weights(tmp_path), final_weights(averaged))
    assert_same_weights(final_state(tmp_path)["weights"], final_state(averaged)["weights"])
    assert final_state(tmp_path)["averaged_steps"] == 6


def test_the_average_is_validated_and_kept_as_the_best(monkeypatch, data, tmp_path):
    scored = []

    def score_videos(model, *_):
        scored.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"AP": 0.5}

    monkeypatch.setattr(command, "score_videos", score_videos)
    line = arguments(data, tmp_path, f"--config={DEMO}", AVERAGED, "--max_iter=2", "--validation_epoch=1")
    assert command.main(line) == 0
    (path,), (best,) = tmp_path.glob("*_2.pth"), tmp_path.glob("*_best.pth")
    assert_same_weights(load_state_dict(path), scored[0])
    assert_same_weights(load_state_dict(best), scored[0])
    name = "prediction_layers.0.upfeature.0.weight"
    assert not torch.equal(load_training_state(path)["weights"][name], scored[0][name])


def test_a_run_resumes_with_another_average_without_one_and_from_the_average_alone(tmp_path, caplog):
    first = trainer(*PLAIN, AVERAGED, f"--save_folder={tmp_path}")
    for _ in range(3):
        first.step(two_clips())
    first.save()
    (path,) = tmp_path.glob("*.pth")

    def resumed(*line):
        other = trainer(*PLAIN, *line, f"--save_folder={tmp_path / 'other'}")
        other.resume(path)
        return other

    lasting = resumed("--set=train.ema_decay=0.9")
    assert_same_weights(lasting.model.state_dict(), first.model.state_dict())
    assert_same_weights(lasting.saved_model.state_dict(), first.saved_model.state_dict())
    assert lasting.state.average.n_averaged == 3
    without = resumed()
    assert without.saved_model is without.model
    assert_same_weights(without.model.state_dict(), first.model.state_dict())
    assert "start anew" not in caplog.text
    path.with_suffix(".state").unlink()
    alone = resumed(AVERAGED)
    assert "optimiser, warm-up and average of the weights start anew" in caplog.text
    assert alone.state.average.n_averaged == 0
    for model in (alone.model, alone.saved_model):
        assert_same_weights(model.state_dict(), first.saved_model.state_dict())
    without.save()
    (path,) = (tmp_path / "other").glob("*.pth")
    begun = resumed(AVERAGED)
    begun.step(two_clips())
    assert begun.state.average.n_averaged == 1
    assert_same_weights(begun.saved_model.state_dict(), begun.model.state_dict())


def test_steps_that_are_skipped_are_not_averaged(monkeypatch):
    monkeypatch.setitem(PRECISIONS, "fp16", torch.float32)  # as in the test of the scaler
    ours = trainer(*PLAIN, AVERAGED, "--precision=fp16")
    ours.step(two_clips())
    ours.scaler.update(new_scale=2.0**127)
    ours.step(two_clips())
    assert ours.scaler.get_scale() == 2.0**126  # the gradients were infinite
    assert int(ours.state.average.n_averaged) == 1
    ours.losses.criterion = Broken(ours.losses.criterion, {0})
    ours.scaler.update(new_scale=1.0)
    ours.step(two_clips())
    assert int(ours.state.average.n_averaged) == 1
    ours.step(two_clips())
    assert int(ours.state.average.n_averaged) == 2


# ------------------------------------------------------------------------------------------------ two processes


def assert_close_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-6, msg=lambda text, name=name: name + text)


def records(folder):
    return list(map(json.loads, (folder / "STMask_demo_log.jsonl").read_text().splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--set=train.ema_decay=0.3",)], ids=["plain", "averaged"])
def test_two_processes_train_and_validate_as_one(data, tmp_path, more):
    line = [f"--config={DEMO}", *PLAIN, *more, "--accumulate=2", "--max_iter=3", "--validation_epoch=1"]
    run = processes.torchrun([ROOT / "train.py", *arguments(data, tmp_path / "two", *line)])
    assert run.returncode == 0, run.stderr
    assert command.main(arguments(data, tmp_path / "one", *line)) == 0
    assert run.stderr.count("saved ") == 1
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(
        path.name for path in (tmp_path / "one").iterdir()
    )
    scores, means = records(tmp_path / "one")[::-1]
    two_scores, two_means = records(tmp_path / "two")[::-1]
    for name in ("BIoU", "C", "center", "M", "T", "B_shift", "M_shift", "total", "lr"):
        assert two_means[name] == pytest.approx(means[name], rel=1e-5), name
    assert two_scores == scores
    names = [next((tmp_path / folder).glob("*_3.pth")) for folder in ("one", "two")]
    assert_close_weights(*map(load_state_dict, names))
    if more:
        assert_close_weights(*(load_training_state(name)["weights"] for name in names))


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_one_process_goes_on(data, tmp_path):
    steps = (*PLAIN, "--set=train.lr_schedule=steps")  # so that the learning rate does not depend on --max_iter
    line = arguments(data, tmp_path / "two", f"--config={DEMO}", *steps, "--save_interval=1", "--max_iter=40")
    both = processes.start_each([ROOT / "train.py", *line])
    wait_for(both[0], tmp_path / "two", "STMask_demo_*_1.pth")
    both[1].send_signal(signal.SIGTERM)
    errors = processes.finish(both)
    assert "stopped by a signal to another process" in errors[0]
    (interrupted,) = (tmp_path / "two").glob("*_interrupt.pth")
    iteration = int(interrupted.stem.split("_")[-2])
    assert 1 < iteration < 40
    line = [f"--max_iter={iteration + 1}", *steps]
    assert command.main(arguments(data, tmp_path / "two", "--resume=interrupt", *line)) == 0
    assert command.main(arguments(data, tmp_path / "one", f"--config={DEMO}", *line)) == 0
    last = [next((tmp_path / folder).glob(f"*_{iteration + 1}.pth")) for folder in ("one", "two")]
    assert_close_weights(*map(load_state_dict, last))


BROKEN_ON_ONE = """
import os, sys
import train
from tests.test_train import Broken
make = train.MultiBoxLoss.from_config
bad_steps = {1} if os.environ.get("RANK", "1") == "1" else {}
train.MultiBoxLoss.from_config = lambda *given: Broken(make(*given), bad_steps)
sys.exit(train.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_process_skips_the_step_in_all(monkeypatch, data, tmp_path):
    line = [f"--config={DEMO}", *PLAIN, "--max_iter=3"]
    script = tmp_path / "broken.py"
    script.write_text(BROKEN_ON_ONE)
    errors = processes.finish(processes.start_each([script, *arguments(data, tmp_path / "two", *line)]))
    assert "C not finite" in errors[0] and "C not finite" not in errors[1]
    assert run_broken(monkeypatch, data, tmp_path / "one", {1}, *line) == 0
    assert_close_weights(*(load_state_dict(next((tmp_path / name).glob("*_3.pth"))) for name in ("one", "two")))


def test_ground_may_be_of_a_class_that_its_set_does_not_label():
    options = command.parse_arguments([f"--config={DEMO}", "--task=crops"])
    torch.manual_seed(0)
    model = STMask.from_config(command.find_config(options)[0]).eval()
    losses = command.CropLosses(model, World(torch.device("cpu")))
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 3])  # ground, and an object
    known = torch.ones(2, 9, dtype=torch.bool)
    everything = losses(CropBatch(images, labels, known))
    assert everything == losses(CropBatch(images, labels))
    known[:, 5] = False
    for name, loss in losses(CropBatch(images, labels, known)).items():
        assert loss < everything[name]
    assert losses(CropBatch(images[1:], labels[1:], known[1:])) == losses(CropBatch(images[1:], labels[1:]))


def test_a_batch_that_processes_cannot_share_is_refused():
    with pytest.raises(InputError, match="--batch_size=3: 2 processes"):
        command.check_settings(
            TrainSettings(batch_size=3), get_config("STMask_demo_config"), World(torch.device("cpu"), 0, 2)
        )


def test_idle_gpus_are_told_of_with_the_command_that_uses_them(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.chdir(ROOT)
    line = ["--config=STMask_demo", f"--set=dataset.root={tmp_path}"]
    wanted = f"CUDA_VISIBLE_DEVICES=0,1 torchrun --nproc_per_node=2 train.py {' '.join(line)}"
    assert command.main(line) == 2
    warning = capsys.readouterr().err.splitlines()[0]
    assert "WARNING" in warning and warning.endswith(wanted)
    assert command.main([*line, "--device=cpu"]) == 2
    assert "torchrun" not in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ ways to compute


def trainer(*line, is_queued=False):
    """A trainer of a seeded demo model, for single steps only; with `is_queued` it works as on a GPU."""
    options = command.parse_arguments([f"--config={DEMO}", "--batch_size=1", "--set=input.size_hw=64,64", *line])
    torch.manual_seed(0)
    model = STMask.from_config(command.find_config(options)[0])
    world = World(torch.device("cpu"))
    world.is_queued = is_queued
    return command.Trainer(model, TrainSettings.from_options(options), 10, world)


def two_clips():
    """A batch of two clips; in the first an object moves, the second has one in its first frame only."""
    generator = torch.Generator().manual_seed(0)
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.7], [0.2, 0.2, 0.6, 0.7], [0.4, 0.1, 0.9, 0.6]])
    masks = torch.zeros(3, 64, 64)
    for mask, box in zip(masks, (64 * boxes).int().tolist(), strict=True):
        mask[box[1] : box[3], box[0] : box[2]] = 1
    frames = [
        FrameTargets(boxes[i, None], torch.tensor([i + 1]), masks[i, None], torch.tensor([i // 2])) for i in range(3)
    ]
    targets = ((frames[0], frames[1]), (frames[2], frames[2][:0]))
    return ClipBatch(torch.randn(2, 2, 3, 64, 64, generator=generator), targets)


def test_the_schedule_counts_the_images_of_clips_but_not_of_crops():
    line, more = ("--batch_size=4", "--set=train.iterations=1000"), "--set=train.clip_frames=4"
    for task, expected in (("clips", 500), ("crops", 1000)):
        two, four = (trainer(f"--task={task}", *line, *keys).schedule for keys in ((), (more,)))
        assert (two.iterations, four.iterations) == (1000, expected)


def test_accumulated_parts_move_the_weights_by_the_mean_of_their_gradients():
    recipe = ("clip_grad_norm=0", "momentum=0", "weight_decay=0", "learning_rate=0.01", "warmup_iterations=0")
    recipe += ("semantic_loss=0",)  # which is not one of the criterion's
    ours = trainer("--accumulate=2", *PLAIN[:2], *(f"--set=train.{key}" for key in recipe))
    assert ours.schedule.iterations == command.Schedule(ours.model.config, 2).iterations
    assert ours.settings.samples_per_step == 2
    batch = two_clips()
    by_hand = copy.deepcopy(ours.model)
    criterion = MultiBoxLoss.from_config(by_hand.config)
    parts = [criterion(by_hand, by_hand(batch.frames[i : i + 1]), batch.targets[i : i + 1]) for i in range(2)]
    torch.stack([sum(losses.values()) for losses in parts]).mean().backward()
    values = ours.step(batch)
    assert {name: pytest.approx(value.item(), rel=1e-5) for name, value in values.items()} == {
        name: (parts[0][name] + parts[1][name]).item() / 2 for name in values
    }
    moved = 0
    expected = {name: p if p.grad is None else p - 0.01 * p.grad for name, p in by_hand.named_parameters()}
    for name, parameter in ours.model.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-7)
        moved += not torch.equal(parameter, dict(by_hand.named_parameters())[name])
    assert moved > 100


def test_accumulating_runs_resume_exactly(data, tmp_path):
    line = [f"--config={DEMO}", "--accumulate=2", "--batch_size=1", "--max_iter=2"]
    assert command.main(arguments(data, tmp_path, *line, "--save_interval=1")) == 0
    (first,) = tmp_path.glob("*_1.pth")
    again = tmp_path / "again"
    assert command.main(arguments(data, again, *line, f"--resume={first}")) == 0
    assert_same_weights(*(load_state_dict(next(folder.glob("*_2.pth"))) for folder in (tmp_path, again)))


def test_compile_runs_the_compiled_network_and_checkpoints_keep_their_names(monkeypatch, data, tmp_path):
    calls = []

    def backend(graph, _):
        def run(*inputs):
            calls.append(len(inputs))
            return graph(*inputs)

        return run

    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=backend))
    line = [f"--config={DEMO}", *PLAIN, "--max_iter=1", "--validation_epoch=1"]
    for name, more in (("plain", []), ("compiled", ["--compile"])):
        assert not calls
        assert command.main(arguments(data, tmp_path / name, *line, *more)) == 0
    assert len(calls) >= 1
    assert_close_weights(*(load_state_dict(next((tmp_path / name).glob("*.pth"))) for name in ("plain", "compiled")))


def test_fp16_needs_a_gpu(data, tmp_path, capsys):
    assert command.main(arguments(data, tmp_path, f"--config={DEMO}", "--precision=fp16")) == 2
    assert "--precision=fp16 needs a GPU" in capsys.readouterr().err


def test_losses_are_scaled_for_fp16_and_the_scale_is_kept_with_the_state(monkeypatch, tmp_path):
    plain = trainer(*PLAIN)
    plain.step(two_clips())
    monkeypatch.setitem(PRECISIONS, "fp16", torch.float32)  # CPUs have the scaler, but little of the arithmetic
    line = (*PLAIN, "--precision=fp16", f"--save_folder={tmp_path}")
    scaled = trainer(*line)
    scaled.step(two_clips())
    for name, value in scaled.model.state_dict().items():
        torch.testing.assert_close(value, plain.model.state_dict()[name], rtol=1e-5, atol=1e-7)
    scaled.scaler.update(new_scale=512.0)
    scaled.save()
    (path,) = tmp_path.glob("*.pth")
    assert load_training_state(path)["scaler"]["scale"] == 512
    resumed = trainer(*line)
    resumed.resume(path)
    assert resumed.scaler.get_scale() == 512


# ------------------------------------------------------------------------------------------------ the recipe


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
    monkeypatch.setattr(command.MultiBoxLoss, "from_config", lambda *given: Broken(make(*given), bad_steps))
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


@pytest.mark.parametrize("recipe", [PLAIN, (*PLAIN[1:], "--lr=1e-5")], ids=["sgd", "adamw"])
def test_a_device_with_a_queue_leaves_out_steps_by_itself_and_tells_of_them_later(recipe, monkeypatch, caplog):
    ours, plain = (trainer(*recipe, AVERAGED, is_queued=is_queued) for is_queued in (True, False))
    for group in (*ours.optimizer.param_groups, *plain.optimizer.param_groups):
        # AdamW's steps are as large for small gradients, down to its eps. Some are rounding alone; and where rounding
        # moves an input of a ReLU across 0, gradients differ by more, which is why its steps are small here.
        if "eps" in group:
            group["eps"] = 1e-3
    batch = two_clips()
    # In its first step nothing is there yet that a fused optimiser would leave as it is.
    ours.losses.criterion, plain.losses.criterion = (Broken(each.losses.criterion, {0, 2}) for each in (ours, plain))
    fresh = copy.deepcopy(ours.model.state_dict())
    for number in range(4):
        for each in (ours, plain):
            each.step(batch)
        if number == 0:
            assert_same_weights(ours.model.state_dict(), fresh)
            assert not any(value.any() for state in ours.optimizer.state.values() for value in state.values())
            assert ours._bad_steps == 0 and plain._bad_steps == 1
    assert_close_weights(ours.model.state_dict(), plain.model.state_dict())
    assert_close_weights(ours.saved_model.state_dict(), plain.saved_model.state_dict())
    assert ours.state.average.n_averaged == plain.state.average.n_averaged == 2
    assert caplog.text.count("C not finite") == 3  # that of the last but one step of ours is still to come
    ours._note_losses(everything=True)
    assert caplog.text.count("C not finite") == 4 and ours._bad_steps == 0
    monkeypatch.setattr(command, "MAX_BAD_STEPS", 1)
    ours.losses.criterion.bad_steps = range(99)
    for _ in range(command.STEPS_AHEAD):
        ours.step(batch)
    with pytest.raises(command.Diverged, match="1 times in a row"):
        ours.step(batch)


def test_a_device_with_a_queue_gets_pictures_and_learns_the_same(monkeypatch, data, tmp_path):
    """A whole run as on a GPU: it normalises pictures, and changes their colours, itself."""

    class Queued(World):
        is_queued = property(lambda world: True, lambda world, value: None)

    seen = []

    def change_colours(clips, colours):
        seen.append((clips.dtype, tuple(clips.shape), len(colours)))
        return original(clips, colours)

    original = command.change_colours
    monkeypatch.setattr(command, "change_colours", change_colours)
    more = (*PLAIN, f"--config={DEMO}", "--set=train.photometric=true", "--max_iter=2")
    folders = tmp_path / "plain", tmp_path / "queued"
    assert command.main(arguments(data, folders[0], *more)) == 0
    assert not seen
    monkeypatch.setattr("utils.distributed.World", Queued)
    assert command.main(arguments(data, folders[1], *more)) == 0
    assert seen == [(torch.uint8, (2, 2, 64, 96, 3), 2)] * 2
    assert_close_weights(*(load_state_dict(folder / "STMask_demo_0_2.pth") for folder in folders))


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


@pytest.mark.parametrize("folder", [".", "weights", "runs/demo"])
def test_what_is_resumed_is_looked_for_in_the_save_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for place in (".", "weights", "runs/demo"):
        Path(place).mkdir(parents=True, exist_ok=True)
        Path(place, "STMask_demo_1_5_interrupt.pth").touch()
    for word in ("latest", "interrupt"):
        options = command.parse_arguments([f"--save_folder={folder}", f"--resume={word}"])
        assert command.find_resumed(options) == Path(folder, "STMask_demo_1_5_interrupt.pth")


def test_a_save_folder_that_is_a_file_is_refused_at_the_start(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command.Trainer, "step", lambda *_: pytest.fail("trained"))
    (tmp_path / "file").touch()
    assert command.main(arguments(data, tmp_path / "file", f"--config={DEMO}")) == 2
    assert f"{tmp_path / 'file'}: cannot be made a folder" in capsys.readouterr().err


@pytest.mark.parametrize("config", ["YOLACT_plus_resnet50_config", "YOLACT_base_config"])
def test_a_network_that_cannot_be_trained_is_refused_before_its_data_are_looked_for(config, tmp_path, capsys):
    assert command.main([f"--config={config}", f"--save_folder={tmp_path}", "--set=dataset.root=nowhere"]) == 2
    error = capsys.readouterr().err
    assert "which training needs; choose an STMask config" in error and "nowhere" not in error


def test_a_missing_starting_point_says_what_to_do(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = arguments(data, tmp_path, "--config=STMask_plus_resnet50_config")
    line.append("--set=dataset.class_names=circle,ring,square,bar,triangle,star,cross,crescent")
    assert command.main(line) == 2
    error = capsys.readouterr().err
    assert "weights/yolact_plus_resnet50_54_800000.pth" in error and "train.pretrained=" in error
    assert "`python -m utils.weight_sources yolact_plus_resnet50_54_800000`" in error


def test_a_start_is_downloaded_and_torchvisions_names_are_understood(data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "*")
    weights = torchvision.models.resnet18().state_dict()
    save_state_dict(weights, tmp_path / "there.pth")
    resnet18 = ("block=basic", "blocks=2,2,2,2", "stem_channels=64")
    keys = [f"--set={key}" for key in ("train.freeze_batch_norm=true", *(f"backbone.{key}" for key in resnet18))]
    with serving() as server:
        server.files["/resnet18.pth"] = (tmp_path / "there.pth").read_bytes()
        start = f"--set=train.pretrained={server.url}/resnet18.pth"
        line = arguments(data, tmp_path / "run", f"--config={DEMO}", start, "--max_iter=1", "--lr=0")
        assert command.main([*line, *keys]) == 0
        assert command.main(line) == 2  # the demo's own backbone is another
    error = capsys.readouterr().err
    assert "resnet18.pth: torchvision's backbone is another than the config's; pass --set backbone.block=basic" in error
    (path,) = (tmp_path / "run").glob("STMask_demo_*_1.pth")
    trained = load_state_dict(path)
    assert torch.equal(trained["backbone.layers.3.1.bn2.running_mean"], weights["layer4.1.bn2.running_mean"])
    assert torch.equal(trained["backbone.layers.0.1.conv2.weight"], weights["layer1.1.conv2.weight"])
    assert torch.equal(trained["backbone.layers.1.0.conv2.weight"], 2 * weights["layer2.0.conv2.weight"])  # deformable


def test_the_first_lines_say_how_long_what_slows_it_and_that_it_works(data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1000)
    monkeypatch.setattr(command.NetworkLosses, "forward", lambda self, _: {"BIoU": self.auxiliary.weight.sum()})
    line = arguments(data, tmp_path, f"--config={DEMO}", "--set=train.warmup_iterations=50")
    assert command.main([word for word in line if word != "--max_iter=6"] + ["--epochs=1"]) == 0
    words = capsys.readouterr().err.splitlines()
    count = math.ceil(len(ClipDataset.from_config(*opened(data))) / 2)
    assert any(text.endswith(f"batches of 2, iterations 0…{count} (1.0 epochs)") for text in words)
    (schedule,) = [text for text in words if "adamw, " in text]
    assert "warm-up over 100 iterations" in schedule and "train.warmup_iterations as given" in schedule
    order = [words.index(schedule)]
    for text in ("ends in its warm-up", "1000 threads share", "reading data for the first batch", f" 1/{count} | BIoU"):
        (found,) = [number for number, word in enumerate(words) if text in word]
        order.append(found)
    assert order == sorted(order)
    assert command.main([*line, "--epochs=1"]) == 2
    assert "--max_iter and --epochs" in capsys.readouterr().err


def opened(data):
    config = get_config(DEMO, {"dataset.root": str(data)})
    return config, YTVISDataset.from_config(config, "train")


@pytest.mark.parametrize(
    "option", ["--max_iter=0", "--epochs=0", "--validation_epoch=-1", "--num_workers=-1", "--seed=-1", "--batch_size=0"]
)
def test_numbers_that_are_too_low_are_refused(option, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.parse_arguments([option])
    assert (
        f"argument {option.partition('=')[0]}: " in (error := capsys.readouterr().err)
        and "is not a whole number" in error
    )


def test_a_validation_without_annotations_is_refused_at_the_start(data, tmp_path, capsys):
    valid = data / "annotations" / "valid.json"
    content = json.loads(valid.read_text())
    del content["annotations"]
    bare = tmp_path / "valid.json"
    bare.write_text(json.dumps(content))
    line = arguments(data, tmp_path, f"--config={DEMO}", "--validation_epoch=1", f"--set=dataset.valid.ann_file={bare}")
    assert command.main(line) == 2
    assert "--split=train_sub" in capsys.readouterr().err


def test_print_config_prints_the_overrides(capsys):
    line = ["--config=STMask_demo", "--print_config", "--lr=0.25", "--set", "train.weight_decay=0"]
    assert command.main(line) == 0
    printed = capsys.readouterr().out
    assert "train.learning_rate = 0.25" in printed and "train.weight_decay = 0.0" in printed


# ------------------------------------------------------------------------------------------------ crops and subsets


def test_a_backbone_learns_from_crops_resumes_exactly_and_starts_a_network(data, tmp_path, capsys):
    crops = (f"--config={DEMO}", "--task=crops", "--save_interval=3")
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert command.main(arguments(data, whole, *crops)) == 0
    (halfway,) = whole.glob("*_3.pth")
    part.mkdir()
    for file in (halfway, halfway.with_suffix(".state")):
        (part / file.name).write_bytes(file.read_bytes())
    assert command.main(arguments(data, part, *crops, f"--resume={part / halfway.name}")) == 0
    assert_same_weights(final_weights(part), final_weights(whole))

    torch.manual_seed(0)
    fresh = STMask.from_config(get_config(DEMO)).state_dict()
    moved = {name for name, value in final_weights(whole).items() if not value.equal(fresh[name])}
    assert moved and all(name.startswith("backbone.") for name in moved)
    record = json.loads((whole / "STMask_demo_log.jsonl").read_text().splitlines()[-1])
    assert {"C3", "C4", "C5"} <= record.keys()

    assert command.main(arguments(data, part, "--task=clips", f"--resume={part / halfway.name}")) == 2
    line = arguments(data, tmp_path / "clips", f"--config={DEMO}", f"--set=train.pretrained={whole}/latest")
    assert command.main([*line, "--max_iter=1"]) == 0
    assert "tensors of" in capsys.readouterr().err


def test_crops_start_from_nothing(data, tmp_path, capsys):
    line = arguments(data, tmp_path, f"--config={DEMO}", "--task=crops")
    assert command.main([*line, "--set=train.freeze_batch_norm=true"]) == 2
    assert "freeze_batch_norm=false" in capsys.readouterr().err
    assert command.main([*line, "--accumulate=2"]) == 2


def test_crops_of_all_processes_count_the_same():
    options = command.parse_arguments([f"--config={DEMO}", "--task=crops"])
    torch.manual_seed(0)
    model = STMask.from_config(command.find_config(options)[0]).eval()
    world = World(torch.device("cpu"))
    losses = command.CropLosses(model, world)
    mine, other = (CropBatch(torch.randn(n, 3, 32, 32), torch.arange(n) % 8 + 1) for n in (3, 1))
    both = losses(CropBatch(torch.cat((mine.images, other.images)), torch.cat((mine.labels, other.labels))))
    means, theirs = losses(mine), losses(other)
    rows_of_other = iter([loss[None] for loss in theirs.values()])
    losses.gather = lambda rows: torch.cat((rows, next(rows_of_other)))
    shared = losses(mine)
    for name in ("C3", "C4", "C5"):
        assert shared[name].item() == pytest.approx(both[name].item(), rel=1e-5)
        assert shared[name].item() != pytest.approx((means[name] + theirs[name]).item() / 2, rel=1e-3)


def test_gradients_are_clipped_where_the_config_says_so_the_temporal_net_apart():
    moves = []
    for limit in (0, 1e-3):
        recipe = ("momentum=0", "weight_decay=0", "learning_rate=1", "semantic_loss=0", f"clip_grad_norm={limit}")
        ours = trainer(*PLAIN, *(f"--set=train.{key}" for key in recipe))
        before = {name: p.detach().clone() for name, p in ours.model.named_parameters()}
        ours.step(two_clips())
        moved = {True: 0.0, False: 0.0}
        for name, parameter in ours.model.named_parameters():
            moved[name.startswith("TemporalNet.")] += (parameter - before[name]).square().sum().item()
        moves.append([square**0.5 for square in moved.values()])
    assert min(moves[0]) > 0.1 and moves[1] == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_only_what_is_named_is_trained():
    ours = trainer("--set=train.only=TemporalNet,prediction_layers.0.track_", PLAIN[1])
    before = {name: tensor.clone() for name, tensor in ours.model.state_dict().items()}
    ours.step(two_clips())
    moved = {name for name, tensor in ours.model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in moved} == {"TemporalNet", "prediction_layers"}
    assert all(name.startswith(("TemporalNet.", "prediction_layers.0.track_")) for name in moved)


def test_the_temporal_net_alone_takes_a_step_where_no_clip_shows_an_object_twice():
    ours = trainer("--set=train.only=TemporalNet", PLAIN[1], "--set=train.semantic_loss=0")
    batch = two_clips()
    apart = ClipBatch(batch.frames[1:], batch.targets[1:])
    before = ours.model.TemporalNet.fc.weight.detach().clone()
    assert ours.step(apart)["B_shift"] == 0
    ours.step(batch)
    assert not torch.equal(ours.model.TemporalNet.fc.weight, before)


def test_only_wants_names_and_frozen_batch_norms(capsys):
    with pytest.raises(InputError, match="begins with 'trak'"):
        trainer("--set=train.only=TemporalNet,trak", PLAIN[1])
    assert command.main([f"--config={DEMO}", "--set=train.only=TemporalNet", "--print_config"]) == 2
    assert "train.freeze_batch_norm=true" in capsys.readouterr().err.splitlines()[-1]


def test_some_videos_alone_are_trained_on_and_the_rest_validates(data, tmp_path):
    written, logged = tmp_path / "ids.txt", tmp_path / "STMask_demo_log.jsonl"
    line = arguments(data, tmp_path, f"--config={DEMO}", "--split=train_sub", f"--write_video_ids={written}")
    assert command.main([*line, "--max_iter=1", "--validation_epoch=1"]) == 0
    ids = [entry for entry in written.read_text().splitlines() if not entry.startswith("#")]
    assert ids == ["1", "2"]  # of three; the last one is for the validation
    assert "AP" in json.loads(logged.read_text().splitlines()[-1])["validation"]
    again = tmp_path / "again.txt"
    line = arguments(data, tmp_path / "more", f"--config={DEMO}", f"--video_ids={written}")
    assert command.main([*line, "--max_iter=1", f"--write_video_ids={again}"]) == 0
    assert again.read_text() == written.read_text()


def test_another_data_set_is_trained_on_by_name(data, tmp_path, capsys):
    line = ["--config=STMask_plus_resnet50_config", "--train_dataset=shapesvis", f"--set=dataset.root={data}"]
    config, _ = command.find_config(command.parse_arguments(line))
    assert config.dataset.name == "ShapesVIS" and config.num_classes == 8
    assert command.main([f"--config={DEMO}", "--train_dataset=shapes"]) == 2
    assert "ShapesVIS" in capsys.readouterr().err


def test_tensorboard_gets_curves_scores_and_pictures(data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    line = arguments(data, tmp_path, f"--config={DEMO}", "--tensorboard", "--validation_epoch=1", "--max_iter=2")
    assert command.main(line) == 0
    events = accumulator.EventAccumulator(str(tmp_path / "STMask_demo_tensorboard"))
    events.Reload()
    tags = events.Tags()
    assert {"loss/BIoU", "loss/B_shift", "validation/AP"} <= set(tags["scalars"])
    assert tags["images"]
