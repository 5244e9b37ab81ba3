"""Tests of retries: a step is run again only for a transient fault."""

import dagster as dg
import ibis
import pytest

from finrisk_assets.engines import transient_faults
from finrisk_assets.graph.resources import Clock
from finrisk_assets.graph.warehouse import Tables, Warehouse

LOCKED = OSError("IO Error: Could not set lock on file warehouse.duckdb: Conflicting lock is held")


@pytest.mark.parametrize(("error", "attempts"), [(LOCKED, 2), (ValueError("a column is missing"), 1)])
def test_a_step_is_run_again_only_for_a_transient_fault(error: Exception, attempts: int, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(transient_faults, "backoff_s", lambda *_: 0.0)
    stored: list[str] = []
    store = Warehouse.store

    def unlucky(self: Warehouse, asset: str, rows: ibis.Table) -> ibis.Table:
        stored.append(asset)
        if len(stored) == 1:
            raise error
        return store(self, asset, rows)

    monkeypatch.setattr(Warehouse, "store", unlucky)

    @dg.asset(io_manager_key="tables")
    def raw_letters() -> ibis.Table:
        return ibis.memtable({"letter": ["a", "b"]})

    warehouse = Warehouse(url=f"duckdb://{tmp_path / 'warehouse.duckdb'}")
    resources = {"tables": Tables(warehouse=warehouse), "warehouse": warehouse}
    result = dg.materialize([raw_letters], resources=resources, raise_on_error=False)
    assert len(stored) == attempts
    assert result.success == (attempts > 1)


def test_a_run_may_have_a_clock_of_its_own() -> None:
    read: list[str] = []

    @dg.asset
    def reading(clock: Clock) -> None:
        read.append(clock.now().isoformat())

    resources = {"clock": Clock.configure_at_launch(moment="2024-01-01T00:00:00")}
    dg.materialize([reading], resources=resources)
    own = {"resources": {"clock": {"config": {"moment": "2024-06-01T03:00:00"}}}}
    dg.materialize([reading], resources=resources, run_config=own)
    assert read == ["2024-01-01T00:00:00", "2024-06-01T03:00:00"]
