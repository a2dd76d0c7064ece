"""Questions to the back ends over their HTTP interfaces."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

Labels = frozenset[tuple[str, str]]
_TIMEOUT_S = 60.0


class Refused(AssertionError):  # noqa: N818 - reads as what is wrong
    """A back end did not answer with success; the message has its answer."""


def request(method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """The body of a successful answer.

    Raises:
        Refused: the status is not in the two hundreds.
    """
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=_TIMEOUT_S)
    try:
        connection.request(method, f"{address.path}?{address.query}", body, dict(headers or {}))
        response = connection.getresponse()
        answer = response.read()
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise Refused(f"{method} {url}: {response.status} {answer[:2000].decode(errors='replace')}")
    return answer


def get(url: str, **parameters: str | float) -> Any:
    """The JSON of a GET with these query parameters."""
    return json.loads(request("GET", f"{url}?{urlencode(parameters)}"))


def exposed(url: str, name: str) -> dict[str, float]:
    """The series of a metric that a program offers to Prometheus, as it prints them; none before there is a value.

    Args:
        url: base URL of the program's metrics.
        name: of the metric.
    """
    printed = request("GET", f"{url}/metrics").decode().splitlines()
    found = (line.rpartition(" ") for line in printed if line.startswith((f"{name}{{", f"{name} ")))
    return {own: float(value) for own, _, value in found}


def series(prometheus: str, promql: str, *, at: float | None = None) -> dict[Labels, float]:
    """Result of an instant query, by labels, the metric's name included.

    Args:
        prometheus: base URL.
        promql: gives a vector or a scalar.
        at: Unix time of the evaluation; now when left out.
    """
    when = {} if at is None else {"time": at}
    data = get(f"{prometheus}/api/v1/query", query=promql, **when)["data"]
    if data["resultType"] == "scalar":
        return {frozenset(): float(data["result"][1])}
    return {frozenset(one["metric"].items()): float(one["value"][1]) for one in data["result"]}


def number(prometheus: str, promql: str, *, at: float | None = None) -> float | None:
    """Result of an instant query that gives one value at most."""
    found = series(prometheus, promql, at=at)
    assert len(found) <= 1, f"{promql} gives {len(found)} values"
    return next(iter(found.values()), None)


def exemplars(prometheus: str, promql: str, *, since_s: float = 3600) -> list[dict[str, Any]]:
    """Exemplars of the series that a query reads."""
    now = time.time()
    data = get(f"{prometheus}/api/v1/query_exemplars", query=promql, start=now - since_s, end=now + 60)["data"]
    return [exemplar for one in data for exemplar in one["exemplars"]]


@dataclass(frozen=True, slots=True)
class Line:
    """One log record in Loki."""

    at_ns: int
    text: str
    labels: Mapping[str, str]
    """Index labels of its stream."""
    metadata: Mapping[str, str]
    """Structured metadata of the record."""


def lines(
    loki: str, logql: str, *, start: float | None = None, end: float | None = None, limit: int = 5000
) -> list[Line]:
    """Log records, oldest first.

    Args:
        loki: base URL.
        logql: a log query.
        start: Unix time; an hour ago when left out.
        end: Unix time; in a minute when left out.
        limit: the most records to return.
    """
    now = time.time()
    answer = json.loads(
        request(
            "GET",
            f"{loki}/loki/api/v1/query_range?"
            + urlencode(
                {
                    "query": logql,
                    "start": round((start or now - 3600) * 1e9),
                    "end": round((end or now + 60) * 1e9),
                    "limit": limit,
                    "direction": "forward",
                }
            ),
            headers={"X-Loki-Response-Encoding-Flags": "categorize-labels"},
        )
    )
    return [
        Line(int(at), text, stream["stream"], details.get("structuredMetadata", {}))
        for stream in answer["data"]["result"]
        for at, text, details in stream["values"]
    ]


def logged(loki: str, logql: str, *, at: float | None = None) -> dict[Labels, float]:
    """Result of a LogQL metric query at one time, by labels."""
    data = get(f"{loki}/loki/api/v1/query", query=logql, time=round((at or time.time()) * 1e9))["data"]
    return {frozenset(one["metric"].items()): float(one["value"][1]) for one in data["result"]}
