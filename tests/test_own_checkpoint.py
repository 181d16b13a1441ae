"""Your own checkpoint is all that running, evaluating and resuming it needs."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

import eval as eval_command
import train as train_command
from data.config import get_config
from data.synthetic import generate
from stmask import STMask
from utils.checkpoint import load_state_dict, load_training_state, main, save_state_dict
from utils.checkpoint_record import read_record
from ytvis.files import InputError

DEMO = "STMask_demo_config"
NAMES = ("ball", "hoop", "red box", "bar", "wedge", "star", "cross", "moon")  # of the shapes, in the order of their ids
AP = 0.25


def rename(ann_file, names):
    """Gives the categories of an annotation file other names, in the order of their ids."""
    content = json.loads(ann_file.read_text())
    for category, name in zip(sorted(content["categories"], key=lambda category: category["id"]), names, strict=True):
        category["name"] = name
    ann_file.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a training of three iterations: the data in data/, the checkpoints in run/."""
    folder = tmp_path_factory.mktemp("own")
    generate(folder / "data", train_videos=2, valid_videos=1, workers=1)
    for split in ("train", "valid"):
        rename(folder / "data" / "annotations" / f"{split}.json", NAMES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_command, "score_videos", lambda *_: {"AP": AP, "AP50": 0.5})
        line = [f"--config={DEMO}", f"--set=dataset.root={folder / 'data'}", "--set=input.size_hw=64,96", "--lr=2e-3"]
        line += ["--batch_size=2", "--max_iter=3", "--save_interval=2", "--validation_epoch=1000", "--seed=3"]
        line += ["--num_workers=0", "--device=cpu", f"--save_folder={folder / 'run'}"]
        assert train_command.main(line) == 0
    return folder


@pytest.fixture
def moved(run):
    """`run`, with its data moved away."""
    (run / "data").rename(run / "away")
    yield run
    (run / "away").rename(run / "data")


@pytest.fixture
def halfway(run, tmp_path):
    """A copy of the second iteration's checkpoint and its state in a folder of their own."""
    for path in (run / "run").glob("STMask_demo_*_2.*"):
        shutil.copy(path, tmp_path)
    (path,) = tmp_path.glob("*.pth")
    return path


def last(folder):
    (path,) = folder.glob("STMask_demo_*_3.pth")
    return path


def go_on(checkpoint, *more):
    return train_command.main([f"--resume={checkpoint}", "--num_workers=0", "--device=cpu", *more])


def load_as_published(model, path):
    """What the published code's loader does."""
    state_dict = torch.load(path, weights_only=True)
    for key in list(state_dict.keys()):
        if key.startswith("backbone.layer") and not key.startswith("backbone.layers"):
            del state_dict[key]
        if key.startswith("fpn.downsample_layers.") and int(key.split(".")[2]) >= 2:
            del state_dict[key]
    torch.nn.Module.load_state_dict(model, state_dict)


def test_it_is_a_plain_state_dict_for_everybody_else(run):
    path = last(run / "run")
    model = STMask.from_pretrained(path, device="cpu")
    state = torch.load(path, weights_only=True)
    assert type(state) is dict and list(state) == list(model.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert list(torch.load(path, weights_only=True, mmap=True)) == list(state)
    other = STMask(get_config(DEMO, {"dataset.class_names": NAMES}))
    load_as_published(other, path)
    assert all(torch.equal(value, state[name]) for name, value in other.state_dict().items())
    save_state_dict(state, run / "again.pth")
    assert read_record(run / "again.pth") is None
    assert path.stat().st_size - (run / "again.pth").stat().st_size < 4000


def test_it_runs_alone_on_frames_and_knows_its_classes(moved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(last(moved / "run"), "OWN.pth")
    model = STMask.from_pretrained("OWN.pth", device="cpu")
    assert model.config.dataset.class_names == NAMES and model.config.input.size_hw == (64, 96)
    frames = next((moved / "away" / "valid" / "JPEGImages").iterdir())
    line = ["--trained_model=OWN.pth", f"--images={frames}:drawn", "--device=cpu"]
    assert eval_command.main([*line, "--score_threshold=0", "--classes=red box"]) == 0
    assert list(Path("drawn").glob("*.jpg")) or list(Path("drawn").iterdir())
    assert eval_command.main([*line, "--classes=circle"]) == 2
    assert "red box" in capsys.readouterr().err
    assert eval_command.main([*line, "--print_config"]) == 0
    printed = capsys.readouterr().out
    assert "input.size_hw = (64, 96)" in printed and str(moved) not in printed


def test_it_is_evaluated_on_its_data_without_a_word_about_config_or_classes(run, tmp_path, capsys):
    data = run / "data"
    line = [f"--trained_model={run / 'run' / 'latest'}", f"--mask_det_file={tmp_path / 'results.json'}"]
    assert eval_command.main([*line, f"--set=dataset.root={data}", "--num_workers=0", "--device=cpu"]) == 0
    printed = capsys.readouterr()
    assert "AP50" in printed.out and "other names" not in printed.err


def test_data_of_other_classes_are_refused_with_what_to_do(run, tmp_path, capsys):
    ann_file = tmp_path / "other.json"
    content = json.loads((run / "data" / "annotations" / "valid.json").read_text())
    content["categories"] += [{"id": 100, "name": "sail"}]
    ann_file.write_text(json.dumps(content))
    images = run / "data" / "valid" / "JPEGImages"
    line = [f"--trained_model={run / 'run' / 'latest'}", f"--ann_file={ann_file}", f"--image_root={images}"]
    assert eval_command.main([*line, "--device=cpu", f"--mask_det_file={tmp_path / 'r.json'}"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "9 categories" in error and "8 classes" in error and "sail" in error and "--config" not in error


def test_show_prints_what_it_knows(run, capsys):
    assert main(["show", str(run / "run" / "latest")]) == 0
    printed = capsys.readouterr().out
    for part in (
        f"config: {DEMO}",
        "input.size_hw = [64, 96]",
        "train.learning_rate = 0.002",
        f"classes: {', '.join(NAMES)}",
        "category ids: 1, 2, 3, 4, 5, 6, 7, 8",
        "split = train",
        "ann_file = train.json",
        "iteration: 3",
        f"AP = {AP}",
        "batch_size = 2",
        "torch = 2",
        "head.calibration = ada",
    ):
        assert part in printed, part
    assert str(run) not in printed.partition("\n")[2]
    save_state_dict({"weight": torch.ones(2)}, run / "plain.pth")
    assert main(["show", str(run / "plain.pth")]) == 0
    assert "says nothing about itself" in capsys.readouterr().out
    assert main(["show", str(run / "none.pth")]) == 2


def test_results_of_your_own_video_have_the_category_ids_of_its_data(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    content = json.loads((run / "data" / "annotations" / "valid.json").read_text())
    names = get_config(DEMO).dataset.class_names
    ids = {name: 10 * number for number, name in enumerate(names[::-1], start=3)}
    categories = [{"id": number, "name": name.upper()} for name, number in ids.items() if name != "star"]
    Path("truth.json").write_text(json.dumps({"videos": content["videos"], "categories": categories}))
    demo = Path(__file__).parent.parent / "weights" / "STMask_demo.pth"
    assert main([str(demo), "own.pth", "--ann_file=truth.json"]) == 0
    record = read_record("own.pth")
    assert record.category_ids == tuple(ids[name] if name != "star" else None for name in names)
    assert record.category_names[0] == "CIRCLE" and record.class_names == names

    frames = next((run / "data" / "valid" / "JPEGImages").iterdir())
    line = ["--trained_model=own.pth", f"--images={frames}:drawn", "--device=cpu", "--set=input.size_hw=96,160"]
    assert eval_command.main(line) == 0
    expected = ids | {"star": max(ids.values()) + 1}  # the next free one: the data lack it
    described = json.loads(Path("drawn_video.json").read_text())["categories"]
    assert {entry["name"]: entry["id"] for entry in described} == expected
    found = json.loads(Path("drawn.json").read_text())
    with STMask.from_pretrained("own.pth", device="cpu").stream(frames) as stream:
        frame = next(stream)
    assert found and {entry["category_id"] for entry in found} <= set(expected.values())
    assert [entry["category_id"] for entry in frame.to_coco()] == [expected[name] for name in frame.names] != []
    assert main([str(demo), "own.pth", f"--ann_file={tmp_path / 'none.json'}"]) == 2
    assert "none.json" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- going on


def test_resuming_needs_nothing_but_the_file(run, halfway, monkeypatch, capsys):
    monkeypatch.setattr(train_command, "score_videos", lambda *_: {"AP": AP, "AP50": 0.5})
    assert go_on(halfway) == 0
    ours, straight = (load_state_dict(last(folder)) for folder in (halfway.parent, run / "run"))
    assert all(torch.equal(ours[name], value) for name, value in straight.items())
    records = [read_record(last(folder)) for folder in (halfway.parent, run / "run")]
    assert records[0] == records[1]
    assert records[0].training == {
        **{"batch_size": 2, "accumulate": 1, "task": "clips", "seed": 3, "max_iter": 3},
        **{"precision": "fp32", "split": "train"},
    }
    assert "before:" not in capsys.readouterr().err
    state = load_training_state(last(halfway.parent))
    assert state["arguments"] == load_training_state(last(run / "run"))["arguments"]


def test_options_that_are_given_win_and_are_said(run, halfway, monkeypatch, capsys):
    monkeypatch.setattr(train_command, "score_videos", lambda *_: {"AP": AP, "AP50": 0.5})
    assert go_on(halfway, "--lr=0.0005", "--max_iter=4") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "before:" in line]
    assert len(said) == 1 and "--lr=0.0005 (before: 0.002)" in said[0] and "--max_iter=4 (before: 3)" in said[0]
    (path,) = halfway.parent.glob("STMask_demo_*_4.pth")
    assert read_record(path).changed["train.learning_rate"] == 0.0005


def test_without_a_state_the_checkpoint_still_knows_the_batch_and_the_recipe(run, halfway, tmp_path, capsys):
    halfway.with_suffix(".state").unlink()
    checkpoint = halfway.rename(tmp_path / "OWN.pth")
    assert go_on(checkpoint, f"--set=dataset.root={run / 'data'}") == 0
    assert "batches of 2, iterations 2…3" in capsys.readouterr().err
    record = read_record(last(tmp_path))
    assert record.changed["train.learning_rate"] == 0.002 and record.training["seed"] == 3


@pytest.mark.parametrize(
    "names, what",
    [
        (("ball", "hoop", "red box", "bar", "wedge", "star", "cross", "sail"), "sail"),
        (("hoop", "ball", "red box", "bar", "wedge", "star", "cross", "moon"), "hoop, ball"),
    ],
    ids=["other", "order"],
)
def test_other_classes_or_another_order_are_not_resumed(run, halfway, names, what, capsys):
    ann_file = run / "data" / "annotations" / "train.json"
    rename(ann_file, names)
    try:
        assert go_on(halfway) == 2
    finally:
        rename(ann_file, NAMES)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("train.py: error: ") and what in error and "classes ball, hoop" in error
    swapped = ",".join((*NAMES[1::-1], *NAMES[2:]))
    assert go_on(halfway, f"--set=dataset.class_names={swapped}") == 2
    assert "was trained with the classes ball, hoop" in capsys.readouterr().err


def test_hostile_arguments_in_a_state_are_refused(halfway, capsys):
    state = load_training_state(halfway)
    for odd in (3, ["--help"], ["--resume=x"], ["a"], [["--lr=1"]], ["--save_folder=/"], ["--lr=\n"]):
        torch.save({**state, "arguments": odd}, halfway.with_suffix(".state"))
        assert go_on(halfway) == 2
        assert "delete it to resume with the weights only" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- the best


def test_the_best_validation_is_kept_and_found(run, halfway, monkeypatch, capsys):
    folder, scores = halfway.parent, iter((0.3, 0.1))
    assert read_record(run / "run" / "STMask_demo_best.pth").scores == {"AP": AP, "AP50": 0.5, "iteration": 3}
    shutil.copy(run / "run" / "STMask_demo_best.pth", folder)
    monkeypatch.setattr(train_command, "score_videos", lambda *_: {"AP": next(scores)})
    monkeypatch.setattr(train_command.Trainer, "validation_is_due", lambda self: True)
    assert go_on(halfway, "--max_iter=4") == 0
    assert "the best so far, AP 0.3000" in capsys.readouterr().err
    best = STMask.from_pretrained(folder / "best", device="cpu")
    third = read_record(folder / "STMask_demo_best.pth")
    assert third.iteration == 3 and third.scores == {"AP": 0.3, "iteration": 3} and best.config.name == DEMO
    (path,) = folder.glob("STMask_demo_*_4.pth")
    assert read_record(path).scores == {"AP": 0.1, "iteration": 4}
    weights = load_state_dict(path)
    assert not all(torch.equal(value, weights[name]) for name, value in best.state_dict().items())
    path.unlink()
    scores = iter((0.2, 0.29))
    assert go_on(halfway, "--max_iter=4") == 0  # worse than before: the best stays
    assert read_record(folder / "STMask_demo_best.pth") == third


def test_a_validation_that_fails_leaves_the_last_weights(halfway, monkeypatch, capsys):
    def fail(*_):
        raise InputError("valid.json: is gone")

    monkeypatch.setattr(train_command, "score_videos", fail)
    assert go_on(halfway) == 2
    assert "is gone" in capsys.readouterr().err
    assert last(halfway.parent).with_suffix(".state").exists() and load_state_dict(last(halfway.parent))


def test_a_record_that_is_damaged_is_refused_in_one_line(run, tmp_path, capsys):
    path = tmp_path / "OWN.pth"
    content = read_record(last(run / "run")).to_json()
    save_state_dict(load_state_dict(last(run / "run")), path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/stmask.json", content.replace(b'"config": "', b'"config": "' + b"x" * 2000))
    assert eval_command.main([f"--trained_model={path}", "--video=in.mp4"]) == 2
    assert "cannot be used: config is" in capsys.readouterr().err
