"""The entry point for Dagster."""

from finrisk_assets.graph.build import build_definitions
from finrisk_assets.settings import Settings

defs = build_definitions(Settings.from_environment())
