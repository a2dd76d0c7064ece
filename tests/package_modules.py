"""Modules of the package, parsed, and what they import."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import stagelight

PACKAGE = "stagelight"
ROOT = Path(stagelight.__file__).parent


@cache
def parsed(source: str) -> ast.Module:
    """Return the tree of a source; every rule asks for every tree."""
    return ast.parse(source)


class Module(NamedTuple):
    """One source file."""

    name: str
    source: str
    is_package: bool = False

    @property
    def unit(self) -> str:
        """The part below the package that owns the module: ``cost`` for ``stagelight.cost.rates``."""
        return ([*self.name.split("."), ""])[1]

    @property
    def tree(self) -> ast.Module:
        return parsed(self.source)


def modules_of(root: Path) -> list[Module]:
    """Return all modules below the package's folder."""
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(root).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        found.append(Module(".".join(parts[: -1 if is_package else None]), path.read_text("utf-8"), is_package))
    return found


MODULES = modules_of(ROOT)


def nodes_outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield what runs at import: everything but bodies of functions and what only type checkers see."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield node
        yield from nodes_outside_functions(node)


def imported(module: Module, nodes: Iterable[ast.AST]) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every import, relative ones resolved."""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
