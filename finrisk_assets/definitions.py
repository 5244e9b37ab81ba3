"""The entry point for Dagster."""

from finrisk_assets.graph.build import build
from finrisk_assets.settings import Settings

defs = build(Settings.from_environment())
