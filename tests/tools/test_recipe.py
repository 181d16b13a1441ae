"""tools/recipe.py: stages run in order, continue after an interruption, and are scored; mistakes are reported early."""

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import train
from data.trained import make_record
from tests import processes
from tools import recipe as command
from tools.recipe import Recipe
from utils.checkpoint import save_state_dict
from ytvis.files import InputError

ROOT = Path(__file__).parent.parent.parent
DEMO = ROOT / "recipes" / "demo.toml"
TINY = """
results = "results"
[train]
config = "STMask_demo_config"
device = "cpu"
num_workers = 0
save_interval = 1
keep_latest = true
batch_size = 1
[data.few]
root = "ShapesVIS"
train_videos = 2
valid_videos = 1
[evaluate]
data = "few"
[settings.small]
"input.size_hw" = "64,96"
[[stages]]
name = "crops"
purpose = "the backbone alone"
data = "few"
iterations = 1
train = { task = "crops", batch_size = 2 }
settings = "small"
[[stages]]
name = "clips"
purpose = "clips"
start = "crops"
data = "few"
iterations = 12
minutes = 2
train = { lr = 1e-4 }
settings = "small"
half = true
expected = { AP = 51.5 }
"""


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tiny.toml"
    path.write_text(TINY, "utf-8")
    return path


def wait_for(process, folder, pattern):
    deadline = time.monotonic() + 120
    while not list(folder.glob(pattern)):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.02)


def test_a_recipe_that_was_stopped_goes_on_where_it_was_and_is_scored(tiny, tmp_path, capfd):
    folder = tmp_path / "results"
    process = processes.start(["-m", "tools.recipe", tiny])
    wait_for(process, folder / "clips", "STMask_demo_*.pth")
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 1 and errors.endswith("stopped by SIGTERM; run the same command to continue\n"), errors
    recipe = Recipe.read(tiny)
    done = recipe.iterations_done(recipe.stage("clips"))
    assert 1 <= done < 12
    assert command.main([str(tiny), "--list"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[1].split()[:6] == ["crops", "1", "0", "–", "done", "the"]
    assert lines[2].split()[:6] == ["clips", "12", "2", "51.5", "at", str(done)]

    (first,) = (folder / "crops").glob("*.pth")
    written = first.stat().st_mtime_ns
    assert command.main([str(tiny), f"--json={tmp_path / 'scores.json'}", f"--log={tmp_path / 'log.jsonl'}"]) == 0
    assert first.stat().st_mtime_ns == written  # a stage that is done is not run again
    assert list((folder / "clips").glob("STMask_demo_*_12.pth")) and (folder / "clips" / "STMask_demo.pth").exists()
    output, errors = capfd.readouterr()
    assert f"12 iterations, from iteration {done}, about {2 * (1 - done / 12):.0f} minutes" in errors
    header, row = output.splitlines()[-2:]
    assert header.split()[:3] == ["stage", "AP", "expected"]
    name, measured, expected = row.split()[:3]
    assert (name, expected) == ("clips", "51.5") and 0 <= float(measured) <= 100
    crops, clips = json.loads((tmp_path / "scores.json").read_text())["stages"]
    assert (crops["name"], crops["scores"], clips["name"]) == ("crops", None, "clips")
    assert f"{100 * clips['scores']['AP']:.1f}" == measured and 0 < clips["minutes"] < 2
    rows = map(json.loads, (folder / "crops" / "STMask_demo_log.jsonl").read_text().splitlines())
    assert crops["minutes"] == pytest.approx(sum(row["seconds"] for row in rows) / 60)  # its log has a row a step
    whole = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["stage"] for row in whole] == ["crops"] + ["clips"] * (len(whole) - 1) and whole[0]["iteration"] == 1
    last = json.loads((folder / "clips" / "STMask_demo_log.jsonl").read_text().splitlines()[-1])
    assert whole[-1] == {"stage": "clips", **last, "iteration": 1 + 12}  # counted on from the stage before

    begin = time.monotonic()
    assert command.main([str(tiny)]) == 0  # all is done: only the table is printed again
    assert time.monotonic() - begin < 5 and capfd.readouterr().out.splitlines()[-1] == row


def test_a_stage_alone_needs_the_one_that_it_starts_from(tiny, capsys):
    assert command.main([str(tiny), "--stage=clips"]) == 2
    assert "stage 'clips' starts from 'crops', which is not done" in capsys.readouterr().err


@pytest.mark.parametrize("mistake", ["{ learn = 1e-4 }", "{ precision = 'fp16' }", "{ set = 'train.only=fpn' }"])
def test_a_mistake_in_a_later_stage_shows_before_the_first_is_trained(mistake, tiny, tmp_path, capsys):
    tiny.write_text(TINY.replace("{ lr = 1e-4 }", mistake), "utf-8")
    assert command.main([str(tiny)]) == 2
    assert "stage 'clips': train.py does not take its options" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "results").exists()


def test_a_command_that_fails_or_is_stopped_stops_the_recipe():
    with pytest.raises(command.Stopped, match="stage one failed with exit code 3"):
        command.call([sys.executable, "-c", "raise SystemExit(3)"], "stage one")
    with pytest.raises(InputError, match="stage one refused its input"):  # running it again would not help
        command.call([sys.executable, "-c", "raise SystemExit(2)"], "stage one")
    command.call([sys.executable, "-c", "import os; assert os.environ['OMP_NUM_THREADS'] == '1'"], "stage one")


def finish_first_stage(recipe):
    """Writes the checkpoint of the first stage as its training leaves it, but without weights."""
    stage = recipe.stages[0]
    options = train.parse_arguments(recipe.training(stage))
    training = {name: value for name, value in vars(options).items() if name in train.IN_RECORD and value is not None}
    record = replace(make_record(train.find_config(options)[0]), training=training)
    path = recipe.folder(stage) / f"STMask_demo_0_{stage.iterations}.pth"
    save_state_dict({"weight": torch.zeros(1)}, path, record)
    return path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch_size = 2", "batch_size = 1", "was trained with --batch_size 2, and stage 'crops' has 1;"),
        ('task = "crops", ', "", "was trained with --task 'crops', and stage 'crops' has 'clips';"),
        ("64,96", "96,160", "was trained with input.size_hw (64, 96), and stage 'crops' has (96, 160);"),
        ("batch_size = 2", "batch_size = 2, lr = 1e-5", "was trained with train.learning_rate 0.001, and stage"),
    ],
)
@pytest.mark.parametrize("stages", [[], ["--stage=clips"]])
def test_a_finished_stage_of_another_recipe_is_not_taken_for_one_of_this(stages, old, new, message, tiny, capsys):
    path = finish_first_stage(Recipe.read(tiny))
    assert old in TINY
    tiny.write_text(TINY.replace(old, new), "utf-8")
    assert command.main([str(tiny), *stages]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"recipe: error: {path}: {message}") and error.count("\n") == 1


def test_a_finished_stage_may_differ_in_what_does_not_shape_its_weights(tiny):
    path = finish_first_stage(Recipe.read(tiny))
    tiny.write_text(
        TINY.replace('"64,96"', '"64,96"\n"tracking.max_hidden_age" = 3').replace("lr", "momentum"), "utf-8"
    )
    recipe = Recipe.read(tiny)
    command.check_stages(recipe, recipe.stages)
    save_state_dict({"weight": torch.zeros(1)}, path)  # one that says nothing about itself
    command.check_stages(recipe, recipe.stages)
    path.write_bytes(b"damaged")  # the stage that loads it says so
    command.check_stages(recipe, recipe.stages)


def test_a_damaged_log_is_one_line(tiny):
    recipe = Recipe.read(tiny)
    log = recipe.folder(recipe.stages[0]) / "STMask_demo_log.jsonl"
    log.parent.mkdir(parents=True)
    assert command.minutes_of(recipe, recipe.stages[0]) is None
    log.write_text('{"iteration": 1, "seconds": 30}\n{"iteration": 3, "seconds": 15}\n{"itera', "utf-8")
    assert command.minutes_of(recipe, recipe.stages[0]) == 1  # a last line that is not whole is left out
    log.write_text('{"seconds": 30}\n', "utf-8")
    with pytest.raises(InputError, match="STMask_demo_log.jsonl, line 1: must be an object with an integer"):
        command.minutes_of(recipe, recipe.stages[0])


def test_a_dry_run_prints_the_commands_and_writes_nothing(tiny, tmp_path, capsys):
    assert command.main([str(tiny), "--dry_run", "--results=elsewhere"]) == 0
    crops, clips, evaluation = capsys.readouterr().out.splitlines()
    assert "--batch_size=2" in crops and "--task=crops" in crops and "--batch_size=1" not in crops
    assert "--set=train.pretrained=elsewhere/crops/latest" in clips and "--save_folder=elsewhere/clips" in clips
    assert "--trained_model=elsewhere/clips/STMask_demo.pth" in evaluation and "input.size_hw=64,96" in evaluation
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.toml"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[train]", "[train", "not a TOML file"),
        ("iterations = 12", "iteration = 25", "stage 2: unknown key 'iteration' (did you mean 'iterations'?)"),
        ("iterations = 12", 'iterations = "12"', "stage 2: iterations must be of type int, not '12'"),
        ("iterations = 12", "", "stage 2: iterations is missing"),
        (
            'start = "crops"',
            'start = "crop"',
            "'clips': start names 'crop', which is unknown (did you mean 'crops'?)",
        ),
        ('start = "crops"', 'start = "clips"', "'clips': start names 'clips', which is unknown"),
        ('settings = "small"', 'settings = "tiny"', "'crops': settings names 'tiny', which is unknown"),
        ('name = "clips"', 'name = "crops"', "'crops': another stage has that name too"),
        ('data = "few"\n[set', 'data = "many"\n[set', "[evaluate] names 'many', which is not a set of [data]"),
        ("AP = 51.5", "mAP = 51.5", "'clips': expected has 'mAP'; the scores are AP, AP50, AR10, HOTA"),
        ('config = "STMask_demo_config"', "", "[train] must name the config"),
        ('config = "STMask_demo_config"', "config = 3", "[train] must name the config"),
        ("[settings.small]\n", "[settings]\nsmall = 3\n[train.other]\n", "[settings.small]: must be a table"),
        ("train_videos = 2", "train_video = 2", "[data.few]: unknown key 'train_video'"),
        ('name = "clips"', 'name = ""', "stage 2: name is empty"),
    ],
)
def test_a_faulty_recipe_is_refused_with_the_place(tiny, old, new, message, capsys):
    assert old in TINY
    tiny.write_text(TINY.replace(old, new), "utf-8")
    assert command.main([str(tiny)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"recipe: error: {tiny}: ") and message in error and error.count("\n") == 1


def test_names_that_are_not_there_are_refused(tiny, tmp_path, capsys):
    assert command.main([str(tmp_path / "none.toml")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(InputError, match="no stage 'clip' .did you mean 'clips'"):
        Recipe.read(tiny).stage("clip")


@pytest.mark.parametrize("stage", Recipe.read(DEMO).stages, ids=lambda stage: stage.name)
def test_train_takes_every_stage_of_the_demo(stage, capsys):
    recipe = Recipe.read(DEMO)
    assert train.main([*recipe.training(stage), "--print_config"]) == 0
    config = capsys.readouterr().out
    assert not stage.start or recipe.weights(recipe.stage(stage.start)) in config


def test_the_demos_expected_scores_are_those_of_the_page_about_weights():
    last = Recipe.read(DEMO).stages[-1]
    page = (ROOT / "weights" / "README.md").read_text("utf-8")
    cells = next(line for line in page.splitlines() if line.startswith("| `recipes/demo.toml` |")).split("|")
    assert set(last.expected) == set(command.SCORES)
    assert {float(cell) for cell in cells[2:-1]} >= set(last.expected.values())


GPU = ROOT / "recipes" / "demo_gpu.toml"


def test_the_recipe_for_a_gpu_is_one_command_and_scored_on_videos_of_its_own(capsys):
    recipe = Recipe.read(GPU)
    assert sum(stage.minutes for stage in recipe.stages) <= 5  # and one to draw the videos
    assert command.main([str(GPU), "--dry_run"]) == 0
    *trainings, evaluation = capsys.readouterr().out.splitlines()
    assert len(trainings) == len(recipe.stages)
    assert all("--device=cuda" in line and "--precision=bf16" in line for line in trainings)
    assert "--ann_file=data/ShapesVIS_test/annotations/train.json" in evaluation
    assert {stage.data for stage in recipe.stages} == {"many"} and recipe.evaluated.data == "unseen"
    assert command.main([str(GPU), "--dry_run", "--device=cpu"]) == 0
    assert capsys.readouterr().out.count("--device=cpu") == len(trainings) + 1


def test_the_first_stage_of_the_recipe_for_a_gpu_runs_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = GPU.read_text("utf-8")
    few = {
        "iterations = 650": "iterations = 2",
        "batch_size = 64": "batch_size = 2",
        "num_workers = 14": "num_workers = 0",
    }
    few |= {"train_videos = 1000": "train_videos = 2", "train_videos = 100": "train_videos = 1"}
    for usual, number in few.items():
        assert usual in text
        text = text.replace(usual, number)
    path = tmp_path / "few.toml"
    path.write_text(text, "utf-8")
    recipe = Recipe.read(path, device="cpu")
    command.check_stages(recipe, recipe.stages)
    assert command.main([str(path), "--device=cpu", "--stage=crops"]) == 0
    assert recipe.is_done(recipe.stage("crops"))


def test_what_is_evaluated_is_a_split_of_a_set(tiny):
    text = tiny.read_text("utf-8")
    for wrong, words in (
        ("split = 'test'", "splits are train and valid"),
        ("splits = 'train'", "did you mean 'split'"),
    ):
        tiny.write_text(text.replace("[evaluate]\n", f"[evaluate]\n{wrong}\n"), "utf-8")
        with pytest.raises(InputError, match=words):
            Recipe.read(tiny)
