"""The page of settings, ``docs/settings.md``, as their tables say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from stagelight.settings import ROWS, table
from stagelight.standard import NUMBERS, OFFICIAL, StandardRow
from stagelight.standard import ROWS as STANDARD

__all__ = ["page"]

_HEAD: Final = """\
# Settings

<!-- Generated from settings.py and standard.py by `make generate`; do not edit. -->

Stagelight is set up by environment variables. OpenTelemetry's own rule wherever it has one; `STAGELIGHT_*` exists only
for what it lacks. How they come into force without a change of code: [activation](activation.md).

A wrong value is one line on standard error with the variable, the value and what is accepted. The application starts
all the same, without the part that the variable is for. With `STAGELIGHT_STRICT=1` it does not start.
`stagelight doctor` finds wrong values before, and also misspelt names.

## Stagelight's own

Each is also a keyword of `stagelight.configure()`; a keyword wins over the variable, the variable over the default.
"""

_STANDARD: Final = """
## OpenTelemetry's

Those with one variable per signal take `TRACES`, `METRICS` or `LOGS` for `{signal}`; that of a signal wins over the
common one. With a wrong endpoint, header, time, compression, certificate or exporter, the signal is not exported.
"""

_NUMBERS: Final = """
Bounds, times and kinds of metrics. The defaults are those in force, some of them ours:
"""

_OFFICIAL: Final = """
What the official instrumentations read, and what has no effect here:
"""

_END: Final = """
Other variables that an instrumentation reads work as it documents them. Of lists, the parts that are accepted keep
their effect, but for propagators and exporters. A variable without a value is not set. Wrong parts of lists and of
`OTEL_PYTHON_*` are taken out of the environment of the process, because they are read again at the first request and in
forked children; every other variable stays as it is.

`opentelemetry-instrument` imports OpenTelemetry before Stagelight is found: it ends at once with a wrong
`OTEL_PROPAGATORS`, takes OpenTelemetry's own distribution with a wrong `OTEL_PYTHON_DISTRO`, and has words of its own
about a wrong `OTEL_PYTHON_CONTEXT`, `OTEL_PYTHON_CONFIGURATOR` or
`OTEL_PYTHON_AUTO_INSTRUMENTATION_EXPERIMENTAL_GEVENT_PATCH`.

## Verify

`stagelight doctor`, run with the variables of the application, shows what each of them does; secrets are not shown.
"""


def page() -> str:
    """The page as it should be."""
    keywords = ["| keyword | variable |", "|---|---|", *(f"| `{row.field}` | `{row.variable}` |" for row in ROWS)]
    own = f"{_HEAD}\n{table()}\n\n" + "\n".join(keywords) + "\n"
    return (
        own
        + _STANDARD
        + "\n"
        + _table(STANDARD)
        + _NUMBERS
        + "\n"
        + _table(NUMBERS)
        + _OFFICIAL
        + "\n"
        + _table(OFFICIAL)
        + _END
    )


def _table(rows: Iterable[StandardRow]) -> str:
    lines = ["| variable | accepted | default | meaning |", "|---|---|---|---|"]
    lines += [f"| {'<br>'.join(_names(row))} | {row.accepted} | {row.default} | {row.doc} |" for row in rows]
    return "\n".join(lines) + "\n"


def _names(row: StandardRow) -> Iterator[str]:
    yield from (f"`{name}`" for name in (row.variable, row.signals) if name)
