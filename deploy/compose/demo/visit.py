"""Visitors who never stop asking the example application, a few questions at a time."""

# ruff: noqa: INP001  # a program of its own that says on standard output what it does

from __future__ import annotations

import argparse
import itertools
import time
from collections import Counter
from pathlib import Path

from stagelight.demo.visitors import ask_all, visits

_AT_ONCE = 4
_ROUND = 40


def main() -> None:
    """Ask until the process is stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("application", help="base address, like http://app:8000")
    parser.add_argument("questions", type=Path, help="file with one question per line")
    parser.add_argument("--pause", type=float, default=5.0, help="seconds between questions (default: %(default)g)")
    options = parser.parse_args()
    planned = visits(_ROUND, options.questions)
    for number in itertools.count(1):
        results: Counter[str] = Counter()
        for first in range(0, _ROUND, _AT_ONCE):
            results.update(ask_all(options.application, planned[first : first + _AT_ONCE]))
            time.sleep(options.pause)
        said = ", ".join(f"{count} {result}" for result, count in sorted(results.items()))
        print(f"round {number}: {said}", flush=True)


if __name__ == "__main__":
    main()
