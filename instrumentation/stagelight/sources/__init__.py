"""Reading stored telemetry: one interface over the embedded store now, over other back ends later."""
