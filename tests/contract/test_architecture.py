"""The package keeps its shape: who may import whom, who may catch everything, where names and sizes belong.

Each rule is a function from parsed modules to problems; it is applied to the package and, so that it is known to be
able to fail, to small sources that break it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
import stagelight
from stagelight.conventions import attributes, events, metrics

PACKAGE = "stagelight"
ROOT = Path(stagelight.__file__).parent

ORDER = (
    "_version",
    "_clock",
    "_forks",
    "_guard",
    "conventions",
    "facts",
    "_validation",
    "cost",
    "redaction",
    "_request_rules",
    "settings",
    "_accepted",
    "standard",
    "settings_page",
    "_bounds",
    "_labels",
    "_modalities",
    "_operations",
    "_pace",
    "_attributes",
    "export",
    "instruments",
    "_handover",
    "_identity",
    "_inbound",
    "_runtime",
    "_lifecycle",
    "_shares",
    "_streaming",
    "_upstream",
    "_turns",
    "_tasks",
    "_ledger",
    "_readers",
    "_call_cost",
    "_nothing",
    "_remarks",
    "_self_metrics",
    "_calls",
    "_decorators",
    "stages",
    "integrations",
    "logs",
    "sentry",
    "_exits",
    "propagation",
    "configure",
    "instrumentations",
    "distro",
    "autopath",
    "_request_identity",
    "_exchange",
    "asgi",
    "wsgi",
    "_starlette",
    "integrations_page",
    "documentation",
    "testing",
)
"""The library from the ground up: a module imports only modules before it."""

READERS = {
    "sources": {"embedded"},
    "embedded": {"sources"},
    "sim": set[str](),
    "demo": {"embedded", "sim"},
    # doctor reads the settings that the library would use, and who would instrument what
    "cli": {"sources", "embedded", "demo", "settings", "standard", "instrumentations"},
    "__main__": {"cli"},
}
"""What works on stored telemetry or stands beside the library, and what else each of them may import."""

FOR_READERS = {"_version", "conventions", "facts", "cost"}

CORE = {"genai_prices", "google", "grpc", "opentelemetry", "structlog", "yaml"}
"""Third-party packages that are always installed."""

EXTRA_INSTRUMENTATIONS = {"fastapi", "httpx", "starlette"}
"""Parts of the namespace ``opentelemetry.instrumentation`` that are extras all the same."""

SERVER_SIDE = {"embedded", "sim"}
"""Reached only through the lazy imports of the command line, so that their extras may stand at the top."""

MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
GENERATED = "do not edit"
EMPTY_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}

NAMES = {
    value
    for module in (attributes, metrics, events)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
NAME_IN_TEXT = re.compile(
    r"(?<!\w)(?<!\w\.)(?:"
    + "|".join(map(re.escape, sorted(NAMES, key=len, reverse=True)))
    + r"|gen_ai(?:\.[a-z_]+)+)(?!\w)"
)
"""A registered name, or anything that looks like one of upstream's, also inside a longer text such as a query."""


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


def imports_against_the_order(modules: Iterable[Module]) -> list[str]:
    """Units import only what stands below them."""
    problems = []
    for module in modules:
        unit = module.unit
        if not unit:
            continue
        if unit not in ORDER and unit not in READERS:
            problems.append(f"{module.name}: has no place in ORDER or READERS")
            continue
        allowed = FOR_READERS | READERS[unit] if unit in READERS else set(ORDER[: ORDER.index(unit)])
        for line, name in imported(module, ast.walk(module.tree)):
            root, _, rest = name.partition(".")
            other = rest.split(".")[0]
            if root == PACKAGE and other not in allowed | {unit}:
                problems.append(f"{module.name}:{line}: {unit} imports {other or 'the package'}")
    return problems


def import_cycles(modules: Iterable[Module]) -> list[str]:
    """No module needs itself to be imported."""
    known = {module.name: module for module in modules}
    needs = {
        name: {nearest(found, known) for _, found in imported(module, nodes_outside_functions(module.tree))}
        for name, module in known.items()
    }
    problems, done = list[str](), set[str]()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            problems.append(" -> ".join((*path[path.index(name) :], name)))
        elif name not in done:
            for target in sorted(needs[name] - {name, ""}):
                visit(target, (*path, name))
            done.add(name)

    for name in sorted(needs):
        visit(name, ())
    return problems


def nearest(name: str, known: dict[str, Module]) -> str:
    """Return the module that ``name`` is or comes from; empty for the bare package, which is above everything."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name if name != PACKAGE else ""


def is_broad(node: ast.expr | None) -> bool:
    """Whether an ``except`` or ``suppress`` of this type swallows everything."""
    if isinstance(node, ast.Tuple):
        return any(is_broad(each) for each in node.elts)
    return node is None or ast.unparse(node).removeprefix("builtins.") in {"Exception", "BaseException"}


def broad_excepts(modules: Iterable[Module]) -> list[str]:
    """Nobody but the guard catches everything, unless it raises the same exception again."""
    problems = []
    for module in modules:
        if module.name == f"{PACKAGE}._guard":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
                last = node.body[-1]
                if not (isinstance(last, ast.Raise) and last.exc is None):
                    problems.append(f"{module.name}:{node.lineno}: broad except that does not end with a bare raise")
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"suppress", "contextlib.suppress"}:
                problems += [f"{module.name}:{node.lineno}: broad suppress" for each in node.args if is_broad(each)]
    return problems


def convention_literals(modules: Iterable[Module]) -> list[str]:
    """Names of the registry are written in the registry only; in docstrings they may be talked about."""
    problems = []
    for module in modules:
        if module.unit == "conventions":
            continue
        docstrings = {node.value for node in ast.walk(module.tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                problems += [f"{module.name}:{node.lineno}: {name}" for name in NAME_IN_TEXT.findall(node.value)]
    return problems


def extras_at_the_top(modules: Iterable[Module]) -> list[str]:
    """Importing the package needs nothing but the core dependencies."""
    problems = []
    for module in modules:
        if module.unit in SERVER_SIDE:
            continue
        for line, name in imported(module, nodes_outside_functions(module.tree)):
            root, *rest = name.split(".")
            is_extra = root not in CORE | {PACKAGE} | sys.stdlib_module_names
            if is_extra or (rest[:1] == ["instrumentation"] and rest[1:2] and rest[1] in EXTRA_INSTRUMENTATIONS):
                problems.append(f"{module.name}:{line}: imports {name} at the top")
    return problems


def long_files(modules: Iterable[Module]) -> list[str]:
    """Files are short enough to be read; generated ones are not read."""
    return [
        f"{module.name}: {lines} lines"
        for module in modules
        if (lines := len(module.source.splitlines())) > MOST_LINES
        and GENERATED not in (ast.get_docstring(module.tree) or "")
    ]


def long_functions(modules: Iterable[Module]) -> list[str]:
    """Functions are short enough to be understood; their docstring does not count, so that nobody shortens it."""
    problems = []
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            body = node.body[1:] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body
            signature = node.body[0].lineno - node.lineno
            lines = signature + (body[-1].end_lineno or 0) - body[0].lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                problems.append(f"{module.name}:{node.lineno}: {node.name} has {lines} lines")
    return problems


def empty_names(modules: Iterable[Module]) -> list[str]:
    """A module is called after what it is about."""
    return [
        module.name for module in modules if EMPTY_NAMES & set(module.name.rpartition(".")[2].strip("_").split("_"))
    ]


RULES: tuple[Callable[[Iterable[Module]], list[str]], ...] = (
    imports_against_the_order,
    import_cycles,
    broad_excepts,
    convention_literals,
    extras_at_the_top,
    long_files,
    long_functions,
    empty_names,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_package_keeps_the_rule(rule: Callable[[Iterable[Module]], list[str]]) -> None:
    """The package breaks no rule of the architecture."""
    assert rule(MODULES) == []


def test_all_names_exactly_the_public_names() -> None:
    """What can be imported from the package is what ``__all__`` lists, in order, and each name exists."""
    public = {
        name
        for name, value in vars(stagelight).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }

    assert sorted(stagelight.__all__) == list(stagelight.__all__)
    assert public | {name for name in stagelight.__all__ if name.startswith("__")} <= set(stagelight.__all__)
    assert [name for name in stagelight.__all__ if not hasattr(stagelight, name)] == []


LONG_FUNCTION = "def long():\n" + "    pass\n" * 60
DOCUMENTED = 'def long():\n    """One.\n' + "\n" * 70 + '    """\n' + "    pass\n" * 59

BROKEN = [
    (imports_against_the_order, "cost.rates", "from stagelight import stages", ["cost imports stages"]),
    (imports_against_the_order, "cost.rates", "def f():\n    import stagelight.stages", ["cost imports stages"]),
    (imports_against_the_order, "cost.rates", "from ..stages import llm", ["cost imports stages"]),
    (imports_against_the_order, "facts", "from . import cost", ["facts imports cost"]),
    (imports_against_the_order, "facts", "import stagelight", ["facts imports the package"]),
    (imports_against_the_order, "cli.costs", "from stagelight._runtime import x", ["cli imports _runtime"]),
    (imports_against_the_order, "sources.model", "from stagelight.cli import x", ["sources imports cli"]),
    (imports_against_the_order, "novelty", "", ["has no place in ORDER or READERS"]),
    (broad_excepts, "facts", "try:\n    x\nexcept Exception:\n    pass", ["broad except"]),
    (broad_excepts, "facts", "try:\n    x\nexcept:\n    raise ValueError", ["broad except"]),
    (broad_excepts, "facts", "try:\n    x\nexcept (OSError, BaseException) as e:\n    raise e", ["broad except"]),
    (broad_excepts, "facts", "try:\n    x\nexcept* builtins.Exception:\n    pass", ["broad except"]),
    (broad_excepts, "facts", "with contextlib.suppress(OSError, Exception):\n    pass", ["broad suppress"]),
    (convention_literals, "facts", "x = 'gen_ai.request.model'", ["gen_ai.request.model"]),
    (convention_literals, "facts", "x = f'stagelight.turn.share.{stage}'", ["stagelight.turn.share"]),
    (convention_literals, "facts", "x = \"select a->>'$.error.type'\"", ["error.type"]),
    (convention_literals, "facts", "x = {'gen_ai.not.registered': 1}", ["gen_ai.not.registered"]),
    (extras_at_the_top, "facts", "import openai", ["imports openai at the top"]),
    (
        extras_at_the_top,
        "facts",
        "try:\n    from rich.table import Table\nexcept ImportError:\n    pass",
        ["imports rich"],
    ),
    (extras_at_the_top, "facts", "class A:\n    import orjson", ["imports orjson"]),
    (
        extras_at_the_top,
        "facts",
        "from opentelemetry.instrumentation.fastapi import x",
        ["imports opentelemetry.instrumentation.fastapi.x"],
    ),
    (long_files, "facts", "x = 1\n" * 401, ["401 lines"]),
    (long_functions, "facts", LONG_FUNCTION, ["long has 61 lines"]),
    (empty_names, "cost.price_utils", "", ["cost.price_utils"]),
]

KEPT = [
    (imports_against_the_order, "cost.rates", "from stagelight import facts\nfrom . import tables\nimport json"),
    (imports_against_the_order, "cli.costs", "from stagelight.sources import model\nfrom stagelight import facts"),
    (imports_against_the_order, "cost.__init__", "from stagelight.conventions.attributes import ERROR_TYPE"),
    (broad_excepts, "facts", "try:\n    x\nexcept BaseException as error:\n    note(error)\n    raise"),
    (broad_excepts, "facts", "try:\n    x\nexcept (OSError, ValueError):\n    pass"),
    (broad_excepts, "_guard", "try:\n    x\nexcept Exception:\n    pass"),
    (convention_literals, "facts", '"""About gen_ai.request.model."""\nx = "stagelight.sim"'),
    (convention_literals, "conventions.attributes", "x = 'gen_ai.request.model'"),
    (extras_at_the_top, "facts", "def f():\n    import openai"),
    (extras_at_the_top, "facts", "if TYPE_CHECKING:\n    import openai"),
    (extras_at_the_top, "facts", "import asyncio, grpc\nfrom opentelemetry.instrumentation import threading"),
    (extras_at_the_top, "embedded.app", "import starlette"),
    (long_files, "facts", '"""Generated; do not edit."""\n' + "x = 1\n" * 400),
    (long_files, "facts", "x = 1\n" * 400),
    (long_functions, "facts", DOCUMENTED),
    (empty_names, "cost.prices", ""),
]


def sample(name: str, source: str) -> Module:
    """Return a module of the package that is not on the disk."""
    return Module(f"{PACKAGE}.{name.removesuffix('.__init__')}", source, name.endswith("__init__"))


@pytest.mark.parametrize(("rule", "name", "source", "expected"), BROKEN)
def test_a_broken_rule_is_found(
    rule: Callable[[Iterable[Module]], list[str]], name: str, source: str, expected: list[str]
) -> None:
    """The rule says which module breaks it, and how."""
    problems = rule([sample(name, source)])

    assert len(problems) == len(expected)
    assert all(problem.startswith(f"{PACKAGE}.{name}") for problem in problems)
    assert all(text in problem for text, problem in zip(expected, problems, strict=True))


@pytest.mark.parametrize(("rule", "name", "source"), KEPT)
def test_what_is_allowed_is_not_found(rule: Callable[[Iterable[Module]], list[str]], name: str, source: str) -> None:
    """The rule is silent about what it allows."""
    assert rule([sample(name, source)]) == []


def test_a_cycle_of_imports_is_found() -> None:
    """Modules that need each other are named in the order in which they do; imports inside functions are free."""
    first = sample("cost.rates", "from . import tables")
    second = sample("cost.tables", "from .units import x")
    third = sample("cost.units", "from stagelight.cost.rates import y")
    later = sample("cost.units", "def f():\n    from stagelight.cost.rates import y")

    assert import_cycles([first, second, third]) == [
        "stagelight.cost.rates -> stagelight.cost.tables -> stagelight.cost.units -> stagelight.cost.rates"
    ]
    assert import_cycles([first, second, later]) == []


def test_every_module_is_looked_at() -> None:
    """The rules see the whole package, its subpackages included."""
    names = {module.name for module in MODULES}

    assert {"stagelight", "stagelight.facts", "stagelight.conventions", "stagelight.conventions.generate"} <= names
    assert len(NAMES) > 150
