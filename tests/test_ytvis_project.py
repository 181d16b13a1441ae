"""ytvis/pyproject.toml, which installs the package alone, agrees with the code and setup.py."""

import ast
import sys
import tomllib
from pathlib import Path

from tests.test_floors import IMPORT_NAMES, imports, sources
from tools.lowest_versions import lower_bounds

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "ytvis" / "pyproject.toml").read_text("utf-8"))


def setup_keyword(name):
    """The value that setup.py gives to `setup`, of a keyword that is a literal."""
    tree = ast.parse((ROOT / "setup.py").read_text("utf-8"))
    (value,) = (node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == name)
    return ast.literal_eval(value)


def test_every_package_is_installed_by_both():
    folders = [path.parent for path in (ROOT / "ytvis").rglob("__init__.py")]
    found = {".".join(path.relative_to(ROOT).parts) for path in folders}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found
    assert {name for name in setup_keyword("packages") if name.split(".")[0] == "ytvis"} == found
    assert PROJECT["tool"]["setuptools"]["package-data"] == setup_keyword("package_data")
    for folder in (ROOT / "ytvis").rglob("page"):
        assert f"ytvis.{folder.parent.name}" in setup_keyword("package_data")


def test_what_is_imported_is_declared_with_the_bounds_of_setup():
    ours = {name: tree for name, tree in sources().items() if name.split(".")[0] == "ytvis"}
    imported = {name.split(".")[0] for module, tree in ours.items() for name in imports(tree, module)} - {"ytvis"}
    declared = PROJECT["project"]["dependencies"]
    names = {requirement.split(">")[0] for requirement in declared}
    assert {IMPORT_NAMES.get(name, name) for name in names} == imported - set(sys.stdlib_module_names)
    assert set(declared) <= set(setup_keyword("install_requires"))
    assert PROJECT["project"]["requires-python"] == setup_keyword("python_requires")


def test_both_build_with_the_same_tools_and_give_the_same_command():
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert PROJECT["build-system"] == whole["build-system"]
    scripts = [f"{name} = {target}" for name, target in PROJECT["project"]["scripts"].items()]
    assert setup_keyword("entry_points") == {"console_scripts": scripts}
    assert lower_bounds(ROOT).python == "3.11"
