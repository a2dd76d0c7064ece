"""The embedded server: OTLP receiver, SQLite store and pages in one process."""
