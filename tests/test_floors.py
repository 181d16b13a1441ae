"""Keeps the floors of the house: who may import whom, read from the source without running it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = ("backbone", "stmask", "eval", "train")
FOLDERS = ("ytvis", "layers", "data", "utils", "inference", "tools")
LOWER = ("ytvis", "layers", "data", "utils")
MAY_IMPORT = {
    "ytvis": ("ytvis",),
    "layers": ("ytvis", "layers", "utils"),
    "data": ("ytvis", "data", "utils"),
    "utils": ("ytvis", "utils"),
    "backbone": ("ytvis", "layers", "utils"),
    "inference": (*LOWER, "backbone", "inference"),
    "stmask": (*LOWER, "backbone", "inference"),
    "eval": (*LOWER, "backbone", "inference", "stmask"),
    "train": (*LOWER, "backbone", "inference", "stmask"),
    "tools": (*LOWER, "backbone", "inference", "stmask", "eval", "train", "tools", "tests"),
}
MAY_USE_CUDA = ("utils.timer", "utils.device", "utils.distributed")
IMPORT_NAMES = {"opencv-python": "cv2", "pillow": "PIL"}


def sources() -> dict[str, ast.Module]:
    """{dotted module name: syntax tree} of everything that is ours, tests apart."""
    paths = [path for name in SCRIPTS if (path := ROOT / f"{name}.py").exists()]
    paths += [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    return {name: ast.parse(path.read_text("utf-8"), path) for name, path in zip(names, paths, strict=True)}


def imports(tree: ast.Module, module: str) -> Iterator[str]:
    """Dotted names that `module` imports, anywhere in it; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            base = ".".join(package + ([node.module] if node.module else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def is_within(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def import_violations(tree: ast.Module, module: str) -> list[str]:
    """Imports of ours that the floor of `module` does not allow."""
    allowed = MAY_IMPORT.get(module, MAY_IMPORT[module.split(".")[0]])
    ours = (name for name in imports(tree, module) if is_within(name, (*SCRIPTS, *FOLDERS)))
    return [f"{module} imports {name}" for name in ours if not is_within(name, allowed)]


def cuda_violations(tree: ast.Module, module: str) -> list[str]:
    """Uses of torch.cuda, and calls of `.cuda()`, which only a few modules may have."""
    if module in MAY_USE_CUDA:
        return []
    found = [name for name in imports(tree, module) if is_within(name, ("torch.cuda",))]
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"
        if called or (isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.cuda"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
    return [f"{module}: {text}" for text in found]


def run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes under `node` that run when the module is imported: all but the bodies of functions and of main."""
    for name, value in ast.iter_fields(node):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and name == "body":
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'" and name == "body":
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield child
                yield from run_at_import(child)


def config_violations(tree: ast.Module, module: str) -> list[str]:
    """Calls of get_config that run at import."""
    calls = [node for node in run_at_import(tree) if isinstance(node, ast.Call)]
    return [f"{module} line {call.lineno}" for call in calls if ast.unparse(call.func).split(".")[-1] == "get_config"]


def declared_dependencies() -> set[str]:
    """Import names of what setup.py's install_requires lists."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text("utf-8"))) if isinstance(node, ast.Call)]
    keywords = next(call.keywords for call in calls if ast.unparse(call.func) == "setup")
    requirements = next(ast.literal_eval(word.value) for word in keywords if word.arg == "install_requires")
    names = [requirement.split(">")[0].strip() for requirement in requirements]
    return {IMPORT_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("rule", [import_violations, cuda_violations, config_violations])
def test_every_module_keeps_to_the_rule(rule):
    modules = sources()
    assert {"utils.structures", "ytvis.files", "data.config", "layers.fpn"} <= set(modules)
    assert [violation for module, tree in modules.items() for violation in rule(tree, module)] == []


def test_every_dependency_is_imported_and_every_import_declared():
    ours = {*SCRIPTS, *FOLDERS}
    imported = {name.split(".")[0] for module, tree in sources().items() for name in imports(tree, module)}
    assert imported - ours - set(sys.stdlib_module_names) == declared_dependencies()


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("utils.structures", "import torch", True),
        ("utils.structures", "from ytvis.files import atomic_write", False),
        ("ytvis.files", "from utils.structures import InputError", True),
        ("ytvis.files", "from . import timer", False),
        ("ytvis.masks", "from utils.structures import InputError\nfrom utils import _mask_kernels", True),
        ("ytvis.masks", "from utils import files", False),
        ("layers.fpn", "from utils.structures import Predictions\nfrom layers.anchors import make_anchors", True),
        ("layers.fpn", "from .anchors import make_anchors", True),
        ("layers.fpn", "from data import config", False),
        ("layers.fpn", "def f():\n    import utils.timer", False),
        ("data.video", "from ytvis.files import atomic_write\nimport data.config", True),
        ("data.video", "from utils import files, structures", True),
        ("data.video", "from utils import files, logger", False),
        ("data.video", "from layers.fpn import FPN", False),
        ("data.video", "import database", True),
        ("utils.checkpoint", "from utils.timer import StageTimer", True),
        ("utils.checkpoint", "from data.config import get_config", False),
        ("ytvis.viewer.page", "import stmask", False),
        ("backbone", "from layers.deform_conv import DeformConv", True),
        ("backbone", "from data.config import Config", False),
        ("stmask", "import backbone, layers.fpn, data.config, utils.timer", True),
        ("stmask", "import eval", False),
        ("stmask", "import own_video", False),
        ("own_video", "from stmask import STMask\nfrom benchmark import Way", True),
        ("own_video", "from eval import Way", False),
        ("eval", "from own_video import run_on_own_video", True),
        ("train", "import own_video", False),
        ("eval", "from stmask import STMask\nfrom utils.timer import StageTimer", True),
        ("eval", "from train import main", False),
        ("benchmark", "from stmask import Network", True),
        ("benchmark", "import eval", False),
        ("eval", "from benchmark import Way", True),
        ("train", "import eval", False),
    ],
)
def test_import_rule_itself(module, source, allowed):
    assert (import_violations(ast.parse(source), module) == []) == allowed


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("layers.fpn", "x.to(device)", True),
        ("layers.fpn", "kind = x.device.type == 'cuda'", True),
        ("layers.fpn", "def f(x):\n    return x.cuda()", False),
        ("eval", "torch.cuda.synchronize()", False),
        ("eval", "from torch import cuda", False),
        ("utils.timer", "torch.cuda.synchronize()", True),
    ],
)
def test_cuda_rule_itself(module, source, allowed):
    assert (cuda_violations(ast.parse(source), module) == []) == allowed


@pytest.mark.parametrize(
    ("source", "allowed"),
    [
        ("def f():\n    return get_config('a')", True),
        ("if __name__ == '__main__':\n    get_config('a')", True),
        ("cfg = get_config('a')", False),
        ("cfg = config.get_config('a').input", False),
        ("def f(cfg=get_config('a')):\n    pass", False),
        ("class A:\n    cfg = get_config('a')", False),
        ("class A:\n    def f(self):\n        return get_config('a')", True),
        ("if True:\n    for name in NAMES:\n        get_config(name)", False),
    ],
)
def test_config_rule_itself(source, allowed):
    assert (config_violations(ast.parse(source), "eval") == []) == allowed
