"""The pages Now and Turn of the embedded server: HTML and charts made here, readable without any script."""

from stagelight.embedded.pages.routes import pages_routes

__all__ = ["pages_routes"]
