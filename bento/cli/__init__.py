"""Operators' commands that need the service's half alone; they run in its container too."""
