import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.ytvis.viewer.small_set import LENGTH
from ytvis.__main__ import main as ytvis_main
from ytvis.viewer.server import PAGE_TYPES

ROOT = Path(__file__).parents[3]


def main(arguments):
    """The exit code of `ytvis view` with these arguments."""
    return ytvis_main(["view", *arguments])


def command(small_set, *more):
    images, ann_file = f"--images={small_set.images}", f"--ann_file={small_set.ann_file}"
    return [str(small_set.results), images, ann_file, *map(str, more)]


def read_script(path):
    """Name and data of a script in data/."""
    name, data = re.fullmatch(r'receiveData\("([^"]+)", (.*)\);\n', path.read_text("ascii"), re.DOTALL).groups()
    return name, json.loads(data)


def test_export_writes_everything_the_page_needs(small_set, content, tmp_path, capsys):
    out = tmp_path / "new" / "page"
    assert main(command(small_set, "--compare", small_set.compare, "--export", out)) == 0
    assert capsys.readouterr().out == f"{out / 'index.html'}\n"
    pages = {out / name for name in PAGE_TYPES}
    data = {out / "data" / name for name in ("index.js", "video-0.js", "video-1.js")}
    frames = {out / "frames" / "0" / f"{frame}.png" for frame in range(LENGTH)}
    assert {path for path in out.rglob("*") if path.is_file()} == pages | data | frames
    assert list(out.parent.iterdir()) == [out]
    assert read_script(out / "data" / "index.js") == ("index", content.index())
    assert read_script(out / "data" / "video-0.js") == ("video-0", json.loads(json.dumps(content.video(0))))
    assert (out / "frames" / "0" / "4.png").read_bytes() == (small_set.images / "walk" / "00004.png").read_bytes()
    assert '<html lang="en" data-static>' in (out / "index.html").read_text("utf-8")


def test_export_does_not_touch_what_is_there(small_set, tmp_path, capsys):
    (tmp_path / "page").mkdir()
    assert main(command(small_set, "--export", tmp_path / "page")) == 2
    assert "is there already" in capsys.readouterr().err
    assert list((tmp_path / "page").iterdir()) == []


def test_export_that_fails_leaves_nothing(small_set, tmp_path, monkeypatch, capsys):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", fail)
    assert main(command(small_set, "--export", tmp_path / "out" / "page")) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("name", ["ytvis.viewer.export._write", "pathlib.Path.rename"])
def test_export_that_is_interrupted_at_its_end_leaves_nothing_half(small_set, tmp_path, monkeypatch, name):
    """Ctrl+C after the last picture or at the renaming, and again while the temporary folder is removed."""
    owner, attribute = pkgutil.resolve_name(name.rpartition(".")[0]), name.rpartition(".")[2]
    last_step, remove = getattr(owner, attribute), shutil.rmtree

    def interrupted(*arguments):
        last_step(*arguments)
        signal.raise_signal(signal.SIGINT)

    def remove_under_interrupt(path, **options):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        remove(path, **options)

    monkeypatch.setattr(owner, attribute, interrupted)
    monkeypatch.setattr("shutil.rmtree", remove_under_interrupt)
    assert main(command(small_set, "--export", tmp_path / "out" / "page")) == 130
    left = [path.name for path in (tmp_path / "out").iterdir()]
    assert left == (["page"] if attribute == "rename" else [])
    if left:
        assert {"index.html", "viewer.js", "data", "frames"} <= set(os.listdir(tmp_path / "out" / "page"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("missing", ["results", "images", "ann_file"])
def test_what_is_not_there_is_one_line_and_exit_code_2(small_set, tmp_path, capsys, missing):
    paths = {"results": small_set.results, "images": small_set.images, "ann_file": small_set.ann_file}
    paths[missing] = tmp_path / "none"
    results, *options = [str(paths["results"]), f"--images={paths['images']}", f"--ann_file={paths['ann_file']}"]
    assert main([results, *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("ytvis view: error: ") and str(tmp_path / "none") in error and error.count("\n") == 1


@pytest.mark.parametrize("empty", ["results", "images", "ann_file"])
def test_an_empty_path_is_one_line_and_exit_code_2(small_set, tmp_path, monkeypatch, capsys, empty):
    monkeypatch.chdir(tmp_path)
    paths = {"results": small_set.results, "images": small_set.images, "ann_file": small_set.ann_file, empty: ""}
    line = [str(paths["results"]), f"--images={paths['images']}", f"--ann_file={paths['ann_file']}", "--export=page"]
    with pytest.raises(SystemExit) as stopped:  # the parser refuses it
        main(line)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("ytvis view: error: ") and error.count("\n") == 1 and not (tmp_path / "page").exists()


def test_the_command_serves_until_it_is_interrupted(small_set):
    arguments = [sys.executable, "-m", "ytvis", "view", *command(small_set, "--no_browser", "--port=0")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # If the tests run in a shell's background, Ctrl+C is ignored, and the processes they start would ignore it too.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(arguments, cwd=ROOT, text=True, preexec_fn=heed, **pipes) as process:
        try:
            url = process.stdout.readline().split()[0]
            with urlopen(f"{url}data/index.json", timeout=60) as answer:
                assert json.load(answer)["videos"][0]["name"] == "walk"
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and errors == ""
