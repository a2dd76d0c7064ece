"""Functions of a library and what stands around them: put on lazily, taken off back to the very same functions."""

from __future__ import annotations

import inspect
import sys
from abc import abstractmethod
from collections.abc import Callable, Sequence
from types import CoroutineType, ModuleType
from typing import Any, ClassVar, NamedTuple

from opentelemetry.instrumentation.instrumentor import (  # type: ignore[attr-defined]  # not in its __all__
    BaseInstrumentor,
)
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from stagelight.integrations._wrapped import is_wrapped_function, wrapped_function

__all__ = ["Patching", "Target", "Wrapper"]

Wrapper = Callable[[Callable[..., Any], Any, tuple[Any, ...], dict[str, Any]], Any]
"""What stands around a function: called with the function, its instance, its arguments and its keywords."""


class Target(NamedTuple):
    """A function of a library and what stands around it."""

    module: str
    path: str
    """Where it is in the module: ``Class.method``, or ``function``."""
    around: Wrapper
    around_async: Wrapper | None = None
    """Stands around the function where that is a coroutine function; default ``around``."""


class _Patch(NamedTuple):
    owner: Any
    name: str
    wrapper: Any

    def remove(self) -> None:
        """Put back the function inside the wrapper; another integration's wrapper around it is given it instead."""
        outer = vars(self.owner).get(self.name)
        if outer is self.wrapper:
            setattr(self.owner, self.name, self.wrapper.__wrapped__)
            return
        while is_wrapped_function(outer):
            if outer.__wrapped__ is self.wrapper:
                outer.__wrapped__ = self.wrapper.__wrapped__
                return
            outer = outer.__wrapped__
        # Somebody else has wrapped our wrapper: it stays and passes everything through.


class Patching(BaseInstrumentor):  # type: ignore[misc]  # the base class is not typed
    """What to wrap is a table, the rest is here.

    Nothing is imported by switching on: functions are wrapped when their module is, or already has been, imported.
    """

    _switched_on = False
    _switched = 0
    """How often it was switched on."""
    _hooked: ClassVar[set[str]] = set()
    _patches: ClassVar[list[_Patch]] = []

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._hooked, cls._patches = set(), []

    @property
    @abstractmethod
    def targets(self) -> Sequence[Target]:
        """What is wrapped."""

    def _instrument(self, **_: Any) -> None:
        import wrapt

        self._switched_on = True
        self._switched += 1
        for module in dict.fromkeys(target.module for target in self.targets):
            if module in sys.modules:
                self._wrap_all(sys.modules[module])
            elif module not in self._hooked:
                self._hooked.add(module)
                wrapt.register_post_import_hook(self._wrap_all, module)

    def _uninstrument(self, **_: Any) -> None:
        self._switched_on = False
        while self._patches:
            self._patches.pop().remove()

    def _wrap_all(self, module: ModuleType) -> None:
        if self._switched_on:
            for target in self.targets:
                if target.module == module.__name__:
                    self._wrap(module, target)

    def _wrap(self, module: ModuleType, target: Target) -> None:
        class_name, _, name = target.path.rpartition(".")
        owner = getattr(module, class_name, None) if class_name else module
        original = vars(owner).get(name) if owner is not None else None
        if original is None:  # a function that this version of the library does not have
            return
        is_async = inspect.iscoroutinefunction(original)
        around = (target.around_async if is_async else None) or target.around
        wrapper = wrapped_function(owner, name, self._while_on(around))
        setattr(owner, name, wrapper)
        self._patches.append(_Patch(owner, name, wrapper))

    def _while_on(self, around: Wrapper) -> Wrapper:
        # A wrapper that could not be removed must stay silent when the library is instrumented again.
        switched = self._switched

        def wrapper(wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not self._switched_on or switched != self._switched or not is_instrumentation_enabled():
                return wrapped(*args, **kwargs)
            result = around(wrapped, instance, args, kwargs)
            if isinstance(result, CoroutineType):
                # What tasks, warnings and debuggers call it.
                result.__name__ = getattr(wrapped, "__name__", result.__name__)
                result.__qualname__ = getattr(wrapped, "__qualname__", result.__qualname__)
            return result

        return wrapper
