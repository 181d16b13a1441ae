"""Every command of every page: its options exist, and it runs here, in another test, or not, for a stated reason."""

import argparse
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from data import synthetic
from data.config import get_config, overrides_from
from data.training_sets import ChosenSet
from inference.run_options import CONFIG_OPTIONS as EVAL_OPTIONS
from tests.docs.pages import ROOT, commands, pages
from train import CONFIG_OPTIONS as TRAIN_OPTIONS
from ytvis.__main__ import main as ytvis_main
from ytvis.files import read_json
from ytvis.results import write_results

COMMANDS = {(page, shlex.join(command)): command for page in pages() for command in commands(page)}
TINY = ("--device=cpu", "--set=input.size_hw=64,96")

# Commands that run here, in a folder with a small data set: {pattern of the command: arguments that make it short}.
HERE = {
    r"^python -m data.synthetic --root data/[ASP]": ("--train_videos=1", "--valid_videos=1", "--workers=1"),
    r"^python eval.py --trained_model=weights/STMask_demo.pth --mask_det_file": (*TINY, "--num_workers=0"),
    r"^python -m tools.recipe recipes/demo.toml (--list|.*--dry_run)$": (),
    r"^python -m tools.plot weights/STMask_demo_training.jsonl": (),
    r"^python -m ytvis (score|compare|report|check (results|GT))": (),
    r"^python -m ytvis view (?!out)": ("--no_browser", "--export=page"),
    r"^python -m ytvis convert (labelme FOLDER|ytvis|coco)": (),
}
SLOW_HERE = {
    r"^python eval.py --trained_model=weights/STMask_demo.pth --benchmark": (*TINY, "--num_workers=0"),
    r"^python train.py --config=STMask_demo_config --(batch_size|task)": (*TINY, "--max_iter=1", "--num_workers=0"),
}
# Commands that another test runs.
ELSEWHERE = {
    r"STMask_demo.pth --(video|images?)=|inference.frame_journal|view out.json": "tests/docs/test_your_video.py",
    r"--save_folder=results/recipes/": "tests/docs/test_recipes.py",
    r"(data|weights)/mine": "tests/docs/test_your_data.py",
    r"^python train.py --resume=": "tests/test_train.py",
    r"^python -m tools.export": "tests/tools/test_export.py",
    r"^python -m tools.run_exported": "tests/tools/test_run_exported.py",
    r"^python -m utils.checkpoint": "tests/utils/test_checkpoint_record.py",
    r"^python -m ytvis split": "tests/ytvis/test_splits.py",
    r"^python -m ytvis merge": "tests/ytvis/test_merge.py",
    r"^python -m ytvis convert (davis|mots|cvat|labelme recordings)": "tests/ytvis/convert/test_convert.py",
    r"^python -m ytvis convert yolo": "tests/ytvis/convert/test_yolo.py",
    r"^python -m ytvis convert datumaro": "tests/ytvis/convert/test_datumaro.py",
    r"^python train.py --config=STMask_demo_config --set train.pretrained": "tests/test_train.py",
    r"^(srun )?torchrun .*train.py": "tests/utils/test_distributed.py",
    r"--trained_model=\S*/yolact_plus_resnet50_54_800000.pth": "tests/test_yolact.py",
}
# Commands that cannot run in a test.
NOWHERE = {
    r"STMask_r101": "needs published weights",
    r"--trained_model=…|STMask_plus_base_config": "needs YouTube-VIS, and weights or days",
    r"COCO2017|weights/coco": "needs COCO",
    r"^make train-demo|tools.ablation": "takes hours; tests/tools/test_ablation.py makes small runs",
    r"^python -m tools.recipe recipes/demo.toml( --stage \w+)?$": "takes hours; test_recipe.py runs another",
    r"^python -m utils.weight_sources": "needs the internet; tests/utils/test_weight_sources.py asks a server here",
    r"backbone.block=basic": "needs YouTube-VIS; tests/test_train.py trains a small one",
    r"STMask_plus_resnet50_ada_config": "takes minutes; the same of the demo's network runs here",
    r"^python -m tools.(report_picture|viewer_pictures)": "needs a browser, and replaces pictures of the repository",
    r"^python -m pytest|^make (test|lint)": "these are the tests",
    r"^make demo": "makes an environment; its commands are README's, which run here",
}
WAYS = {**HERE, **SLOW_HERE, **ELSEWHERE, **NOWHERE}


def convert(arguments):
    """The exit code of `ytvis convert` with these arguments."""
    return ytvis_main(["convert", *arguments])


class Parsed(Exception):
    """Raised with the parsed options when a program has parsed its arguments."""


def parse(words):
    """The parsed options of the command `words`; SystemExit if its program refuses them."""
    program, *rest = words
    if program == "srun":
        return parse(rest)
    if program == "torchrun":
        options = get_args_parser().parse_args(rest)
        return parse(["python", options.training_script, *options.training_script_args])
    if program == "make":
        return [re.search(rf"^{name}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE).group() for name in rest]
    assert program == "python", f"{program}: say in this test how its options are checked"
    module, arguments = (rest[1], rest[2:]) if rest[0] == "-m" else (rest[0].removesuffix(".py"), rest[1:])
    if module == "pytest":
        assert arguments in ([], ["-m", "slow"])
        return arguments
    with pytest.MonkeyPatch.context() as patch:
        understand = argparse.ArgumentParser.parse_args

        def stop(parser, *given):
            raise Parsed(understand(parser, *given))

        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        patch.setattr(sys, "argv", [module, *arguments])
        with pytest.raises(Parsed) as parsed:
            main_of(module)()
    return parsed.value.args[0]


def main_of(module):
    """The function that runs `python -m module`."""
    name = module if (ROOT / f"{module.replace('.', '/')}.py").exists() else f"{module}.__main__"
    return importlib.import_module(name).main


def way(text):
    """The pattern of `WAYS` that matches the command `text`."""
    return next((pattern for pattern in WAYS if re.search(pattern, text)), None)


@pytest.mark.parametrize(("page", "text"), COMMANDS)
def test_its_options_are_options(page, text):
    options = parse(COMMANDS[page, text])
    if "set" in options:
        shortcuts = TRAIN_OPTIONS if "train.py" in text else EVAL_OPTIONS
        sets = [ChosenSet.parse(text) for text in (getattr(options, "train_dataset", None) or "").split(",") if text]
        of_first = sets[0].overrides() if sets and not sets[0].is_file else {}
        values = {key: getattr(options, option) for option, key in shortcuts.items()}
        get_config(options.config or "STMask_demo_config", overrides_from(options.set, values, of_first))


@pytest.mark.parametrize(("page", "text"), COMMANDS)
def test_it_runs_somewhere_or_it_is_said_why_not(page, text):
    assert way(text) is not None, "say in this test where the command is run, or why it cannot be"


def test_no_pattern_is_left_over():
    used = {way(text) for _, text in COMMANDS}
    assert used == set(WAYS)
    assert all((ROOT / path).is_file() for path in ELSEWHERE.values())


@pytest.mark.parametrize(
    "line",
    [
        "python eval.py --trained_model=x --vidoe=in.mp4",
        "python eval.py --trained_model=x --split=trian",
        "python train.py --config=x --batch_sise=8",
        "python -m data.synthetic --rooot x",
        "python -m ytvis convert yollo a b",
        "torchrun --nproc_per_nodes=4 train.py --config=x",
        "srun torchrun --nproc_per_node=4 train.py --confg=x",
    ],
)
def test_an_option_that_is_none_is_found(line):
    with pytest.raises(SystemExit) as stopped:
        parse(shlex.split(line))
    assert stopped.value.code == 2


def test_commands_are_found_as_a_shell_reads_them(tmp_path, monkeypatch):
    page = "```\npython a.py --x=1 \\\n    --y  # why\nfile    what it is\n```\n```python\npython = 1\n```\n"
    page += "```bash\nmore=--z=3\nsrun python b.py [--n 2] $more …\n```\n"
    (tmp_path / "page.md").write_text(page, "utf-8")
    monkeypatch.setattr("tests.docs.pages.ROOT", tmp_path)
    assert commands("page.md") == [
        ["python", "a.py", "--x=1", "--y"],
        ["srun", "python", "b.py", "--n", "2", "--z=3"],
    ]


# ------------------------------------------------------------------------------------------------ running them


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A demo set of two videos."""
    return synthetic.generate(tmp_path_factory.mktemp("drawn") / "ShapesVIS", train_videos=1, valid_videos=1, workers=1)


@pytest.fixture
def folder(drawn, tmp_path, monkeypatch):
    """The folder in which the commands run, with the files that they name."""
    monkeypatch.chdir(tmp_path)
    truth, images = drawn / "annotations" / "valid.json", drawn / "valid" / "JPEGImages"
    for name, target in {
        "data/ShapesVIS": drawn,
        "data/Absent": drawn,
        "data/ShapesVIS_test": drawn,
        "weights/STMask_demo.pth": ROOT / "weights" / "STMask_demo.pth",
        "weights/STMask_demo_training.jsonl": ROOT / "weights" / "STMask_demo_training.jsonl",
        "recipes": ROOT / "recipes",
        "annotations/valid.json": truth,
        "DIR": images,
        "valid/JPEGImages": images,
        "frames": images,
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(target)
    for name in ("GT.json", "ann.json"):
        Path(name).write_bytes(truth.read_bytes())
    for name in ("results.json", "new.json", "old.json", "weights/results.json"):
        write_perfect_results(truth, Path(name))
    write_halves(read_json(truth))
    assert convert(["ytvis", "GT.json", "FOLDER", "--to", "labelme", "--images", "frames"]) == 0
    for path in Path("FOLDER").rglob("*.json"):  # pictures beside their labels, as in LabelMe
        content = read_json(path)
        picture = path.parent / content["imagePath"]
        path.write_text(json.dumps({**content, "imagePath": picture.name}))
        (path.parent / picture.name).symlink_to(picture.resolve())
    assert convert(["ytvis", "GT.json", "tracked.json", "--to", "coco"]) == 0
    return tmp_path


def write_perfect_results(truth, path):
    """Results that equal the truth."""
    keys = ("video_id", "category_id", "segmentations")
    write_results(
        [{key: entry[key] for key in keys} | {"score": 0.9} for entry in read_json(truth)["annotations"]], path
    )


def write_halves(annotations):
    """Files of short and of long videos: the same videos, with other ids."""
    for name, shift in (("short", 0), ("long", 100)):
        videos = [{**video, "id": video["id"] + shift} for video in annotations["videos"]]
        tracks = [{**track, "video_id": track["video_id"] + shift} for track in annotations["annotations"]]
        Path(f"{name}.json").write_text(json.dumps({**annotations, "videos": videos, "annotations": tracks}), "utf-8")
        write_perfect_results(f"{name}.json", Path(f"results_{name}.json"))


def run(text, command, ways):
    more = ways[way(text)]
    _, first, *rest = command
    module, arguments = (rest[0], rest[1:]) if first == "-m" else (first.removesuffix(".py"), rest)
    if "data.synthetic" in text:
        for path in Path("data").iterdir():
            path.unlink()
    assert main_of(module)([*arguments, *more]) == 0


@pytest.mark.parametrize(("page", "text"), [key for key in COMMANDS if way(key[1]) in HERE])
def test_it_runs(folder, page, text):
    run(text, COMMANDS[page, text], HERE)


@pytest.mark.slow
@pytest.mark.parametrize(("page", "text"), [key for key in COMMANDS if way(key[1]) in SLOW_HERE])
def test_it_runs_in_a_while(folder, page, text):
    run(text, COMMANDS[page, text], SLOW_HERE)
