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
from finrisk_assets.graph.build import build_definitions, build_resources
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.operations import load_history
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class OwnLedger:
    """A source whose graph has run: its settings, the steps and checks that failed, and the stored tables."""

    settings: Settings
    failures: list[str]
    broken: list[str]
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

    @property
    def tracking(self) -> Any:
        """The client of the registry of models."""
        return build_resources(self.settings)["tracking"].client()

    def bundle(self, domain: str) -> Bundle:
        (one,) = (each for each in domains_of(sources.load(self.settings)) if each.name == domain)
        return Bundle.load(champion_folder(one, self.settings))

    def rows(self, table: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.warehouse.table(table).to_pyarrow().to_pylist()
        return rows

    @contextmanager
    def serve(self, *, with_history: bool = True) -> Iterator[TestClient]:
        """Serve the models of the Bento in this process, with what the ledger knows in the service's store."""
        from bentoml._internal.container import BentoMLContainer
        from bentoml._internal.models import ModelStore

        from bento.service import FinRisk

        sdk, store = import_module("_bentoml_sdk.service"), BentoMLContainer.model_store.get()
        current, names = sdk._current_service, ("FINRISK_HOME", "FINRISK_SOURCE", "FINRISK_MAPPING")
        if with_history:
            load_history.load(self.settings)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in zip(names, (self.settings.home, self.settings.source, self.settings.mapping), strict=True):
                patch.setenv(name, str(value or ""))
            BentoMLContainer.model_store.set(ModelStore(self.settings.bentoml_home / "models"))
            for collector in list(REGISTRY._collector_to_names):  # each application registers its metrics anew
                REGISTRY.unregister(collector)
            with TestClient(FinRisk.to_asgi(), raise_server_exceptions=False) as client:
                yield client
        BentoMLContainer.model_store.set(store)
        sdk.set_current_service(current)


def run_graph(settings: Settings, *more: str) -> OwnLedger:
    """Run what a Bento, the batch scores and more assets need of a source's graph, in this process."""
    main.prepare_dagster(settings)
    source = sources.load(settings)
    scores = [f"scores_{domain.name}" for domain in domains_of(source)]
    definitions = build_definitions(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        keys = dg.AssetSelection.assets("bento", *scores, *more).upstream().resolve(definitions.resolve_asset_graph())
        job = definitions.resolve_job_def("everything")
        result = job.execute_in_process(instance=instance, raise_on_error=False, asset_selection=sorted(keys))
    failures = [f"{event.step_key}: {event.step_failure_data.error}" for event in result.all_events if event.is_step_failure]
    broken = [f"{check.check_name}: {check.description}" for check in result.get_asset_check_evaluations() if not check.passed]
    return OwnLedger(settings, failures, broken, Warehouse(url=settings.warehouse))
