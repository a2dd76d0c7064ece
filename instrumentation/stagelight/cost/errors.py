"""The one error of the cost package: a price file that cannot be used."""

from __future__ import annotations

from pathlib import Path

__all__ = ["PriceFileError"]


class PriceFileError(ValueError):
    """A value of a price file that is not accepted."""

    def __init__(self, path: Path, line: int | None, field: str, received: str, accepted: str) -> None:
        self.path = path
        self.line = line
        """Line in the file, from 1; ``None`` when the file cannot be read at all."""
        self.field = field
        self.received = received
        self.accepted = accepted
        place = f"{path}, line {line}" if line is not None else str(path)
        super().__init__(f"{place}: {field}: received {received!r}; accepted: {accepted}")
