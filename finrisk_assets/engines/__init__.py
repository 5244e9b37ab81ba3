"""Engines that hold the warehouse and compute its tables: DuckDB, PostgreSQL, Spark."""
