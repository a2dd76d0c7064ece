"""Functions with a wrapper around them, which are copied and pickled as the functions themselves are."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from functools import cache
from types import ModuleType
from typing import Any, SupportsIndex

__all__ = ["is_wrapped_function", "wrapped_function"]

_Reduced = tuple[Callable[..., Any], tuple[Any, ...]]


class _Function:
    """A function of a class or module: its own copy; a pickle names its place, so it can be read without wrappers."""

    _self_place: tuple[Any, str]

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

    def __reduce__(self) -> _Reduced | str:
        owner, name = self._self_place
        return name if isinstance(owner, ModuleType) else (getattr, (owner, name))

    def __reduce_ex__(self, protocol: SupportsIndex) -> _Reduced | str:
        return self.__reduce__()


class _BoundFunction:
    """The function taken from its class, or from an instance: then it is copied and pickled with the instance."""

    __name__: str
    _self_instance: Any
    _self_parent: Any

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._self_instance is None:
            return self
        instance = deepcopy(self._self_instance, memo)
        return self._self_parent.__get__(instance, type(instance))

    def __reduce__(self) -> _Reduced:
        if self._self_instance is None:
            reduced: _Reduced = self._self_parent.__reduce__()
            return reduced
        return getattr, (self._self_instance, self.__name__)

    def __reduce_ex__(self, protocol: SupportsIndex) -> _Reduced:
        return self.__reduce__()


@cache
def _kind() -> Callable[..., Any]:
    import wrapt

    bound = type("WrappedBoundFunction", (_BoundFunction, wrapt.BoundFunctionWrapper), {})
    return type("WrappedFunction", (_Function, wrapt.FunctionWrapper), {"__bound_function_wrapper__": bound})


def wrapped_function(owner: Any, name: str, wrapper: Callable[..., Any]) -> Any:
    """The function ``name`` of the class or module ``owner`` with ``wrapper`` around it, for ``setattr``."""
    wrapped = _kind()(vars(owner)[name], wrapper)
    wrapped._self_place = (owner, name)  # noqa: SLF001 - a name so begun is the wrapper's own, not the function's
    return wrapped


def is_wrapped_function(value: Any) -> bool:
    """Whether ``value`` is one that ``wrapped_function`` made."""
    return isinstance(value, _Function)
