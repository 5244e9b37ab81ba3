"""Operators' work beside the graph: loading the service's store, reproducing, rolling back and verifying models."""
