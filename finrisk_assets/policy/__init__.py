"""The decision policy: what a bank decides apart from any model. Imports Pydantic and PyYAML only."""
