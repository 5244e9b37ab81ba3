"""Insight: the service about itself: its activity, its models, and what another policy would decide. No answer names a person."""
