"""Tests of one month alone: its features are those of the whole ledger, bit for bit."""

from collections.abc import Sequence

import pytest

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph.partitions import MonthRange, monthly_partitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.settings import Settings
from tests.engines.parity import find_differences
from tests.pipeline.conftest import Run

WITH_FEATURES = [domain for domain in DOMAINS if not domain.features_of]


def find_other_months(domain: Domain, warehouse: Warehouse, settings: Settings, months: Sequence[int]) -> dict[str, object]:
    """Return the months, by their place in the ledger, whose features computed alone differ from the stored ones, and the columns."""
    source = sources.load(settings)
    tables = {name: warehouse.table(asset) for name, asset in domain.list_inputs(source).items()}
    tables |= {name: warehouse.table(name) for name in domain.upstream}
    stored, key = warehouse.table(f"features_{domain.name}"), domain.keys[0].name
    keys, differing = monthly_partitions(source.begins, source.ends).get_partition_keys(), {}
    for place in months:
        month = keys[place]
        span = MonthRange(month, month, month == keys[0], month == keys[-1]).span
        alone = domain.compute_features(tables, source, span).order_by(key).to_pyarrow()
        whole = span.filter_rows(stored, domain.decision_time).order_by(key).to_pyarrow()
        if found := find_differences(whole, alone, exact=whole.column_names):
            differing[month] = found
        assert len(whole) or place in (0, -1), f"{month} has no rows"
    warehouse.drop_scan()
    return differing


@pytest.mark.parametrize("domain", WITH_FEATURES, ids=lambda domain: domain.name)
def test_a_month_alone_has_the_features_of_the_whole_ledger(run: Run, domain: Domain) -> None:
    assert find_other_months(domain, run.warehouse, run.settings, (16, -1)) == {}
