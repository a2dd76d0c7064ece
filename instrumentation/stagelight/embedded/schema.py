"""The tables of the store, and the steps from each version of them to the next.

``PRAGMA user_version`` counts the steps that a file has seen. A step is never edited once released: add one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from stagelight.conventions import attributes as names

__all__ = [
    "LOG_COLUMNS",
    "MIGRATIONS",
    "POINT_COLUMNS",
    "PROMOTED_SPAN",
    "PROMOTED_USAGE",
    "SERIES_COLUMNS",
    "SPAN_COLUMNS",
    "USAGE_COLUMNS",
    "VERSION",
    "insertion",
    "migrate",
]

PROMOTED_SPAN: Final[Mapping[str, tuple[str, type]]] = {
    names.STAGELIGHT_STAGE: ("stage", str),
    names.GEN_AI_OPERATION_NAME: ("operation", str),
    names.GEN_AI_PROVIDER_NAME: ("provider", str),
    names.GEN_AI_REQUEST_MODEL: ("model", str),
    names.GEN_AI_CONVERSATION_ID: ("conversation", str),
    names.STAGELIGHT_FEATURE: ("feature", str),
    names.STAGELIGHT_TENANT: ("tenant", str),
    names.USER_HASH: ("user", str),
    names.STAGELIGHT_OUTCOME: ("outcome", str),
    names.ERROR_TYPE: ("error_type", str),
    names.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK: ("first_chunk_s", float),
    names.STAGELIGHT_TURN_TIME_TO_FIRST_TOKEN: ("first_token_s", float),
    names.GEN_AI_USAGE_INPUT_TOKENS: ("input_tokens", int),
    names.GEN_AI_USAGE_OUTPUT_TOKENS: ("output_tokens", int),
    names.STAGELIGHT_COST_AMOUNT: ("cost", float),
    names.STAGELIGHT_COST_STATUS: ("cost_status", str),
}
"""Attributes of a span with a column of their own when they have this type; they are not repeated in the JSON."""

PROMOTED_USAGE: Final[Mapping[str, tuple[str, type]]] = {
    names.STAGELIGHT_STAGE: ("stage", str),
    names.GEN_AI_OPERATION_NAME: ("operation", str),
    names.GEN_AI_PROVIDER_NAME: ("provider", str),
    names.GEN_AI_REQUEST_MODEL: ("model", str),
    names.GEN_AI_RESPONSE_MODEL: ("response_model", str),
    names.STAGELIGHT_FEATURE: ("feature", str),
    names.STAGELIGHT_TENANT: ("tenant", str),
    names.USER_HASH: ("user", str),
    names.GEN_AI_USAGE_INPUT_TOKENS: ("input_tokens", int),
    names.GEN_AI_USAGE_OUTPUT_TOKENS: ("output_tokens", int),
    names.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: ("cached_tokens", int),
    names.STAGELIGHT_USAGE_CHARACTERS: ("characters", int),
    names.STAGELIGHT_USAGE_AUDIO_SECONDS: ("audio_seconds", float),
    names.STAGELIGHT_COST_AMOUNT: ("cost", float),
    names.STAGELIGHT_COST_CURRENCY: ("currency", str),
    names.STAGELIGHT_COST_STATUS: ("cost_status", str),
    names.STAGELIGHT_COST_REASON: ("reason", str),
    names.STAGELIGHT_COST_MISSING: ("missing", list),
    names.STAGELIGHT_OUTCOME: ("outcome", str),
    names.ERROR_TYPE: ("error_type", str),
}
"""The same for the ledger; ``cost`` is stored as exact decimal text and ``missing`` as JSON."""

_SPAN_FACTS = tuple(column for column, _ in PROMOTED_SPAN.values())
_USAGE_FACTS = tuple(column for column, _ in PROMOTED_USAGE.values())
_OWNER = ("resource_id", "scope_id")

SPAN_COLUMNS: Final = (
    "trace_id", "span_id", "parent_id", "name", "kind", "start_ns", "duration_ns", "status", "failed", "entry",
    *_SPAN_FACTS, "status_message", "attributes", "events", "links", *_OWNER,
)  # fmt: skip
LOG_COLUMNS: Final = (
    "time_ns", "digest", "severity", "body", "event_name", "trace_id", "span_id", "attributes", *_OWNER,
)  # fmt: skip
USAGE_COLUMNS: Final = ("time_ns", "digest", "trace_id", "span_id", *_USAGE_FACTS, "attributes", *_OWNER)
SERIES_COLUMNS: Final = (
    "digest", "name", "unit", "description", "kind", "temporality", "monotonic", "attributes", "bounds", *_OWNER,
)  # fmt: skip
POINT_COLUMNS: Final = ("series_id", "time_ns", "start_ns", "value", "count", "detail")

_FIRST = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
-- seen_ns: when something last referred to the row, to the hour; unused ones are dropped by it.
CREATE TABLE resource (
  id INTEGER PRIMARY KEY, service TEXT NOT NULL, json TEXT NOT NULL UNIQUE, seen_ns INTEGER NOT NULL
);
CREATE TABLE scope (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, seen_ns INTEGER NOT NULL);

CREATE TABLE spans (
  id INTEGER PRIMARY KEY,
  trace_id BLOB NOT NULL, span_id BLOB NOT NULL, parent_id BLOB,
  name TEXT NOT NULL, kind INTEGER NOT NULL, start_ns INTEGER NOT NULL, duration_ns INTEGER NOT NULL,
  status INTEGER NOT NULL, failed INTEGER NOT NULL, entry INTEGER NOT NULL,
  stage TEXT, operation TEXT, provider TEXT, model TEXT, conversation TEXT,
  feature TEXT, tenant TEXT, user TEXT, outcome TEXT, error_type TEXT,
  first_chunk_s REAL, first_token_s REAL, input_tokens INTEGER, output_tokens INTEGER,
  cost REAL, cost_status TEXT, status_message TEXT,
  attributes TEXT NOT NULL, events TEXT, links TEXT,
  resource_id INTEGER NOT NULL, scope_id INTEGER NOT NULL,
  UNIQUE (trace_id, span_id)
);
-- Answers latency and series without touching the rows; also the order in which retention deletes.
CREATE INDEX spans_time ON spans (start_ns, stage, model, duration_ns, first_chunk_s, first_token_s, failed);
CREATE INDEX spans_entry ON spans (start_ns) WHERE entry = 1;
CREATE INDEX spans_failed ON spans (start_ns) WHERE failed = 1;
CREATE INDEX spans_turn ON spans (trace_id, start_ns, stage) WHERE stage = 'turn';
CREATE INDEX spans_turn_time ON spans (start_ns, failed, first_token_s, trace_id, parent_id, duration_ns, stage)
  WHERE stage = 'turn';

CREATE TABLE logs (
  id INTEGER PRIMARY KEY,
  time_ns INTEGER NOT NULL, digest INTEGER NOT NULL,
  severity INTEGER NOT NULL, body TEXT NOT NULL, event_name TEXT, trace_id BLOB, span_id BLOB,
  attributes TEXT NOT NULL, resource_id INTEGER NOT NULL, scope_id INTEGER NOT NULL,
  UNIQUE (time_ns, digest)
);
CREATE INDEX logs_trace ON logs (trace_id) WHERE trace_id IS NOT NULL;

CREATE TABLE usage (
  id INTEGER PRIMARY KEY,
  time_ns INTEGER NOT NULL, digest INTEGER NOT NULL, trace_id BLOB, span_id BLOB,
  stage TEXT, operation TEXT, provider TEXT, model TEXT, response_model TEXT,
  feature TEXT, tenant TEXT, user TEXT,
  input_tokens INTEGER, output_tokens INTEGER, cached_tokens INTEGER, characters INTEGER, audio_seconds REAL,
  cost TEXT, currency TEXT, cost_status TEXT, reason TEXT, missing TEXT, outcome TEXT, error_type TEXT,
  attributes TEXT NOT NULL, resource_id INTEGER NOT NULL, scope_id INTEGER NOT NULL,
  UNIQUE (time_ns, digest)
);
-- Everything a cost table sums, so that it never reads the rows.
CREATE INDEX usage_cost ON usage (
  time_ns, model, stage, feature, tenant, user, input_tokens, output_tokens, cached_tokens, characters,
  audio_seconds, cost, cost_status, reason, missing
);
CREATE INDEX usage_trace ON usage (trace_id, cost) WHERE trace_id IS NOT NULL;

CREATE TABLE series (
  id INTEGER PRIMARY KEY,
  digest BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL, unit TEXT NOT NULL, description TEXT NOT NULL, kind TEXT NOT NULL,
  temporality TEXT, monotonic INTEGER, attributes TEXT NOT NULL, bounds TEXT,
  resource_id INTEGER NOT NULL, scope_id INTEGER NOT NULL
);
CREATE INDEX series_name ON series (name);
CREATE TABLE points (
  series_id INTEGER NOT NULL, time_ns INTEGER NOT NULL, start_ns INTEGER, value, count INTEGER, detail TEXT,
  PRIMARY KEY (series_id, time_ns)
) WITHOUT ROWID;
"""

MIGRATIONS: Final[tuple[str, ...]] = (_FIRST,)
VERSION: Final = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, version: int, steps: Sequence[str] = MIGRATIONS) -> None:
    """Bring a file from ``version`` to the last step; each step and its number are one transaction."""
    for number, step in enumerate(steps[version:], start=version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.rollback()
            raise


def insertion(table: str, columns: tuple[str, ...]) -> str:
    """Statement that adds a row unless its unique key is there already."""
    marks = ", ".join("?" * len(columns))
    return f"INSERT OR IGNORE INTO {table} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608 (our own names)
