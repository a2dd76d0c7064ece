"""Delivery: bounded queues, exact accounting, and a flush that keeps its deadline."""

from stagelight.standard import load_sdk

load_sdk()  # before any module of this package imports it
