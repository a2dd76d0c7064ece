"""Release check: ``python -m stagelight.cost.check`` fails when a bundled price is older than 180 days."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime

from stagelight.cost.inspection import STALE_AFTER_DAYS, stale
from stagelight.cost.tables import bundled

__all__ = ["main", "old_prices"]


def old_prices(today: date) -> Iterator[str]:
    """One line for each bundled price that has to be read again before a release."""
    for file in bundled():
        for entry in file.entries:
            age = stale(entry.as_of, today)
            if age is not None:
                where = f"{file.path.name}:{entry.line}"
                yield f"{where}: {entry.provider} {entry.model} is {age} days old, check {entry.source_url}"


def main() -> int:
    """Print old prices; 1 if there are any, else 0."""
    found = list(old_prices(datetime.now(UTC).date()))
    for line in found:
        print(line, file=sys.stderr)
    print(f"{len(found)} bundled prices older than {STALE_AFTER_DAYS} days")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
