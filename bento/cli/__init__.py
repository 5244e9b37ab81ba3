"""Operator commands that need only the service's packages; they run in its container too."""
