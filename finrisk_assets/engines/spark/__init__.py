"""Spark, the engine of several machines, and what its processes run."""
