"""Health check of the demo's services: ends well when an address answers an HTTP request with success."""

# ruff: noqa: INP001  # a program of its own
# A file and not `python -c`: podman's health checks split the words of a command again at blanks.

from __future__ import annotations

import sys
import urllib.request

with urllib.request.urlopen(sys.argv[1], timeout=3) as answer:  # noqa: S310  # the compose file's own address
    answer.read()
