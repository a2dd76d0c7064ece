"""Switching an integration on and off, and what it says of itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar, NamedTuple

from stagelight.facts import Stage
from stagelight.integrations._http import HttpRequests
from stagelight.integrations._patching import Patching, Target, Wrapper

__all__ = ["Coverage", "Instrumentor", "Target", "Wrapper"]


class Coverage(NamedTuple):
    """What an integration says of itself; the documentation of the integrations is made of it.

    All texts are Markdown. The client's name and versions are the instrumentor's ``distribution`` and ``supported``.
    """

    title: str
    """Name of the client or provider as people know it: ``OpenAI``."""
    calls: Mapping[str, Stage]
    """Calls as users write them (``chat.completions.create``) and the stage each is recorded as."""
    ways: str
    """In which ways of calling: ``sync and async; plain and streamed``."""
    recorded: tuple[str, ...] = ()
    """What is recorded beyond what every call of the stage has, and where it is read; a sentence each."""
    not_recorded: tuple[str, ...] = ()
    """What is left alone, and what cannot be known and why; a sentence each."""


class Instrumentor(Patching):
    """Base of the integrations."""

    distribution: ClassVar[str]
    """Name of the library's distribution."""
    supported: ClassVar[str]
    """Accepted versions, as a requirement: ``openai >= 1.60, < 4``."""
    coverage: ClassVar[Coverage]
    """What is recorded, for the documentation."""
    package: ClassVar[str] = ""
    """Top-level package of the library's classes; default the distribution's name with ``_`` for ``-``."""

    counts_requests: ClassVar[bool] = True
    """Whether the HTTP requests of its calls are counted."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.package = cls.package or cls.distribution.replace("-", "_")

    def instrumentation_dependencies(self) -> Collection[str]:
        return (self.supported,)

    def switch_on(self) -> bool:
        """Instrument the library if it is installed; imports nothing of it.

        Returns:
            Whether its calls are recorded from now on: False when it is missing or its version is not supported.
        """
        try:
            version(self.distribution)
        except PackageNotFoundError:
            return False
        if not self.is_instrumented_by_opentelemetry:
            self.instrument()
        return bool(self.is_instrumented_by_opentelemetry)

    def _instrument(self, **_: Any) -> None:
        super()._instrument()
        if self.counts_requests:
            HttpRequests().serve(type(self))

    def _uninstrument(self, **_: Any) -> None:
        super()._uninstrument()
        if self.counts_requests:
            HttpRequests().leave(type(self))
