"""The stage ``model_<domain>``: candidates are trained, one is chosen, bundled, and registered as challenger."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from finrisk_assets import checks
from finrisk_assets.domain import Domain
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.modelling import registry
from finrisk_assets.resources import Tracking, Warehouse, markdown_table
from finrisk_assets.settings import Settings
from finrisk_assets.stages.common import bundle_faults, candidate_folder, common, load_frame, log_artifact, pictures

if TYPE_CHECKING:
    from finrisk_assets.modelling.bundle import BundleSpec


def assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """The trained candidate and its contract."""
    contract = checks.demand(
        f"model_{domain.name}",
        f"model_{domain.name}_contract",
        "The bundle loads, its golden rows agree and its inputs are the feature table's.",
        lambda warehouse: bundle_faults(domain, source, candidate_folder(domain, settings)),
    )
    return [_model(domain, source, settings), contract]


def _model(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"model_{domain.name}",
        deps=[f"features_{domain.group}"],
        description=f"{domain.title}: trains the candidates, chooses one on the validation window, registers it as challenger.",
        **common(domain, {"scikitlearn", "xgboost", "mlflow"}),
    )
    def model(context: dg.AssetExecutionContext, warehouse: Warehouse, tracking: Tracking) -> dg.MaterializeResult:
        from finrisk_assets.modelling import bundle

        frame = load_frame(warehouse.table(f"features_{domain.group}"), domain)
        trained = domain.train(frame, domain.features(source), source, settings)
        folder = candidate_folder(domain, settings)
        version = bundle.write(folder, trained.spec)
        tags = {"bundle": version, "dagster.run_id": context.run_id, "source": source.name}
        with tracking.run(f"model_{domain.name}", {"dagster.run_id": context.run_id, "domain": domain.name}) as mlflow:
            mlflow.log_params({key: str(value)[:500] for key, value in trained.params.items()})
            mlflow.log_metrics({f"validation_{key}": value for key, value in trained.metrics.items()})
            mlflow.log_input(_dataset(f"{source.name}.features_{domain.group}", trained.spec, context.run_id), context="training")
            mlflow.log_table(_columns(trained.candidates), "candidates.json")
            _log_pictures(mlflow, trained.plots)
            registered = registry.register(mlflow, domain.name, folder, trained.spec.features, tags)
        return dg.MaterializeResult(
            metadata={
                "model": registered.name,
                "registry_version": registered.version,
                "bundle": version,
                "mlflow_run_id": registered.run_id,
                "rows": len(frame),
                "candidates": dg.MetadataValue.md(markdown_table([dict(row) for row in trained.candidates])),
                **{key: float(value) for key, value in trained.metrics.items()},
                **pictures(trained.plots),
            },
            data_version=dg.DataVersion(version),
        )

    return model


def _dataset(name: str, spec: "BundleSpec", run_id: str) -> Any:
    """The training table as MLflow's dataset: by name, columns and hash. MLflow's own digest of a frame takes minutes on a million rows."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.types import ColSpec, Schema

    columns = Schema([ColSpec("double", feature.name, required=False) for feature in spec.features])
    return MetaDataset(CodeDatasetSource({"dagster.run_id": run_id}), name=name, digest=spec.data_sha256[:36], schema=columns)


def _columns(rows: Any) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _log_pictures(mlflow: Any, plots: Mapping[str, bytes]) -> None:
    run = mlflow.active_run().info.run_id
    for name, png in plots.items():
        log_artifact(mlflow.MlflowClient(), run, f"plots/{name}.png", png)
