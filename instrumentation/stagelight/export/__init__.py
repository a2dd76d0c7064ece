"""Delivery: bounded queues, exact accounting, and a flush that keeps its deadline."""
