import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ROOT
from ytvis import __version__
from ytvis.__main__ import main
from ytvis.command_line import Parser, log_if_accepted, number_in, positive, run_command, seed_number
from ytvis.files import InputError


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "line"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (raising(InputError("a\nb: is wrong")), 2, "name: error: a\\nb: is wrong\n"),
        (raising(OSError(28, "No space left on device", "a/b")), 2, "name: error: a/b: No space left on device\n"),
        (raising(OSError("broken")), 2, "name: error: broken\n"),
        (raising(KeyboardInterrupt()), 130, "name: interrupted\n"),
    ],
)
def test_a_command_ends_with_one_line_and_a_code(capsys, work, code, line):
    assert run_command("name", work) == code
    assert capsys.readouterr().err == line


def test_faults_of_the_program_are_not_hidden():
    for error in (ZeroDivisionError(), RuntimeError("a fault")):
        with pytest.raises(type(error)):
            run_command("name", raising(error))


def test_a_killed_worker_is_reported_in_one_line(capsys):
    def work():
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            pool.submit(signal.raise_signal, signal.SIGKILL).result()

    assert run_command("name", work, "; a hint") == 1
    reason = "a worker process was killed, probably because memory ran out; use fewer workers"
    assert capsys.readouterr().err == f"name: error: {reason}; a hint\n"


@pytest.mark.parametrize("kind", ["bytes", "numpy", "torch"])
def test_a_lack_of_memory_is_reported_in_one_line(capsys, kind):
    amount = 1 << 55  # bytes, more than any machine has
    allocate = {
        "bytes": lambda: bytearray(amount),
        "numpy": lambda: np.zeros(amount, np.uint8),
        "torch": lambda: pytest.importorskip("torch").empty(amount // 4),
    }[kind]
    assert run_command("name", allocate, "; a hint") == 1
    error = capsys.readouterr().err
    assert error.startswith("name: error: memory ran out; use smaller sizes or batches, or fewer processes (")
    assert error.endswith("; a hint\n") and error.count("\n") == 1


def test_names_that_the_output_cannot_encode_are_escaped(monkeypatch):
    output = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", output)
    assert run_command("name", lambda: print("größer \udcff")) == 0
    assert output.buffer.getvalue() == f"gr\\xf6\\xdfer \\udcff{os.linesep}".encode("ascii")


def test_a_reader_that_has_ended_is_no_error(tmp_path):
    code = "import sys; from ytvis.command_line import run_command; "
    code += "sys.exit(run_command('name', lambda: print('x' * 2**20)))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait() == 0


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"ytvis {__version__}\n"


def test_a_wrong_argument_is_shown_short(capsys):
    parser = Parser(prog="name")
    parser.add_argument("--number", type=int)
    with pytest.raises(SystemExit) as caught:
        parser.parse_args(["--number=1", "x\n" * 5000])
    assert caught.value.code == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("name: error: unrecognized arguments: x\\nx\\n") and len(error) < 2100


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ([""], "out"),
        (["out", "--images="], "--images"),
        (["out", "--folder", ""], "--folder"),
        (["out", "--long", "gt.json", ""], "--long"),
    ],
)
def test_a_path_or_name_that_is_empty_is_refused(capsys, arguments, name):
    parser = Parser(prog="name")
    parser.add_argument("out")
    parser.add_argument("--images")
    parser.add_argument_group("more").add_argument("--folder", type=Path)
    parser.add_argument("--long", nargs="+")
    parser.add_argument("--prefix", type=str)
    assert parser.parse_args(["out", "--prefix="]).prefix == ""
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    assert capsys.readouterr().err == f"name: error: argument {name}: is empty; --help lists the options\n"


@pytest.mark.parametrize(
    ("work", "shown"),
    [
        (lambda: logging.getLogger("a").info("later"), ["first", "later"]),
        (raising(InputError("refused")), []),
        (raising(OSError("full")), []),
        (raising(ZeroDivisionError()), ["first"]),
        (lambda: logging.getLogger().handlers[0].flush() or raising(InputError("refused"))(), ["first"]),
    ],
)
def test_what_is_logged_is_shown_unless_the_input_is_refused(caplog, work, shown):
    caplog.set_level(logging.INFO)
    with suppress(InputError, OSError, ZeroDivisionError), log_if_accepted():
        logging.getLogger("a").warning("first")
        assert not caplog.messages
        work()
    assert caplog.messages == shown and caplog.handler in logging.getLogger().handlers


def test_a_refusal_is_one_line_where_warnings_came_before_it(tmp_path):
    """The numbers of labels.txt are logged; then a line of the video is wrong."""
    (tmp_path / "labels.txt").write_text("2 car\n")
    (tmp_path / "a.txt").write_text("0 2001 2 4 6 Z")
    line = [sys.executable, "-m", "ytvis", "convert", "mots", tmp_path, tmp_path / "out.json"]
    done = subprocess.run(line, capture_output=True, cwd=ROOT, text=True)
    assert done.returncode == 2 and done.stderr.startswith("ytvis convert: error: ") and done.stderr.count("\n") == 1
    (tmp_path / "a.txt").write_text("0 2001 2 4 6 f02")
    done = subprocess.run(line, capture_output=True, cwd=ROOT, text=True)
    assert done.returncode == 0 and "its numbers are" in done.stderr


def test_options_of_another_mode_are_refused():
    ours, theirs = Parser("program"), Parser("program")
    for parser, names in ((ours, ("--a", "--b")), (theirs, ("--b", "--c"))):
        for name in names:
            parser.add_argument(name)
    ours.refuse_options_of(theirs, ["--a=--c", "--b", "c", "--d"], "is theirs")
    with pytest.raises(InputError, match="^--c is theirs$"):
        ours.refuse_options_of(theirs, ["--a=1", "--c=2"], "is theirs")


@pytest.mark.parametrize("script", ["eval.py", "train.py"])
def test_an_interrupt_while_modules_are_imported_is_one_line(script):
    pytest.importorskip("torch")
    line = [sys.executable, "-X", "importtime", ROOT / script, "--config=STMask_demo"]
    process = subprocess.Popen(line, stderr=subprocess.PIPE, cwd=ROOT, text=True)
    while " torch." not in process.stderr.readline():  # a part of torch has been imported
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    *_, last = process.communicate()[1].splitlines()
    assert (process.returncode, last) == (130, f"{script}: interrupted")


def test_an_interrupt_at_any_time_is_one_line_and_no_signal(tmp_path):
    """What -X importtime prints tells how far the process is."""
    for module in ("numpy.", "ytvis.masks"):
        line = [sys.executable, "-X", "importtime", "-m", "ytvis", "check", tmp_path]
        process = subprocess.Popen(line, stderr=subprocess.PIPE, cwd=ROOT, text=True)
        while f" {module}" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        *_, last = process.communicate()[1].splitlines()
        assert process.returncode in (130, 2) and last.startswith(("ytvis: interrupted", "ytvis check: "))


def test_an_interrupt_in_code_that_is_made_as_text_ends_with_its_code():
    code = "from ytvis.command_line import *\n" + (
        "end_process(run_command('tried', lambda: exec('raise KeyboardInterrupt')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=ROOT, text=True)
    assert (done.returncode, done.stderr) == (130, "tried: interrupted\n")


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-", "2>/dev/full"])
def test_without_open_streams_the_code_says_how_it_ended(tmp_path, streams):
    line = f"{sys.executable} -m ytvis check {tmp_path / 'missing.json'} {streams}"
    assert subprocess.run(line, shell=True, cwd=ROOT, capture_output=True).returncode == 2
    done = subprocess.run(
        f"{sys.executable} -m ytvis score --help {streams}", shell=True, cwd=ROOT, capture_output=True
    )
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("kind", "text", "reason"),
    [
        (positive, "0", "'0' is not a whole number of at least 1"),
        (positive, "x", "'x' is not a whole number of at least 1"),
        (positive, "1.5", "'1.5' is not a whole number of at least 1"),
        (seed_number, "-1", "'-1' is not a whole number in 0…4294967295"),
        (seed_number, "9" * 5000, f"'{'9' * 78}… is not a whole number in 0…4294967295"),
        (number_in(float, 0, 1), "1.01", "'1.01' is not a number in 0…1"),
        (number_in(float), "nan", "'nan' is not a number"),
    ],
)
def test_a_number_out_of_range_is_named_with_its_limits(capsys, kind, text, reason):
    parser = Parser(prog="name")
    parser.add_argument("--value", type=kind)
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args([f"--value={text}"])
    assert capsys.readouterr().err == f"name: error: argument --value: {reason}; --help lists the options\n"


def test_limits_are_in_range():
    assert (positive("1"), seed_number("4294967295")) == (1, 2**32 - 1)
    assert (number_in(float, 0, 1)("1"), number_in(float)("-0.5")) == (1.0, -0.5)
