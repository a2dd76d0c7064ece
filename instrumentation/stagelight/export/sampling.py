"""The sampler that ``OTEL_TRACES_SAMPLER`` asks for, where the SDK would not know it or complain in its own words."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler

from stagelight import standard
from stagelight._guard import quietly

__all__ = ["sampler"]

_VARIABLE = "OTEL_TRACES_SAMPLER"


def sampler(environment: Mapping[str, str]) -> Sampler | None:
    """The sampler to use; ``None`` leaves the choice to the SDK, which reads the same variables.

    A wrong name or share keeps everything, as the standard's default does.
    """
    if any(problem.variable.startswith(_VARIABLE) for problem in standard.problems(environment)):
        return DEFAULT_ON
    name = environment.get(_VARIABLE, "").strip()
    if not name or name.lower() in standard.SAMPLERS:
        return None
    kept: Sampler = DEFAULT_ON
    return quietly("load the sampler", lambda: _installed(name, environment.get(f"{_VARIABLE}_ARG")), kept)


def _installed(name: str, argument: str | None) -> Sampler:
    from importlib.metadata import entry_points

    [entry, *_] = entry_points(group="opentelemetry_traces_sampler", name=name)
    made: Sampler = entry.load()(argument)
    return made
