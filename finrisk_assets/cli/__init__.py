"""The command `finrisk` and the demonstration."""
