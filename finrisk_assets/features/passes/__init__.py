"""Features computed in passes over sorted rows, as DuckDB and Spark do it."""
