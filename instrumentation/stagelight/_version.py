"""Version of the package and of the conventions it follows."""

from __future__ import annotations

__all__ = ["SCHEMA_URL", "__version__"]

__version__ = "0.1.0.dev0"

SCHEMA_URL = "https://opentelemetry.io/schemas/1.37.0"
"""What the official GenAI packages 1.3b0 state; the registry itself has no tagged release yet."""
