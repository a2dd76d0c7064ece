"""Stagelight."""
