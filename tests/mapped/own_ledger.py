"""A user's own source as the tests of this folder run it: the graph to a built Bento in this process, then the service on its models."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from finrisk_assets.cli import main
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph.build import build_definitions
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.operations import load_history
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class OwnLedger:
    """A mapped source whose graph has run: its settings, the failures and notes of the run, and the stored tables."""

    settings: Settings
    failures: list[str]
    log: str
    warehouse: Warehouse

    @property
    def champions(self) -> set[str]:
        """The domains that have a champion."""
        return {domain.name for domain in domains_of(sources.load(self.settings)) if champion_folder(domain, self.settings).is_dir()}

    @property
    def bento(self) -> Path:
        """The folder of the newest Bento."""
        folder = self.settings.bentoml_home / "bentos" / "finrisk"
        return folder / (folder / "latest").read_text().strip()

    def bundle(self, domain: str) -> Bundle:
        (one,) = (each for each in domains_of(sources.load(self.settings)) if each.name == domain)
        return Bundle.load(champion_folder(one, self.settings))

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.warehouse.table(table).to_pyarrow().to_pylist()
        return rows

    @contextmanager
    def serve(self) -> Iterator[TestClient]:
        """Serve the models of the Bento in this process, with what the ledger knows in the service's store."""
        from bentoml._internal.container import BentoMLContainer
        from bentoml._internal.models import ModelStore

        from bento.service import FinRisk

        sdk, store = import_module("_bentoml_sdk.service"), BentoMLContainer.model_store.get()
        current = sdk._current_service
        load_history.load(self.settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINRISK_HOME", str(self.settings.home))
            patch.setenv("FINRISK_SOURCE", "mapped")
            patch.setenv("FINRISK_MAPPING", str(self.settings.mapping))
            BentoMLContainer.model_store.set(ModelStore(self.settings.bentoml_home / "models"))
            for collector in list(REGISTRY._collector_to_names):  # each application registers its metrics anew
                REGISTRY.unregister(collector)
            with TestClient(FinRisk.to_asgi(), raise_server_exceptions=False) as client:
                yield client
        BentoMLContainer.model_store.set(store)
        sdk.set_current_service(current)


def run_graph(mapping: Path, home: Path, log: Any, **changes: Any) -> OwnLedger:
    """Run what a Bento and the batch scores need of a mapped source's graph; `log` is pytest's `caplog`."""
    settings = Settings(home=home, source="mapped", mapping=mapping, data_dir=mapping.parent, **changes)
    main.prepare_dagster(settings)
    source = sources.load(settings)
    scores = [f"scores_{domain.name}" for domain in domains_of(source)]
    definitions = build_definitions(settings)
    with dg.DagsterInstance.ephemeral() as instance, log.at_level("INFO"):
        keys = dg.AssetSelection.assets("bento", *scores).upstream().resolve(definitions.resolve_asset_graph())
        job = definitions.resolve_job_def("everything")
        result = job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=sorted(keys))
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    return OwnLedger(settings, failures, log.text, Warehouse(url=settings.warehouse))
