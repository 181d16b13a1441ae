"""Runs the tests with the lowest version of every package that setup.py and pyproject.toml allow.

    python -m tools.lowest_versions [--keep DIR] [--extras dev,export,browser] [PYTEST ARGUMENT …]

Makes a virtual environment with the lowest Python, installs each package at its lower bound, builds the native kernels
in a copy of the checkout, and runs pytest there. Needs that Python on the PATH, a package index and a few GB of disk.
The exit code is pytest's, or 2 if the environment cannot be made.
"""

import ast
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ytvis.command_line import Parser
from ytvis.files import InputError

ROOT = Path(__file__).parent.parent

# Prints the version of each of the given packages, and exits with 1 if the sizes of files differ from the package's
# record: another package has overwritten them, as two packages of OpenCV do to each other.
_SHOW_VERSIONS = """
import sys
from importlib.metadata import distribution

faults = 0
for name in sys.argv[1:]:
    found = distribution(name)
    files = [file for file in found.files if file.size is not None and file.suffix != ".pyc"]
    whole = all(file.locate().exists() and file.locate().stat().st_size == file.size for file in files)
    faults += not whole
    print(f"{name:<20} {found.version}" + ("" if whole else "  OVERWRITTEN by another package"), flush=True)
sys.exit(faults > 0)
"""


@dataclass(frozen=True)
class LowerBounds:
    """The lowest versions that a project file allows: a Python like "3.11", and requirements like "numpy==1.26"."""

    python: str
    packages: tuple[str, ...]
    build: tuple[str, ...]


def pinned(requirement: str) -> str:
    """`requirement`, "name>=version", as "name==version".

    Raises:
        InputError: it has another form.
    """
    match = re.fullmatch(r"([\w.-]+) *>= *([\w.]+)", requirement)
    if match is None:
        raise InputError(f"{requirement!r}: no lower bound of the form NAME>=VERSION")
    return f"{match[1]}=={match[2]}"


def lower_bounds(root: Path, extras: Iterable[str] = ()) -> LowerBounds:
    """The bounds of the checkout `root`, with those of the `extras`.

    Raises:
        InputError: a requirement has no lower bound, or an extra is unknown.
    """
    tree = ast.parse((root / "setup.py").read_text("utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "setup"]
    names = ("python_requires", "install_requires", "extras_require")
    found = {word.arg: ast.literal_eval(word.value) for word in calls[0].keywords if word.arg in names}
    requirements = list(found["install_requires"])
    for extra in extras:
        if extra not in found["extras_require"]:
            raise InputError(f"{extra!r}: not an extra of setup.py, which has {', '.join(found['extras_require'])}")
        requirements += found["extras_require"][extra]
    build = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["build-system"]["requires"]
    packages = dict.fromkeys(map(pinned, requirements))
    return LowerBounds(found["python_requires"].removeprefix(">="), tuple(packages), tuple(map(pinned, build)))


def find_python(version: str) -> str:
    """The command that runs Python `version`, such as "3.11".

    Raises:
        InputError: it is not found on the PATH.
    """
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    found = shutil.which(f"python{version}")
    if found is None:
        raise InputError(f"python{version} is not on the PATH, and it is the lowest version that setup.py allows")
    return found


def copy_checkout(target: Path) -> None:
    """Copies the files that git tracks or would track into `target`, so that a build does not change the checkout."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # a file that is deleted but not committed is still listed
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def make_environment(folder: Path, bounds: LowerBounds) -> str:
    """Creates the environment `folder` with exactly these versions, and prints them; returns its Python.

    Raises:
        InputError: Python is not found, the packages cannot be installed together, or one overwrites another.
    """
    python = str(folder / "bin" / "python")
    commands = [
        [find_python(bounds.python), "-m", "venv", "--clear", str(folder)],
        [python, "-m", "pip", "install", "--quiet", *bounds.build, *bounds.packages],
        [python, "-c", _SHOW_VERSIONS, *(pin.partition("==")[0] for pin in (*bounds.build, *bounds.packages))],
    ]
    for command in commands:
        if subprocess.run(command).returncode:
            raise InputError(f"{folder}: the environment could not be made; the failed command's output is above")
    return python


def run_tests(folder: Path, extras: Sequence[str], arguments: Sequence[str]) -> int:
    """Creates environment and copy of the checkout in `folder`, runs pytest with `arguments`; returns its exit code.

    Raises:
        InputError: the environment or the kernels could not be built.
    """
    folder = folder.resolve()
    checkout = folder / "checkout"
    if checkout.exists():
        shutil.rmtree(checkout)
    copy_checkout(checkout)
    python = make_environment(folder / "environment", lower_bounds(checkout, extras))
    build = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", "."]
    if subprocess.run(build, cwd=checkout).returncode:
        raise InputError(f"{checkout}: STMask could not be installed; pip's output is above")
    return subprocess.run([python, "-m", "pytest", *arguments], cwd=checkout).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="folder for the environment and the copy, which are then kept"
    )
    extras = "extras of setup.py, separated by commas (default: %(default)s)"
    parser.add_argument("--extras", default="dev,export,browser", help=extras)
    options, pytest_arguments = parser.parse_known_args(arguments)
    place = nullcontext(options.keep) if options.keep else tempfile.TemporaryDirectory()
    try:
        with place as folder:
            return run_tests(Path(folder), options.extras.split(","), pytest_arguments)
    except InputError as error:
        print(f"lowest_versions: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
