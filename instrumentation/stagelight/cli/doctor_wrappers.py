"""Who stands around the calls of a client because the application's code says so: for ``stagelight doctor --app``.

Some packages have no entry point and are switched on by a line of code, which puts functions of theirs in the place of
the client's. They are seen in an interpreter that has imported the application as ``stagelight run`` would start it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any, Final, cast

from stagelight.cli.autopath import first_on_the_path
from stagelight.cli.run import NAME
from stagelight.standard import CHOICE

__all__ = ["CannotImport", "look", "wrappers_in"]

_PATIENCE_S: Final = 120.0
"""Some applications load a model when they are imported."""
_MOST_LAYERS: Final = 20
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]*")
_SILENT: Final = dict.fromkeys(("OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"), "none")
_CHILD: Final = "from stagelight.cli.doctor_wrappers import _report; _report()"


class CannotImport(Exception):  # noqa: N818 - said of the application, not of us
    """The application cannot be imported here; the message says why."""


def wrappers_in(module: str, libraries: Collection[str]) -> Mapping[str, Sequence[str]]:
    """Distributions whose functions stand around calls of each library once the application is imported.

    Args:
        module: the application's, as servers take it: ``shop.main`` or ``shop.main:app``.
        libraries: names of distributions.

    Raises:
        CannotImport: the import fails, ends the process or takes longer than two minutes.
    """
    chosen = {**dict.fromkeys(CHOICE, NAME), "PYTHONPATH": first_on_the_path(os.environ.get("PYTHONPATH", ""))}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "wrappers.json"
        command = [sys.executable, "-c", _CHILD, str(answer), module.partition(":")[0], *libraries]
        try:
            done = subprocess.run(  # noqa: S603 - our own interpreter
                command,
                env={**os.environ, **_SILENT, **chosen},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_PATIENCE_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CannotImport(f"importing it takes longer than {_PATIENCE_S:g} s") from None
        if not answer.is_file():
            last = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise CannotImport(last or f"importing it ends the process with {done.returncode}")
        found: dict[str, list[str]] = json.loads(answer.read_text(encoding="utf-8"))
        return found


def _report() -> None:
    """In the other interpreter: import, look, write, and leave whatever the application has started."""
    answer, module, *libraries = sys.argv[1:]
    importlib.import_module(module)
    Path(answer).write_text(json.dumps(look(libraries)), encoding="utf-8")
    os._exit(0)


def look(libraries: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """Names and versions of the distributions whose functions stand around those of each library in this process.

    Those that the library itself requires are part of it, and ours are known.
    """
    owners = packages_distributions()
    roots = {root: library for library in libraries for root in _roots(library, owners)}
    makers: dict[str, set[str]] = {}
    for module, value in _functions(roots):
        library = _library_of(module, roots)
        if library is not None:
            makers.setdefault(library, set()).update(
                name for name in _makers(value) if _is_strange(name, library, roots)
            )
    found = {library: {_distribution_of(name, owners) for name in names} for library, names in makers.items()}
    return {library: sorted(_foreign(names - {None}, library)) for library, names in found.items()}


def _roots(library: str, owners: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Packages of a library; in a name that several share, ``google`` of ``google-genai``, the part of its own."""
    normal = _normal(library)
    for top, names in owners.items():
        if normal in map(_normal, names):
            yield top if len(set(names)) == 1 else normal.replace("-", ".")


def _library_of(module: object, roots: Mapping[str, str]) -> str | None:
    """The library that a module belongs to."""
    while isinstance(module, str) and module:
        if module in roots:
            return roots[module]
        module = module.rpartition(".")[0]
    return None


def _is_strange(maker: str, library: str, roots: Mapping[str, str]) -> bool:
    return _library_of(maker, roots) != library and maker.partition(".")[0] != "stagelight"


def _foreign(names: Iterable[Any], library: str) -> Iterator[str]:
    own = _required(_normal(library), set())
    yield from (f"{name} {distribution(name).version}" for name in names if _normal(name) not in own)


def _functions(roots: Mapping[str, str]) -> Iterator[tuple[object, object]]:
    """What is called in the modules, classes and existing clients of the libraries, and where that is."""
    for name, module in list(sys.modules.items()):
        if _library_of(name, roots) is None:
            continue
        for value in list(vars(module).values()):
            if _is_wrapper(value):  # other functions of others are only imported there
                yield name, value
            elif isinstance(value, type):
                yield from ((value.__module__, one) for one in list(vars(value).values()))
    for thing in gc.get_objects():
        place = type(thing).__module__
        if not isinstance(thing, type) and _library_of(place, roots) is not None:
            yield from ((place, one) for one in list(getattr(thing, "__dict__", {}).values()))


def _makers(value: object) -> Iterator[str]:
    """Modules that the function and every wrapper around it are from, from the outside in."""
    for _ in range(_MOST_LAYERS):
        kind = type(value)  # some objects import or connect when they are asked for their class
        if issubclass(kind, staticmethod | classmethod | MethodType):
            value = cast("MethodType", value).__func__
        elif _is_wrapper(value):
            yield _maker(cast("Any", value)._self_wrapper)  # noqa: SLF001 - wrapt has no public name for it
            value = cast("Any", value).__wrapped__
        elif issubclass(kind, FunctionType):
            yield _maker(value)
            value = vars(value).get("__wrapped__")
        else:
            return


def _is_wrapper(value: object) -> bool:
    from wrapt import FunctionWrapper

    return issubclass(type(value), FunctionWrapper)


def _maker(function: Any) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    # What functools.wraps copies is the name of the module of the function inside.
    return str(function.__globals__["__name__"] if isinstance(function, FunctionType) else type(function).__module__)


def _distribution_of(module: str, owners: Mapping[str, Sequence[str]]) -> str | None:
    """The distribution that a module is from; ``None`` for the application's own and the standard library's."""
    names = sorted(set(owners.get(module.partition(".")[0], ())))
    if len(names) < 2:
        return names[0] if names else None
    path = Path(getattr(sys.modules.get(module), "__file__", None) or "").resolve()
    for name in names:
        one = distribution(name)
        if any(one.locate_file(file) == path for file in one.files or () if file.name == path.name):
            return name
    return None


def _required(name: str, seen: set[str]) -> set[str]:
    """A distribution and all that it requires."""
    if name not in seen:
        seen.add(name)
        try:
            lines = distribution(name).requires or ()
        except PackageNotFoundError:
            return seen
        for line in lines:
            if "extra ==" not in line:
                _required(_normal(_NAME.findall(line)[0]), seen)
    return seen


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
