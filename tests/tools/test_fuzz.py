"""A fixed part of the fuzzing, and whether it notices what it looks for."""

import json
import mmap
import os
import random
import sys
import time
from pathlib import Path

import pytest

from tools.fuzz import KINDS, Case, fuzz, run_case
from tools.mutations import mutate_bytes, mutate_json

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs Linux")


def test_damaged_files_and_odd_arguments_end_as_they_should(capfd):
    faults = fuzz(list(KINDS), count=12 * len(KINDS), seed=0, seconds=60, megabytes=2000, keep=None)
    assert dict(faults) == {"": 12 * len(KINDS)}, capfd.readouterr().out


def refuse():
    print("error: a.json: is no file", file=sys.stderr)
    return 2


def grow():
    """Takes 100 MB of new pages; an array might reuse what this process had before."""
    size = 100 * 2**20
    with mmap.mmap(-1, size) as memory:
        memory[::4096] = b"1" * (size // 4096)


def test_an_end_as_it_should_be_is_no_fault(tmp_path):
    assert run_case(Case("", lambda: 0), tmp_path, 20, 500).fault == ""
    assert run_case(Case("", refuse), tmp_path, 20, 500).fault == ""


@pytest.mark.parametrize(
    ("run", "fault"),
    [
        (lambda: 1 / 0, "printed a traceback"),
        (lambda: os.kill(os.getpid(), 9), "died of signal 9"),
        (lambda: 3, "ended with exit code 3"),
        (lambda: 2, "ended with exit code 2, and its last line is not an error"),
        (lambda: time.sleep(9), "took "),
        (grow, "took "),
        (lambda: print("x" * 5000), "printed a line of more than 4000 characters"),
    ],
    ids=["traceback", "signal", "code", "silent", "slow", "large", "long"],
)
def test_each_fault_is_noticed(tmp_path, run, fault):
    assert run_case(Case("", run), tmp_path, 1, 60).fault.startswith(fault)


def test_the_same_seed_gives_the_same_damage():
    content = {"a": [1, {"b": "text"}], "c": None}
    texts = [mutate_json(content, random.Random(seed), 3) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    data = json.dumps(content).encode()
    assert mutate_bytes(data, random.Random(0)) == mutate_bytes(data, random.Random(0))
    assert content == {"a": [1, {"b": "text"}], "c": None}


def test_most_damage_changes_something():
    content = json.loads(Path(__file__).with_name("..").joinpath("fixtures/evaluator/open/small/gt.json").read_text())
    text = json.dumps(content)
    assert sum(mutate_json(content, random.Random(seed)) != text for seed in range(20)) >= 15
    assert sum(mutate_bytes(text.encode(), random.Random(seed)) != text.encode() for seed in range(20)) >= 18
