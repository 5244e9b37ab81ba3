"""The graph of assets of the simulator, from its definitions."""

from functools import lru_cache
from typing import Any

from finrisk_assets.graph.build import build_definitions
from finrisk_assets.settings import Settings


@lru_cache(maxsize=1)
def resolve_graph() -> Any:
    """Return Dagster's graph of the assets."""
    return build_definitions(Settings()).resolve_asset_graph()


def list_assets() -> dict[str, Any]:
    """Return the assets by name, each with its group, its parents and its description."""
    graph = resolve_graph()
    return {key.to_user_string(): graph.get(key) for key in sorted(graph.get_all_asset_keys())}
