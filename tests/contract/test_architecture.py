"""The package keeps its shape: the rules of its architecture hold, and each is known to be able to fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType

import pytest
import stagelight
from architecture import (
    NAMES,
    RULES,
    broad_excepts,
    convention_literals,
    empty_names,
    extras_at_the_top,
    import_cycles,
    imports_against_the_order,
    long_files,
    long_functions,
)
from package_modules import MODULES, PACKAGE, Module


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
