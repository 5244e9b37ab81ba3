"""Features of events, computed in batch and online from one definition."""
