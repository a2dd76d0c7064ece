"""The demonstration: a real application, asked real questions over HTTP, with a simulated provider behind it."""
