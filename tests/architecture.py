"""Rules of the package's shape: who may import whom, who may catch everything, where names and sizes belong.

Each rule is a function from parsed modules to problems.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable

from package_modules import PACKAGE, Module, imported, nodes_outside_functions
from stagelight.conventions import attributes, events, metrics

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


def imports_against_the_order(modules: Iterable[Module]) -> list[str]:
    """Units import only what stands below them."""
    problems = []
    for module in modules:
        unit = module.unit
        if not unit:
            continue
        if unit not in ORDER and unit not in READERS:
            problems.append(f"{module.name}: has no place in ORDER or READERS of tests/architecture.py")
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
