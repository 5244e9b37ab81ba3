"""The stages of a domain as Dagster assets, the same in all domains: features, model, evaluation, champion, scores.

A domain says *what* (its pure functions, `domain.Domain`); the modules here say *how* that becomes assets, checks, MLflow runs
and stored tables, one stage each.
"""

from collections.abc import Collection
from typing import Any

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.stages import champion, evaluation, features, leakage, model, monitoring, oracle, pack, scores
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.settings import Settings


def assets(domain: Domain, source: Source, settings: Settings, available: Collection[str] = ()) -> list[Any]:
    """Every asset and check of one domain on one source; `available` are the scores of its other domains."""
    return [
        *features.assets(domain, source, available),
        *model.assets(domain, source, settings),
        *leakage.assets(domain, source, settings),
        *evaluation.assets(domain, source, settings),
        *champion.assets(domain, source, settings),
        *scores.assets(domain, source, settings),
        *monitoring.assets(domain, settings),
        *oracle.assets(domain, source, settings),
        *pack.assets(domain, source, settings),
    ]
