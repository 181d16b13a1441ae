"""Which modules may import which others, read from the source without running it."""

import ast
import sys
from collections.abc import Iterator

import pytest

from tools.import_graph import FOLDERS, ROOT, SCRIPTS, find_cycle, import_graph, imports, main, sources

LOWER = ("ytvis", "utils", "layers", "data")
MAY_IMPORT = {
    "ytvis": ("ytvis",),
    "utils": ("ytvis", "utils"),
    "layers": ("ytvis", "utils", "layers"),
    "data": ("ytvis", "utils", "data"),
    "backbone": ("ytvis", "utils", "layers"),
    "inference": (*LOWER, "backbone", "inference"),
    "stmask": (*LOWER, "backbone", "inference"),
    "train": (*LOWER, "backbone", "inference", "stmask"),
    "eval": (*LOWER, "backbone", "inference", "stmask"),
    "tools": (*LOWER, "backbone", "inference", "stmask", "train", "eval", "tools", "tests"),
}
TORCH = ("torch", "torchvision")
MAY_USE_CUDA = ("utils.timer", "utils.device", "utils.distributed", "layers.cuda")
IMPORT_NAMES = {"opencv-python": "cv2", "pillow": "PIL"}


def is_within(name: str, parents: tuple[str, ...]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def import_violations(tree: ast.Module, module: str) -> list[str]:
    """Imports that the floor of `module` forbids: of our modules, and of torch on floor 0."""
    floor = module.split(".")[0]
    watched = (*SCRIPTS, *FOLDERS, *(TORCH if floor == "ytvis" else ()))
    found = (name for name in imports(tree, module) if is_within(name, watched))
    return [f"{module} imports {name}" for name in found if not is_within(name, MAY_IMPORT[floor])]


def cuda_violations(tree: ast.Module, module: str) -> list[str]:
    """Uses of torch.cuda, and calls of `.cuda()`, which only a few modules may have."""
    if is_within(module, MAY_USE_CUDA):
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


def declared_dependencies() -> tuple[set[str], set[str]]:
    """Import names of what setup.py lists in install_requires, and in extras_require."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text("utf-8"))) if isinstance(node, ast.Call)]
    keywords = next(call.keywords for call in calls if ast.unparse(call.func) == "setup")
    values = {
        word.arg: ast.literal_eval(word.value)
        for word in keywords
        if word.arg in ("install_requires", "extras_require")
    }
    extras = [requirement for extra in values["extras_require"].values() for requirement in extra]
    required, optional = (
        {requirement.split(">")[0].strip() for requirement in requirements}
        for requirements in (values["install_requires"], extras)
    )
    return {IMPORT_NAMES.get(name, name) for name in required}, optional


@pytest.mark.parametrize("rule", [import_violations, cuda_violations, config_violations])
def test_every_module_keeps_to_the_rule(rule):
    modules = sources()
    assert {"utils.structures", "ytvis.files", "data.config", "layers.fpn"} <= set(modules)
    assert [violation for module, tree in modules.items() for violation in rule(tree, module)] == []


def test_only_one_module_imports_the_mask_library():
    """Only checked masks may reach its C code."""
    users = {module for module, tree in sources().items() for name in imports(tree, module) if "pycocotools" in name}
    assert {module for module in users if not module.startswith("tools.")} == {"ytvis.masks"}


def test_no_module_imports_itself_by_way_of_others(capsys):
    assert find_cycle(import_graph(sources())) == []
    assert main([]) == 0
    assert "stmask: backbone, " in capsys.readouterr().out


def test_cycle_rule_itself():
    texts = {
        "ytvis": "from ytvis.b import f",
        "ytvis.a": "import ytvis.b",
        "ytvis.b": "def f():\n    from .c import g",
        "ytvis.c": "from . import a",
    }
    graph = import_graph({name: ast.parse(text) for name, text in texts.items()})
    assert graph == {"ytvis": {"ytvis.b"}, "ytvis.a": {"ytvis.b"}, "ytvis.b": {"ytvis.c"}, "ytvis.c": {"ytvis.a"}}
    cycle = find_cycle(graph)
    assert set(cycle) == {"ytvis.a", "ytvis.b", "ytvis.c"} and cycle[0] == cycle[-1]
    assert all(after in graph[before] for before, after in zip(cycle, cycle[1:], strict=False))
    assert find_cycle(graph | {"ytvis.c": set()}) == []


def test_every_dependency_is_imported_and_every_import_declared():
    ours = {*SCRIPTS, *FOLDERS, "tests"}
    imported = {name.split(".")[0] for module, tree in sources().items() for name in imports(tree, module)}
    required, optional = declared_dependencies()
    assert imported - ours - set(sys.stdlib_module_names) - optional == required


@pytest.mark.parametrize(
    ("module", "source", "allowed"),
    [
        ("ytvis.files", "import json\nfrom ytvis.masks import encode", True),
        ("ytvis.files", "from . import masks", True),
        ("ytvis.files", "import torch", False),
        ("ytvis.score.ap", "def f():\n    from torchvision.ops import nms", False),
        ("ytvis.viewer.page", "import stmask", False),
        ("ytvis.masks", "from utils.structures import Tracks", False),
        ("utils.structures", "import torch\nfrom ytvis.files import atomic_write", True),
        ("utils.checkpoint", "from utils.timer import StageTimer", True),
        ("utils.checkpoint", "from data.config import get_config", False),
        ("layers.fpn", "from utils.structures import Predictions\nfrom layers.anchors import make_anchors", True),
        ("layers.fpn", "from .anchors import make_anchors", True),
        ("layers.fpn", "from data import config", False),
        ("layers.fpn", "def f():\n    import inference.tracker", False),
        ("data.video", "from ytvis.files import atomic_write\nimport data.config, utils.structures", True),
        ("data.video", "from layers.fpn import FPN", False),
        ("data.video", "import database", True),
        ("backbone", "from layers.deform_conv import ModulatedDeformConv2d", True),
        ("backbone", "from data.config import Config", False),
        ("inference.tracker", "import backbone, layers.fpn, data.config, inference.network", True),
        ("inference.tracker", "if TYPE_CHECKING:\n    from stmask import STMask", False),
        ("stmask", "import backbone, inference.tracker, data.config, utils.timer", True),
        ("stmask", "import eval", False),
        ("train", "from stmask import STMask\nfrom inference.videos import track_videos", True),
        ("train", "import eval", False),
        ("eval", "from stmask import STMask", True),
        ("eval", "from train import main", False),
        ("eval", "from tools.parity import load_model", False),
        ("tools.parity", "import eval, train, tests.processes", True),
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
