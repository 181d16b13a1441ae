"""tools/gpu_check.sh: parts that fail or take too long do not stop the others, and all are reported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent.parent / "tools" / "gpu_check.sh"
PARTS = ["data", "tests", "parity", "speed_demo", *(f"speed_STMask_plus_{name}_config" for name in
         ("resnet50_ada", "resnet50", "base_ada")), "kernels", "training", "recipe"]  # fmt: skip

# In place of Python: the kernels are measured, the tests fail, and one network's benchmark writes a file; only the last
# command, which collects the results, is real.
PYTHON = """#!/bin/bash
case "$*" in
    *"-m pytest"*) echo "2 failed"; exit 3 ;;
    *tools.recipe*) echo '{"stages": [{"name": "last", "minutes": 4.25, "scores": {"AP": 0.5}}]}' > "${!##--json=}" ;;
    *tools.kernel_speed*) echo '{"wall_ms": 1}' > "${!#}" ;;
    *"import logging"*resnet50_ada*) echo '{"runs": {"this run": {"stages": {}, "wall_ms": {"median": 5.25}}}}' \\
        > "${@: -3:1}/bf16_benchmark.json" ;;
    *gpu_check.json*) exec PYTHON "$@" ;;
esac
"""


def run(*arguments, python=sys.executable):
    command = ["bash", SCRIPT, *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {"PYTHON": str(python)}, capture_output=True, text=True, timeout=60)


def test_a_dry_run_lists_the_parts_and_their_limits_and_writes_nothing(tmp_path):
    done = run("--dry_run", "--device", "cuda:1", tmp_path / "out")
    assert done.returncode == 0 and not done.stderr and not (tmp_path / "out").exists()
    lines = done.stdout.splitlines()
    assert [line.split(",")[0] for line in lines[::2]] == PARTS
    assert all(line.endswith(" s at most") for line in lines[::2])
    assert "tools.parity cuda:1" in done.stdout


def test_the_other_parts_run_where_one_fails_and_all_are_in_one_file(tmp_path):
    python = tmp_path / "python"
    python.write_text(PYTHON.replace("PYTHON", sys.executable))
    python.chmod(0o755)
    done = run(tmp_path / "out", python=python)
    assert done.returncode == 1
    found = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    assert {name: part["exit_code"] for name, part in found["parts"].items()} == dict.fromkeys(PARTS, 0) | {"tests": 3}
    assert found["measured"]["kernels"] == {"wall_ms": 1}
    assert found["measured"]["bf16_benchmark"]["runs"]["this run"]["wall_ms"]["median"] == 5.25
    assert "5.25 ms a frame" in done.stdout
    assert found["measured"]["recipe"]["stages"][0]["scores"] == {"AP": 0.5}
    assert "last: 4.2 minutes, {'AP': 0.5}" in done.stdout
    log = (tmp_path / "out" / "gpu_check.log").read_text()
    assert "2 failed" in log and "tests: exit code 3" in log


def test_the_recipe_is_not_run_where_its_minutes_are_not_left(tmp_path):
    python = tmp_path / "python"
    python.write_text(PYTHON.replace("PYTHON", sys.executable).replace('echo "2 failed"; exit 3', "exit 0"))
    python.chmod(0o755)
    done = run("--minutes", "4", tmp_path / "out", python=python)
    assert done.returncode == 0 and "recipe: not run, fewer than 5 of the 4 minutes are left" in done.stdout
    assert json.loads((tmp_path / "out" / "gpu_check.json").read_text())["parts"].keys() == set(PARTS[:-1])


@pytest.mark.parametrize("arguments", [["--devices"], ["--device"], ["--minutes", "0"]])
def test_wrong_options_are_refused_in_one_line(arguments):
    done = run(*arguments)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not done.stdout


def test_the_help_is_the_text_at_the_top():
    done = run("--help")
    assert done.returncode == 0 and done.stdout.startswith("Checks and measures") and "--dry_run" in done.stdout
