"""How spans begin: the sampler and the ids that the standard variables ask for.

The SDK would not know some of them, or complain in its own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, Sampler

from stagelight import standard
from stagelight._guard import quietly

__all__ = ["id_generator", "sampler"]

_VARIABLE = "OTEL_TRACES_SAMPLER"
_IDS = "OTEL_PYTHON_ID_GENERATOR"
_RATIOS: Mapping[str, Sampler] = {"traceidratio": ALWAYS_ON, "parentbased_traceidratio": DEFAULT_ON}


def sampler(environment: Mapping[str, str]) -> Sampler | None:
    """The sampler to use; ``None`` leaves the choice to the SDK, which reads the same variables.

    A ratio without a share keeps everything, as the standard says; the SDK would do so too, and complain.
    """
    name = environment.get(_VARIABLE, "").strip()
    argument = environment.get(f"{_VARIABLE}_ARG")
    if name.lower() in _RATIOS and argument is None:
        return _RATIOS[name.lower()]
    if not name or name.lower() in standard.SAMPLERS:
        return None
    kept: Sampler = DEFAULT_ON
    return quietly("load the sampler", partial(_made, "opentelemetry_traces_sampler", name, argument), kept)


def id_generator(environment: Mapping[str, str]) -> IdGenerator | None:
    """The generator of ids to use; ``None`` leaves them to the SDK, whose ids are random."""
    name = environment.get(_IDS, "").strip()
    if not name:
        return None
    none: IdGenerator | None = None
    return quietly("load the generator of ids", partial(_made, "opentelemetry_id_generator", name), none)


def _made(group: str, name: str, *arguments: str | None) -> Any:
    from importlib.metadata import entry_points

    [entry, *_] = entry_points(group=group, name=name)
    return entry.load()(*arguments)
