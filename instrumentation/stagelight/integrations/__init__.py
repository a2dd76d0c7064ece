"""Client libraries whose calls are recorded as they are: one file of rows per library, one engine for all."""
