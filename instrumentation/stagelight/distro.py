"""The full set-up before the application runs: for ``opentelemetry-instrument`` and for ``sitecustomize``.

``opentelemetry-instrument`` takes a distribution and a configurator by their entry points; ``OTEL_PYTHON_DISTRO`` and
``OTEL_PYTHON_CONFIGURATOR`` choose them by name, otherwise the first that is found wins.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NoReturn

from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]  # not in its __all__

from stagelight import instrumentations, standard
from stagelight._guard import guard
from stagelight.configure import set_up_first
from stagelight.export.urls import remove_secrets
from stagelight.settings import SettingsError

__all__ = ["AUTOPATH", "NAME", "StagelightConfigurator", "StagelightDistro", "activate"]

NAME: Final = "stagelight"
"""Of both entry points."""
AUTOPATH: Final = Path(__file__).parent / "autopath"
"""The folder whose ``sitecustomize`` activates; it goes onto ``PYTHONPATH``."""

logger = logging.getLogger("stagelight")

_LATE: Final = {
    "fastapi": "fastapi",
    "httpx": "httpx",
    "httpx2": "httpx2",
    "starlette": "starlette.applications",
}
"""Official instrumentations that import their library, and the module after whose import they are switched on."""


_NO_SPANS_OF: Final = ["receive", "send"]
"""Of every chunk that is received or sent, which is one per token of a streamed answer."""
_GIVEN: Final[Mapping[str, Mapping[str, Any]]] = {
    "fastapi": {"server_request_hook": remove_secrets, "exclude_spans": _NO_SPANS_OF},
}
"""What official instrumentations are given. Those of servers note a URL's query after the span has started."""


class StagelightDistro(BaseDistro):  # type: ignore[misc]  # the base class is not typed
    """Switches on what is installed, each library once."""

    def _configure(self, **_: Any) -> None:
        """There is nothing to choose: ``OTEL_*`` and ``STAGELIGHT_*`` say everything."""

    def load_instrumentor(self, entry_point: EntryPoint, **kwargs: Any) -> None:
        """Switch on one instrumentation; ours have been by the configurator."""
        done = _set_up()
        if entry_point.name.startswith(instrumentations.PREFIX) or not done.settings.instrument:
            return
        library = instrumentations.stands_for(entry_point, instrumentations.libraries_of(done.instrumented))
        if library is not None:
            logger.info(
                "stagelight records %s: the instrumentation %r stays off; to have it instead, put the name of ours "
                "into OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
                library,
                entry_point.name,
            )
            _take_the_place_of(entry_point)
        elif entry_point.name in _LATE:
            # One package has an instrumentation of httpx and one of httpx2, and is found where either is installed.
            if find_spec(_LATE[entry_point.name].partition(".")[0]) is not None:
                _switch_on_late(entry_point, kwargs)
        else:
            _switch_on(entry_point.name, entry_point.load()(), kwargs)


class StagelightConfigurator:
    """Sets up providers, runtime and our own instrumentations by the environment."""

    def configure(self, **_: Any) -> None:
        """Called once, before any instrumentation is switched on."""
        _set_up()


def _set_up() -> Any:
    try:
        return set_up_first()
    except SettingsError as error:
        _refuse(error)


def _refuse(error: SettingsError) -> NoReturn:
    """In strict mode a wrong setting ends the process: whoever catches exceptions on the way would let it go on."""
    print(f"stagelight: {error} (fatal because STAGELIGHT_STRICT is set)", file=sys.stderr, flush=True)
    os._exit(1)


def _take_the_place_of(entry_point: EntryPoint) -> None:
    """An application that switches it on itself hears that the library is instrumented already, and counts once."""
    import wrapt

    def loaded(module: ModuleType) -> None:
        with guard("take the place of an instrumentation"):
            getattr(module, entry_point.attr)._is_instrumented_by_opentelemetry = True  # noqa: SLF001 - no public way

    wrapt.register_post_import_hook(loaded, entry_point.module)


_waiting: dict[str, list[tuple[EntryPoint, dict[str, Any]]]] = {}
"""Instrumentations to switch on late, by the module that holds them."""


def _switch_on_late(entry_point: EntryPoint, kwargs: dict[str, Any]) -> None:
    import wrapt

    _waiting.setdefault(entry_point.module, []).append((entry_point, kwargs))

    def imported(_: ModuleType) -> None:
        own = sys.modules.get(entry_point.module)
        if own is not None and not hasattr(own, entry_point.attr):
            return  # it is what imports the library, and calls this again when it is complete
        # All that the module holds at once: that of httpx imports httpx2 as well.
        for waiting, given in _waiting.pop(entry_point.module, ()):
            with guard(f"load the instrumentation {waiting.name}"):
                _switch_on(waiting.name, waiting.load()(), given)

    for module in (_LATE[entry_point.name], entry_point.module):
        wrapt.register_post_import_hook(imported, module)


def _switch_on(name: str, instrumentor: Any, kwargs: dict[str, Any]) -> None:
    """One that fails is left out, and said; OpenTelemetry's own loader would leave out all that come after it."""
    with guard(f"switch on {name}"):
        if name == "starlette":
            _each_starlette(instrumentor)
        elif not instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.instrument(**_GIVEN.get(name, {}), **kwargs)


def _each_starlette(instrumentor: Any) -> None:
    """Instrument every application that is Starlette's own; FastAPI's, which are Starlette's too, have their own."""
    import wrapt

    def made(init: Callable[..., None], app: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        init(*args, **kwargs)
        if "fastapi.applications" in sys.modules and isinstance(app, sys.modules["fastapi.applications"].FastAPI):
            return
        with guard("instrument a Starlette application"):
            instrumentor.instrument_app(app, server_request_hook=remove_secrets)
            for middleware in app.user_middleware:
                if middleware.cls.__module__.startswith("opentelemetry."):
                    middleware.kwargs.setdefault("exclude_spans", _NO_SPANS_OF)

    wrapt.wrap_function_wrapper("starlette.applications", "Starlette.__init__", made)


def activate() -> None:
    """Do what ``opentelemetry-instrument`` does, in this process, with this distribution unless another is chosen."""
    from opentelemetry.instrumentation.auto_instrumentation import initialize

    with standard.withheld(*standard.refused(*standard.CHOICE, standard.GEVENT)):
        others = os.environ.get(standard.CHOICE[0], "").strip() not in {"", NAME}
        ours = () if others else tuple(name for name in standard.CHOICE if name not in os.environ)
        os.environ.update(dict.fromkeys(ours, NAME))
        try:
            initialize()
        finally:
            for name in ours:
                del os.environ[name]
        _set_up()  # joins, where another distribution was chosen
