"""Prints the imports between the modules here, floor by floor, and any import cycle.

    python -m tools.import_graph            # exit code 1 if there is a cycle

The graph is read from the source without running it. Imports inside functions count.
"""

import ast
import sys
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from ytvis.command_line import Parser

ROOT = Path(__file__).parent.parent
SCRIPTS = ("backbone", "stmask", "train", "eval")
FOLDERS = ("ytvis", "utils", "layers", "data", "inference", "tools")
FLOORS = (
    ("ytvis",),
    ("utils", "layers", "data"),
    ("backbone",),
    ("inference",),
    ("stmask",),
    ("train", "eval"),
    ("tools",),
)


def sources(root: Path = ROOT) -> dict[str, ast.Module]:
    """{dotted module name: syntax tree} of all modules here except tests; a package has its folder's name."""
    paths = [path for name in SCRIPTS if (path := root / f"{name}.py").exists()]
    paths += [path for folder in FOLDERS for path in sorted((root / folder).rglob("*.py"))]
    names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    return {name: ast.parse(path.read_text("utf-8"), path) for name, path in zip(names, paths, strict=True)}


def imports(tree: ast.Module, module: str, is_package: bool = False) -> Iterator[str]:
    """Dotted names that `module` imports, anywhere in it; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            package = parts[: len(parts) - node.level + is_package] if node.level else []
            base = ".".join(package + ([node.module] if node.module else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def import_graph(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """{module: its imports among `modules`}; a name defined in a module counts as the module."""
    packages = {name.rpartition(".")[0] for name in modules}
    graph = {}
    for module, tree in modules.items():
        found = (_owner(name, modules) for name in imports(tree, module, module in packages))
        graph[module] = {name for name in found if name is not None} - {module}
    return graph


def find_cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of an import cycle, each importing the next, the first again at the end; [] if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def _owner(name: str, modules: Mapping[str, ast.Module]) -> str | None:
    """The module of `modules` that the dotted `name` names or is defined in; None for other modules."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    Parser(prog="python -m tools.import_graph", description=__doc__).parse_args(arguments)
    graph = import_graph(sources())
    for number, floor in enumerate(FLOORS):
        print(f"floor {number}: {', '.join(floor)}")
        for module in sorted(name for name in graph if name.split(".")[0] in floor):
            if graph[module]:
                print(f"  {module}: {', '.join(sorted(graph[module]))}")
    cycle = find_cycle(graph)
    print(f"cycle: {' → '.join(cycle)}" if cycle else f"{len(graph)} modules, no cycle")
    return 1 if cycle else 0


if __name__ == "__main__":
    sys.exit(main())
