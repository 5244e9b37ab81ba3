"""The runs of the graph as processes: who carries out a run, how it waits for the warehouse, how it stops, and what a crash leaves."""
