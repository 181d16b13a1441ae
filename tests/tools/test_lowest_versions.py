"""tools/lowest_versions.py: the bounds it reads, and what it refuses. Making the environment takes gigabytes."""

from pathlib import Path

import pytest

from tools.lowest_versions import ROOT, copy_checkout, find_python, lower_bounds, main, pinned
from ytvis.files import InputError


def test_a_requirement_becomes_its_lower_bound():
    assert pinned("numpy>=1.26") == "numpy==1.26"
    assert pinned("opencv-python >= 4.8.0.76") == "opencv-python==4.8.0.76"
    for other in ("numpy", "numpy<2", "numpy>=1.26,<2", "numpy==1.26"):
        with pytest.raises(InputError, match="no lower bound"):
            pinned(other)


def test_the_bounds_are_those_of_the_project_files(tmp_path):
    (tmp_path / "setup.py").write_text(
        'setup(python_requires=">=3.11", install_requires=["a>=1", "b>=2.0.1"], extras_require={"x": ["c>=3", "a>=1"]})'
    )
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools>=77.0.1"]\n')
    bounds = lower_bounds(tmp_path, ["x"])
    assert (bounds.python, bounds.packages) == ("3.11", ("a==1", "b==2.0.1", "c==3"))
    assert bounds.build == ("setuptools==77.0.1",)
    assert lower_bounds(tmp_path).packages == ("a==1", "b==2.0.1")
    with pytest.raises(InputError, match="'y': not an extra of setup.py, which has x"):
        lower_bounds(tmp_path, ["y"])


def test_every_requirement_of_ours_has_a_lower_bound():
    bounds = lower_bounds(ROOT, ("dev", "export", "browser", "crosscheck", "datumaro", "tensorboard"))
    assert {"torch", "torchvision", "numpy", "pytest", "pandas"} <= {name.split("==")[0] for name in bounds.packages}


def test_a_python_that_is_not_there_is_bad_input(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="python3.99 is not on the PATH"):
        find_python("3.99")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git repository")
def test_an_extra_that_is_none_ends_in_one_line(tmp_path, capsys):
    assert main([f"--keep={tmp_path}", "--extras=dev,wheels"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("lowest_versions: error: 'wheels': not an extra of setup.py") and error.count("\n") == 1


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git repository")
def test_the_copy_holds_what_git_knows_and_no_build_products(tmp_path):
    copy_checkout(tmp_path)
    assert (tmp_path / "setup.py").read_bytes() == (ROOT / "setup.py").read_bytes()
    assert Path(tmp_path, "weights", "STMask_demo.pth").exists()
    assert not list(tmp_path.rglob("*.so")) and not list(tmp_path.rglob("__pycache__"))
