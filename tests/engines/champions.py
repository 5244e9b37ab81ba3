"""Small champions of every domain, made without training: linear models over all features that a source allows."""

import numpy as np

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.scoring.bundle import write
from finrisk_assets.scoring.spec import Amount, BundleSpec, Linear
from finrisk_assets.settings import Settings
from tests.service.conftest import TRANSACTION_THRESHOLDS
from tests.service.examples import GRID, ORIGIN

MORE = {
    "loan_offers": {"thresholds": GRID.thresholds()},
    "transaction_anomaly": {"thresholds": TRANSACTION_THRESHOLDS},
}
"""Domain -> what its bundle has beside the model and the policy."""


def write_champions(settings: Settings) -> None:
    """Write a champion of each domain of the source into the home, from which the graph scores."""
    source, rng = sources.load(settings), np.random.default_rng(1)
    for domain in domains_of(source):
        write(champion_folder(domain, settings), _draw_spec(domain, source, rng))


def _draw_spec(domain: Domain, source: Source, rng: np.random.Generator) -> BundleSpec:
    features = domain.select_features(source)
    more = MORE.get(domain.name, {})
    if domain.name == "cashflow":
        more = {"amount": Amount(_draw_linear(len(features), rng), "typical_movement_amount", -0.6, 0.7)}
    return BundleSpec(
        **ORIGIN,
        name="finrisk-" + domain.name.replace("_", "-"),
        domain=domain.name,
        features=features,
        components=(_draw_linear(len(features), rng),),
        golden_rows=rng.uniform(0, 8, (9, len(features))).astype(np.float32),
        **more,
    )


def _draw_linear(n_features: int, rng: np.random.Generator) -> Linear:
    return Linear(
        coefficients=tuple(rng.normal(size=n_features) / n_features),
        means=(0.0,) * n_features,
        scales=(1.0,) * n_features,
        fills=(0.0,) * n_features,
        signed_log1p=(True,) * n_features,
    )
