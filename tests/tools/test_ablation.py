"""tools/ablation.py: runs are made once, continue where they stopped, are never mixed, and their table is right."""

import json
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import train
from data import synthetic
from data.config import get_config
from tests import processes
from tests.ytvis.rectangles import rectangle
from tools import ablation
from tools.ablation import COMMON, CONFIG, GROUPS, ROWS, Budget, Run, Study
from tools.recipe import DrawnSet, Stopped
from utils.checkpoint import fingerprint, load_state_dict, save_state_dict
from ytvis.files import InputError

ROOT = Path(__file__).parent.parent.parent
WEIGHTS = ROOT / "weights" / "STMask_demo.pth"
VIDEOS = 20


# --------------------------------------------------------------------------------------------------------------- rows


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_a_config_and_is_compared_with_one_of_its_group(name):
    row = ROWS[name]
    config = get_config(CONFIG, {**COMMON, **row.keys})
    assert get_config(CONFIG, [f"{key}={value}" for key, value in row.keys.items()]).flat().items() >= row.keys.items()
    assert config.input.size_hw == (128, 224)
    group = GROUPS[ablation.group_of(name)]
    assert {row.against, row.weights_of} <= {*group.rows, ""} and row.against != name
    if row.weights_of:  # nothing that a training would have to know
        assert not ROWS[row.weights_of].weights_of and not row.images
        assert all(key.startswith(("tracking.", "postprocess.")) for key in row.keys)


def test_rows_are_chosen_with_those_that_they_need():
    assert ablation.choose_rows(["contrastive_demo_tracker"]) == [
        *("baseline", "contrastive", "demo_tracker", "contrastive_demo_tracker")
    ]
    assert ablation.choose_rows(ROWS) == list(ROWS) and ablation.choose_rows([]) == []


# --------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A set to train on and one to score on."""
    folder = tmp_path_factory.mktemp("sets")
    synthetic.generate(folder / "train", 2, 0, workers=1)
    synthetic.generate(folder / "test", 0, 1, seed=7, workers=1)
    return folder


def command(sets: Path, output: Path, *more: str) -> list[str]:
    given = {"start": WEIGHTS, "training_set": sets / "train", "test_set": sets / "test", "output": output}
    return [*(f"--{name}={value}" for name, value in given.items()), "--device=cpu", "--seeds=0", *more]


def test_runs_continue_are_made_once_and_never_mixed(sets, tmp_path, capfd, monkeypatch):
    line = command(sets, tmp_path, "--rows", "joint", "--max_iter=14")
    process = processes.start(["-m", "tools.ablation", *line])
    folder, deadline = tmp_path / "baseline_0", time.monotonic() + 300
    while not (folder / ablation.LOG_NAME).exists():  # ten iterations are done
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=120)[1]
    assert process.returncode == 1 and errors.endswith("stopped by SIGTERM; run the same command to continue\n"), errors
    assert not (folder / "results.json").exists()

    assert ablation.main(line) == 0
    output, errors = capfd.readouterr()
    assert "0 of 2 runs are finished" in errors and "joint, seed 0: done in" in errors and "2 of 2 runs" in errors
    iterations = [json.loads(row)["iteration"] for row in (folder / ablation.LOG_NAME).read_text().splitlines()]
    assert iterations == [10, 14] and not list((tmp_path / "joint_0").glob("*.pth"))
    header, _, *rows = output.splitlines()
    assert header.split("|")[2].strip() == "against" and [row.split("|")[2].strip() for row in rows] == [
        *("–", "the demo's config")
    ]

    monkeypatch.setattr(ablation.subprocess, "Popen", None)  # nothing is left to run
    assert ablation.main(line) == 0 and capfd.readouterr().out == output
    assert ablation.main([*line, "--table"]) == 0 and capfd.readouterr().out == output
    assert ablation.main([*line, "--batch_size=3"]) == 2
    errors = capfd.readouterr().err.splitlines()
    assert "run.json: batch_size was 2 and is 3 now; choose another --output, or delete" in errors[-1]
    monkeypatch.setitem(ROWS, "joint", replace(ROWS["joint"], keys={"tracking.joint": False}))
    assert ablation.main([*line, "--table"]) == 2
    assert "tracking.joint was True and is False now" in capfd.readouterr().err


def test_train_takes_static_images_and_the_keys_of_every_row(sets, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ablation, "IMAGE_VIDEOS", 1)
    options = ablation.make_parser().parse_args(command(sets, tmp_path))
    runs = [Run(tmp_path, name, 0) for name, row in ROWS.items() if not row.weights_of]
    study = ablation.prepare(options, DrawnSet(str(sets / "test"), 0, 1, 7), runs)
    for run in runs:
        recipe, stage = study.stage(run)
        assert train.main([*recipe.training(stage), "--print_config"]) == 0
    sets_of_images = next(
        option for option in recipe.training(study.stage(Run(tmp_path, "images", 0))[1]) if "@" in option
    )
    parsed = train.parse_arguments([f"--config={CONFIG}", sets_of_images])
    found = train.find_sets(parsed)
    first, second = found.load(train.find_config(parsed, found)[0])
    assert (first.is_static, second.is_static, found.weights) == (False, True, [1.0, 0.5])
    assert first.ann_file == sets / "train" / "annotations" / "train.json" and second.labels == first.labels
    assert len(second.videos) == sum(
        len(entry["file_names"])
        for entry in json.loads((tmp_path / "images" / "annotations" / "train.json").read_text())["videos"]
    )


BUDGET = Budget("start", "train", "test", 10, 2, "fp32", "cpu")


class Commands(Study):
    """Runs of which each starts `commands_of[name]`, Python programs, and is then finished."""

    commands_of: dict[str, list[str]]

    def commands(self, run):
        run.folder.mkdir(parents=True, exist_ok=True)
        for program in self.commands_of[run.name]:
            yield [sys.executable, "-c", program]
        run.results.write_text("[]")


def study_of(output: Path, **commands: list[str]) -> tuple[Study, list[Run]]:
    none = DrawnSet("", 0, 0)
    study = Commands(output, none, none, BUDGET)
    object.__setattr__(study, "commands_of", commands)
    return study, [Run(output, name, 0) for name in commands]


def test_runs_go_side_by_side_and_follow_the_one_whose_weights_they_take(tmp_path):
    log = tmp_path / "log"
    note = f"open({str(log)!r}, 'a').write"
    meet = f"""
import pathlib, time
pathlib.Path({str(tmp_path)!r}, NAME).touch()
while len(list(pathlib.Path({str(tmp_path)!r}).glob('met*'))) < 2: time.sleep(0.01)
"""
    study, runs = study_of(
        tmp_path,
        baseline=[meet.replace("NAME", "'met1'"), f"{note}('baseline ')"],
        scales=[meet.replace("NAME", "'met2'")],  # neither ends alone
        joint=[f"{note}('joint ')", f"import os; assert os.environ['OMP_NUM_THREADS'] == '1'; {note}('end')"],
    )
    ablation.run_all(study, runs, jobs=2)
    assert log.read_text() == "baseline joint end" and all(run.results.exists() for run in runs)


def test_a_command_that_fails_stops_all(tmp_path):
    refuse = "import sys; print('train.py: error: no such thing', file=sys.stderr); sys.exit(2)"
    wait = "import time; time.sleep(600)"
    study, runs = study_of(tmp_path, scales=[wait], ema=[refuse])
    with pytest.raises(InputError, match="ema_0/run.log: train.py: error: no such thing"):
        ablation.run_all(study, runs, jobs=2)
    study, runs = study_of(tmp_path, baseline=["raise SystemExit(3)"])
    with pytest.raises(Stopped, match="a command failed with exit code 3; see .*baseline_0/run.log"):
        ablation.run_all(study, runs, jobs=1)
    assert not any(run.results.exists() for run in runs)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--start="], "--start: is empty"),
        (["--start=nowhere.pth"], "nowhere.pth: no such file"),
        (
            ["--training_set=nowhere"],
            "nowhere: no drawn set there; draw one with python -m data.synthetic --root nowhere",
        ),
        (["--precision=fp16"], "--precision=fp16 needs a GPU"),
        (["--device=sun"], "--device=sun cannot be used"),
        (["--rows", "none"], "invalid choice: 'none'"),
        (["--jobs=0"], "'0' is not a whole number of at least 1"),
        (["--table"], "no finished runs of these rows there"),
    ],
)
def test_bad_input_is_one_line(sets, tmp_path, changed, message, capsys):
    try:
        code = ablation.main([*command(sets, tmp_path / "out"), *changed])
    except SystemExit as error:
        code = error.code
    lines = capsys.readouterr().err.splitlines()
    assert code == 2 and message in lines[-1] and len(lines) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["STMask_demo", "run"])
def test_a_start_of_another_network_is_refused(name, sets, tmp_path, capsys):
    state = load_state_dict(WEIGHTS)
    state["fpn.lat_layers.0.weight"] = state["fpn.lat_layers.0.weight"][:-1].clone()
    save_state_dict(state, tmp_path / f"{name}.pth")
    assert ablation.main([*command(sets, tmp_path / "out"), f"--start={tmp_path}/{name}.pth"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{name}.pth: does not fit STMask_demo_config: " in line and "fpn.lat_layers.0.weight" in line
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------------- table


def box(x: int) -> dict:
    return rectangle(x, 0, 10, 10, (10, 100))


def write_made_runs(output: Path, found: dict[tuple[str, int], int]) -> DrawnSet:
    """Runs, of which each finds the one object in so many of `VIDEOS` videos; the set that they are scored on."""
    shapes = DrawnSet(str(output / "test"), 0, VIDEOS)
    truth = {
        "videos": [
            {"id": n, "height": 10, "width": 100, "length": 1, "file_names": [f"{n}.png"]} for n in range(1, VIDEOS + 1)
        ],
        "categories": [{"id": 1, "name": "circle"}],
        "annotations": [
            {"id": n, "video_id": n, "category_id": 1, "segmentations": [box(0)], "areas": [100]}
            for n in range(1, VIDEOS + 1)
        ],
    }
    path = Path(shapes.annotations("valid"))
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(truth))
    budget = replace(BUDGET, test_set=fingerprint(path))
    for (name, seed), count in found.items():
        run = Run(output, name, seed)
        run.folder.mkdir()
        run.record_path.write_text(json.dumps(run.record(budget)))
        tracks = [
            {"video_id": n, "category_id": 1, "score": 0.9, "segmentations": [box(0)]} for n in range(1, count + 1)
        ]
        run.results.write_text(json.dumps(tracks))
        if not run.row.weights_of:
            seconds = {"baseline": 0.2, "scales": 0.25}[name]
            lines = [
                {"iteration": 10, "cpu_seconds": 9.0},
                *({"iteration": n, "cpu_seconds": seconds} for n in (20, 30)),
            ]
            (run.folder / ablation.LOG_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return shapes


def test_the_table_has_means_over_seeds_and_intervals_over_videos(tmp_path, capsys):
    found = {("baseline", 0): 10, ("baseline", 1): 8, ("scales", 0): 20, ("scales", 1): 20, ("joint", 0): 10}
    shapes = write_made_runs(tmp_path, found)
    assert ablation.main([f"--output={tmp_path}", f"--test_set={shapes.root}", "--table", "--json"]) == 0
    baseline, scales, joint = json.loads(capsys.readouterr().out)
    assert [line["row"] for line in (baseline, scales, joint)] == ["baseline", "scales", "joint"]
    # Of one video in two, respectively two in five, recall and, at a precision of 1, AP are that share.
    assert baseline["scores"]["AR10"] == pytest.approx(0.45) and baseline["seeds"] == [0, 1]
    assert baseline["scores"]["AP"] == pytest.approx((51 + 41) / 202) and baseline["differences"] == {}
    # DetA is the share of the objects that are found, and AssA 1.
    assert baseline["scores"]["HOTA"] == pytest.approx((0.5**0.5 + 0.4**0.5) / 2)
    gained = scales["differences"]["HOTA"]
    assert scales["each_seed"]["HOTA"] == pytest.approx([1 - 0.5**0.5, 1 - 0.4**0.5])
    assert gained["value"] == pytest.approx(np.mean(scales["each_seed"]["HOTA"]))
    # The share that is found is that of draws with replacement, whose deviation is 0.11; HOTA is its root.
    assert gained["low"] == pytest.approx(0.33 - 0.16, abs=0.05) and gained["high"] == pytest.approx(
        0.33 + 0.16, abs=0.05
    )
    assert joint["seeds"] == [0] and joint["step_seconds"] is None
    assert joint["differences"]["AP"] == {"value": 0, "low": 0, "high": 0}  # of the seed that both have

    assert ablation.main([f"--output={tmp_path}", f"--test_set={shapes.root}", "--table", "--group=keys"]) == 0
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines()]
    assert rows[0] == [
        "",
        "against",
        "seeds",
        "AP",
        "AP50",
        "AR10",
        "HOTA",
        "AssA",
        "AP gained",
        "HOTA gained",
        "s a step",
    ]
    assert rows[2][1:8] == ["–", "2", "45.5", "45.5", "45.0", "67.0", "100.0"]
    assert rows[2][8:] == ["–", "–", "0.200"]
    assert rows[3][:3] == [ROWS["scales"].title, ROWS["baseline"].title, "2"] and rows[3][-1] == "0.250 (+25 %)"
    assert rows[3][9].startswith("**+33.0** (") and rows[3][9].endswith("; +29.3, +36.8)")
    assert rows[4][8:] == ["+0.0 (+0.0 to +0.0; +0.0)", "+0.0 (+0.0 to +0.0; +0.0)", "–"]


def test_runs_of_different_budgets_or_scored_on_another_set_give_no_table(tmp_path, capsys):
    shapes = write_made_runs(tmp_path, {("baseline", 0): 10, ("baseline", 1): 8})
    arguments = [f"--output={tmp_path}", "--table"]
    run = Run(tmp_path, "baseline", 1)
    record = json.loads(run.record_path.read_text())
    run.record_path.write_text(json.dumps({**record, "max_iter": 999}))
    assert ablation.main([*arguments, f"--test_set={shapes.root}"]) == 2
    assert "baseline_1/run.json: max_iter was 999 and is 10 now" in capsys.readouterr().err
    run.record_path.write_text("[]")
    assert ablation.main([*arguments, f"--test_set={shapes.root}"]) == 2
    assert "baseline_1/run.json: holds no options of a run" in capsys.readouterr().err
    run.record_path.unlink()
    assert ablation.main([*arguments, f"--test_set={shapes.root}"]) == 2
    assert "baseline_1/run.json" in capsys.readouterr().err
    run.record_path.write_text(json.dumps(record))
    path = Path(shapes.annotations("valid"))
    path.write_text(path.read_text().replace("circle", "ring"))
    assert ablation.main([*arguments, f"--test_set={shapes.root}"]) == 2
    assert "the runs were scored on another set; name it with --test_set" in capsys.readouterr().err


@pytest.mark.parametrize("log", ["", '{"iteration": 10, "seconds": 0.2}\n', '{"iteration": 10, "seco'])
def test_a_log_without_times_such_as_an_older_one_leaves_their_cell_empty(log, tmp_path, capsys):
    shapes = write_made_runs(tmp_path, {("baseline", 0): 10, ("scales", 0): 20})
    (Run(tmp_path, "baseline", 0).folder / ablation.LOG_NAME).write_text(log)
    assert ablation.main([f"--output={tmp_path}", f"--test_set={shapes.root}", "--table"]) == 0
    first, second = (line.split(" | ")[-1] for line in capsys.readouterr().out.splitlines()[2:])
    assert first == "– |" and second == "0.250 |"
