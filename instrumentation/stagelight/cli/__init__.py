"""The command line ``stagelight``: one module per command."""

from stagelight.cli.program import main

__all__ = ["main"]
