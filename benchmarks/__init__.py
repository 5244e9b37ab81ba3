"""Measurements: model quality and speed, beside peers, in one run. Each module is a command."""
