"""Imports point downwards only, the lazy ones too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pgkd_agent

ROOT = Path(pgkd_agent.__file__).parent

LAYERS = [
    {"errors", "seeding", "text", "types", "testing", "version"},
    {"config", "files", "embedded", "data", "machine", "metrics"},
    {"loop"},
    {"student", "teacher"},
    {"runs"},
    {"pipeline"},
    {"answering", "experiments"},
    {"schemas", "workbench"},
    {"cli"},
]
"""From the bottom up. `__init__` names what is in them and `__main__` calls the last; nothing imports either."""
ENDS = {"__init__", "__main__"}
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in ROOT.rglob("*.py"):
        part = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if part not in ENDS:
            yield part, ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Top parts of what is imported from the package, without what is for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "pgkd_agent":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pgkd_agent."):
            yield (node.module or "").split(".")[1]
        else:
            yield from imported(node)


def test_nothing_imports_the_package_itself() -> None:
    named = {
        (part, alias.name)
        for part, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not [pair for pair in named if pair[1] == "pgkd_agent"]


def test_every_module_has_a_layer() -> None:
    assert {part for part, _ in modules()} == set(LEVEL)


def test_imports_point_strictly_downwards() -> None:
    upward = {
        f"{part} -> {target}"
        for part, tree in modules()
        for target in imported(tree)
        if target != part and LEVEL[target] >= LEVEL[part]
    }
    assert upward == set()


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = ["torch", "transformers", "langchain_core", "langchain", "sklearn", "datasets", "pyarrow"]
    code = f"import sys, pgkd_agent.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    assert done.stdout.strip() == "[]"


def test_algorithm_1_is_one_short_function_over_protocols() -> None:
    tree = ast.parse((ROOT / "loop" / "algorithm.py").read_text(encoding="utf-8"))
    (function,) = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "run_pgkd"]
    assert (function.end_lineno or 0) - function.lineno < 60
    assert set(imported(tree)) <= {name for level in LAYERS[:4] for name in level}
