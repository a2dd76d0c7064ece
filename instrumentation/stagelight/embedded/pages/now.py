"""What the page Now shows: is it healthy, what does it cost, what is slow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from markupsafe import Markup

from stagelight.embedded.pages import charts, ranges, stages, units
from stagelight.embedded.pages.state import State, judge
from stagelight.facts import STAGES
from stagelight.sources import format as written
from stagelight.sources.model import (
    Bucket,
    CostRow,
    Description,
    ErrorRow,
    LatencyRow,
    SeriesName,
    Source,
    Totals,
    TurnOrder,
    TurnRow,
)

__all__ = ["ERRORS", "LISTED_MODELS", "STAGES_SHOWN", "TURNS", "Figure", "ModelRow", "Now", "look"]

TURNS = 25
"""Turns listed."""
ERRORS = 20
"""Kinds of errors listed."""
LISTED_MODELS = 5
"""Models with a row and a colour of their own; the rest share one."""
_MOST_PLACES = 6
STAGES_SHOWN = len(STAGES) + 2
"""Stages listed: telemetry may invent any number of them."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the large figures."""

    name: str
    value: str
    unit: str
    note: str
    spark: Markup
    target: str
    """Address of the rows behind the figure."""


@dataclass(frozen=True, slots=True)
class ModelRow:
    """Spend of one model, or of all that have no row of their own."""

    name: str
    style: str
    calls: int
    used: str
    price: str
    """``exact``, ``estimated``, ``partial`` or ``unpriced``: the weakest of its calls."""
    explained: str
    cost: Decimal
    is_unpriced: bool
    """Whether no call has a price, so that the cost of 0 means nothing."""


@dataclass(frozen=True, slots=True)
class Now:
    """Everything on the page."""

    now_ns: int
    chosen: ranges.Range
    order: TurnOrder
    state: State
    today: Totals
    description: Description
    totals: Totals
    figures: tuple[Figure, ...]
    spend: charts.Chart
    models: tuple[ModelRow, ...]
    model_places: int
    latency: charts.Chart
    stages: tuple[tuple[LatencyRow, str], ...]
    turns: tuple[TurnRow, ...]
    turn_places: int
    turn_stages: tuple[str, ...]
    """Stages in the bars of the turns."""
    errors: tuple[ErrorRow, ...]
    more_errors: int
    """Kinds of errors that are not listed."""

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever stored."""
        return not self.description.spans and not self.description.usage and not self.description.logs


def look(source: Source, chosen: ranges.Range, order: TurnOrder, now_ns: int) -> Now:
    """Read the page's figures for the range that ends now."""
    window = chosen.window(now_ns)
    totals = source.totals(window)
    errors = source.errors(window)
    latency = source.latency(window, "stage")
    models = source.cost(window, "model")
    spend = source.series("spend", window, chosen.steps)
    turns = source.turns(window, TURNS, order=order)
    keys = tuple(charts.Key(row.key, f"m-{rank}") for rank, row in enumerate(models[:LISTED_MODELS], start=1))
    by_stage = {row.key: row for row in latency if row.key not in {"turn", "job"}}
    calls = [by_stage[stage] for stage in stages.in_order(by_stage)[:STAGES_SHOWN]]
    total = f"{units.money(totals.spend)} USD"
    return Now(
        now_ns=now_ns,
        chosen=chosen,
        order=order,
        state=judge(totals, latency, errors, chosen),
        today=source.totals(ranges.today(now_ns)),
        description=source.describe(),
        totals=totals,
        figures=_figures(source, chosen, now_ns, totals, spend),
        spend=charts.bars_over_time(
            spend, keys, window=window, label=f"Spend by model {chosen.words}: {total} in total", figure=_usd
        ),
        models=tuple(_model_rows(models)),
        model_places=_places(row.cost for row in models),
        latency=charts.lines_over_time(
            source.series("latency", window, chosen.steps),
            [charts.Key(row.key, stages.style(row.key)) for row in calls],
            window=window,
            label=f"95th percentile of the duration of calls by stage {chosen.words}",
            figure=units.axis_seconds,
        ),
        stages=tuple((row, stages.style(row.key)) for row in calls),
        turns=tuple(turns),
        turn_stages=stages.in_order({bar.stage for turn in turns for bar in turn.bars})[:STAGES_SHOWN],
        turn_places=_places(turn.cost for turn in turns),
        errors=tuple(errors[:ERRORS]),
        more_errors=max(len(errors) - ERRORS, 0),
    )


def _places(amounts: Iterable[Decimal | None]) -> int:
    """Decimals of a column: what its smallest amount needs, up to a point; a call of less reads ``<0.000 001``."""
    return min(written.money_places(amounts), _MOST_PLACES)


def _usd(amount: float) -> str:
    return f"{units.axis_money(amount)}\u00a0USD"


def _figures(
    source: Source, chosen: ranges.Range, now_ns: int, totals: Totals, spend: Sequence[Bucket]
) -> tuple[Figure, ...]:
    window = chosen.window(now_ns)

    def series(name: SeriesName, read: Callable[[Bucket], float | None]) -> list[float | None]:
        return [read(bucket) for bucket in source.series(name, window, chosen.steps)]

    here = f"?range={chosen.name}"
    per_turn = units.money(totals.spend / totals.turns) if totals.turns else None
    first = units.seconds(totals.first_token_p95_s).partition("\u00a0")
    return (
        Figure(
            "Spend",
            units.money(totals.spend),
            "USD",
            _spend_note(totals, per_turn),
            charts.sparkline([sum(bucket.values.values()) for bucket in spend]),
            f"{here}#spend",
        ),
        Figure(
            "Turns",
            units.count(totals.turns),
            "",
            units.counted(totals.calls, "billable call"),
            charts.sparkline(series("turns", lambda bucket: bucket.values.get("turns", 0.0))),
            f"{here}#turns",
        ),
        Figure(
            "Errors",
            units.count(totals.errors),
            "",
            units.counted(totals.failed_turns, "failed turn"),
            charts.sparkline(series("errors", lambda bucket: bucket.values.get("errors", 0.0))),
            f"{here}#errors",
        ),
        Figure(
            "First token, p95",
            first[0],
            first[2],
            "from the start of a turn",
            charts.sparkline(series("first_token", lambda bucket: bucket.values.get("p95")), style="line"),
            f"{here}&order=slowest#turns",
        ),
    )


def _spend_note(totals: Totals, per_turn: str | None) -> str:
    if totals.unpriced:
        return f"without {units.counted(totals.unpriced, 'unpriced call')}"
    if totals.partial:
        return f"at least: {units.counted(totals.partial, 'call')} partly priced"
    return f"{per_turn} USD per turn" if per_turn else "no turn yet"


def _model_rows(rows: Sequence[CostRow]) -> Iterator[ModelRow]:
    for rank, row in enumerate(rows[:LISTED_MODELS], start=1):
        yield _model_row([row], row.key, f"m-{rank}")
    if rest := rows[LISTED_MODELS:]:
        yield _model_row(rest, units.counted(len(rest), "more model"), "rest")


def _model_row(rows: Sequence[CostRow], name: str, style: str) -> ModelRow:
    calls = sum(row.calls for row in rows)
    counts = {
        "unpriced": sum(row.unpriced for row in rows),
        "partial": sum(row.partial for row in rows),
        "estimated": sum(row.estimated for row in rows),
        "exact": sum(row.exact for row in rows),
    }
    weakest = next((status for status, number in counts.items() if number), "exact")
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row.reasons)
        reasons.update({f"no price for {component}": number for component, number in row.missing.items()})
    return ModelRow(
        name=units.visible(name, 80),
        style=style,
        calls=calls,
        used=_used(rows),
        price=weakest if counts[weakest] == calls else f"{units.count(counts[weakest])} {weakest}",
        explained="; ".join(
            [f"{units.count(number)} {status}" for status, number in counts.items() if number]
            + [f"{units.count(number)} {units.visible(reason, 60)}" for reason, number in reasons.most_common(8)]
        ),
        cost=sum((row.cost for row in rows), Decimal(0)),
        is_unpriced=counts["unpriced"] == calls,
    )


def _used(rows: Sequence[CostRow]) -> str:
    pairs = (
        (sum(row.input_tokens for row in rows), "in"),
        (sum(row.output_tokens for row in rows), "out"),
        (sum(row.characters for row in rows), "characters"),
    )
    parts = [f"{units.count(number)}\u00a0{unit}" for number, unit in pairs if number]
    if not parts and (heard := sum(row.audio_seconds for row in rows)):
        parts.append(units.seconds(heard))
    return ", ".join(parts) or written.UNKNOWN
