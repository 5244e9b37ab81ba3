"""What a feature of an event is, computed in batch and online."""
