"""The stages of a domain as Dagster assets, the same in all domains: features, model, evaluation, champion, scores.

`domains.base.Domain` holds a domain's pure functions; each module here turns one stage of them into assets, checks, MLflow runs and
stored tables.
"""

from collections.abc import Collection
from typing import Any

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.stages import champion, consistency, evaluation, features, leakage, model, monitoring, oracle, pack, scores
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings


def build_assets(domain: Domain, source: Source, settings: Settings, available: Collection[str] = ()) -> list[Any]:
    """Build every asset and check of one domain on one source; `available` names the scores of its other domains."""
    return [
        *features.build_assets(domain, source, settings, available),
        *model.build_assets(domain, source, settings),
        *leakage.build_assets(domain, source, settings),
        *evaluation.build_assets(domain, source, settings),
        *champion.build_assets(domain, source, settings),
        *scores.build_assets(domain, source, settings),
        *consistency.build_assets(domain, source, settings),
        *monitoring.build_assets(domain, settings),
        *oracle.build_assets(domain, source, settings),
        *pack.build_assets(domain, source, settings),
    ]
