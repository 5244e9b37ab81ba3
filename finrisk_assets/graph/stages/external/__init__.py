"""Work of a step in a process of its own, which reports by Dagster Pipes."""
