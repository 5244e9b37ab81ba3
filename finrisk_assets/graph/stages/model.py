"""The stage ``model_<domain>``: candidates are trained, one is chosen, bundled, and registered as challenger.

The training rows are stored as a snapshot, and the version's tags name everything that training again needs
(`finrisk_assets.operations.reproduce`).
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from finrisk_assets.domains.base import Domain, TooFewRowsError, TrainingResult
from finrisk_assets.graph import checks
from finrisk_assets.graph.progress import NOTE
from finrisk_assets.graph.resources import Clock, TrackingResource
from finrisk_assets.graph.stages.common import (
    candidate_folder,
    common,
    find_bundle_faults,
    leave_out,
    log_artifact,
    ordered,
    pictures,
    run_link,
    sample_rows,
    to_frame,
)
from finrisk_assets.graph.stages.external.spark_fit import SparkFit
from finrisk_assets.graph.warehouse import TRAINING_POOL, WarehouseResource, markdown_table
from finrisk_assets.ledger import dvc, snapshots
from finrisk_assets.ledger.mirror import mirror_snapshot
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from finrisk_assets.domains.ledger_fit import LedgerFit
    from finrisk_assets.scoring.spec import BundleSpec


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the trained candidate and its contract."""
    contract = checks.blocking_check(
        f"model_{domain.name}",
        f"model_{domain.name}_contract",
        "The bundle loads, its golden rows agree and its inputs are the feature table's.",
        lambda warehouse: find_bundle_faults(domain, source, candidate_folder(domain, settings)),
    )
    return [_model(domain, source, settings), contract]


def _model(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"model_{domain.name}",
        deps=[f"features_{domain.group}"],
        description=f"{domain.title}: trains the candidates, chooses one on the validation window, registers it as challenger.",
        output_required=False,
        **common(domain, {"scikitlearn", "xgboost", "mlflow"}, TRAINING_POOL),
    )
    def model(
        context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource, clock: Clock
    ) -> Iterator[dg.MaterializeResult]:
        from finrisk_assets.scoring import bundle

        # The run's moment, and not the time of day, decides which outcomes are known.
        fixed = replace(settings, as_of=clock.now())
        features = warehouse.table(f"features_{domain.group}")
        sample = sample_rows(features, domain, settings)
        rows = ordered(sample, domain)
        ledger_fit = SparkFit.of(context, warehouse, features, sample, settings)
        settings.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.root) as scratch:
            # Written before training: pandas takes the rows over.
            copy = write_rows(rows, Path(scratch) / "rows.parquet")
            frame = to_frame(rows)
            try:
                trained = train(frame, domain, source, fixed, ledger_fit)
            except TooFewRowsError as error:
                leave_out(context, domain, str(error))
                return
            for note in trained.notes:
                context.log.warning(f"{NOTE}{domain.name}: {note}")
            folder = candidate_folder(domain, settings)
            version = bundle.write(folder, trained.spec)
            snapshot = snapshots.store_snapshot(
                snapshots.snapshot_folder(settings.root),
                copy,
                table=f"features_{domain.group}",
                kept_by=f"{trained.spec.name}, bundle {version[:12]}",
                link=True,
            )
        mirror_snapshot(settings, snapshot)
        origin = _origin(trained, snapshot, context.instance, domain, source, fixed)
        if ledger_fit is not None:
            origin |= ledger_fit.tags
        tags = {"bundle": version, "dagster.run_id": context.run_id, "source": source.name, **origin}
        note = describe_training(trained, domain, source, len(frame)) + list_links(settings, domain)
        run_tags = {"dagster.run_id": context.run_id, "domain": domain.name, NOTE_TAG: note}
        with tracking.run(f"model_{domain.name}", run_tags) as mlflow:
            mlflow.log_params({key: str(value)[:500] for key, value in trained.params.items()})
            mlflow.log_metrics({f"validation_{key}": value for key, value in trained.metrics.items()})
            mlflow.log_input(_dataset(f"{source.name}.features_{domain.group}", trained.spec, context.run_id), context="training")
            mlflow.log_table(_columns(trained.candidates), "candidates.json")
            _log_pictures(mlflow, trained.plots)
            _log_files(mlflow, trained.files, folder.parent)
            descriptions = (f"{domain.title}. {MODEL_NOTE}", note)
            registered = model_registry.register(mlflow, domain.name, folder, trained.spec.features, tags, descriptions)
            log_candidates(mlflow, trained, context.run_id)
        yield dg.MaterializeResult(
            metadata={
                "model": registered.name,
                "registry_version": registered.version,
                "bundle": version,
                "mlflow_run_id": registered.run_id,
                "mlflow": run_link(tracking, registered.run_id),
                "rows": len(frame),
                "candidates": dg.MetadataValue.md(markdown_table([dict(row) for row in trained.candidates])),
                **origin,
                **({} if ledger_fit is None else ledger_fit.metadata),
                **{key: float(value) for key, value in trained.metrics.items()},
                **pictures(trained.plots),
            },
            data_version=dg.DataVersion(version),
        )

    return model


def list_links(settings: Settings, domain: Domain) -> str:
    """Return links to a model's pages in the console and in Dagster for MLflow's pages, in Markdown; empty where no address is known."""
    addresses = {"Console": settings.console_url, "Dagster": settings.dagster_url}
    pages = {"Console": f"models/{domain.name}", "Dagster": f"assets/model_{domain.name}"}
    links = [f"[{name}]({address.rstrip('/')}/{pages[name]})" for name, address in addresses.items() if address]
    return f" {', '.join(links)}." if links else ""


NOTE_TAG = "mlflow.note.content"
"""MLflow's tag of a description, which its pages show as Markdown."""

MODEL_NOTE = "A version is a scoring bundle. `champion` is the version that decides, `challenger` the one that was trained last."


def describe_training(trained: TrainingResult, domain: Domain, source: Source, rows: int) -> str:
    """Return a training in two sentences, for MLflow's pages."""
    chosen = trained.params.get("champion_candidate", "the only one")
    learned = f"{domain.title}, trained on {rows:,} rows of the source {source.name}, seed {trained.spec.seed}."
    return f"{learned} Of {len(trained.candidates)} candidates {chosen} was chosen on the validation window."


def log_candidates(mlflow: Any, trained: TrainingResult, dagster_run_id: str) -> None:
    """Log each candidate as a run inside the open run, with its figures on the validation window."""
    from mlflow.entities import Metric, RunTag

    client, parent = mlflow.MlflowClient(), mlflow.active_run().info
    for row in trained.candidates:
        figures = {_metric_name(name): float(value) for name, value in row.items() if isinstance(value, float)}
        name = str(row.get("model", "candidate"))
        is_chosen = name == trained.params.get("champion_candidate")
        note = "The chosen candidate." if is_chosen else "A candidate that was not chosen."
        tags = {"mlflow.parentRunId": parent.run_id, NOTE_TAG: note, "dagster.run_id": dagster_run_id}
        child = client.create_run(parent.experiment_id, run_name=name, tags=tags).info
        metrics = [Metric(metric, value, child.start_time, 0) for metric, value in figures.items()]
        client.log_batch(child.run_id, metrics, tags=[RunTag("is_chosen", str(is_chosen).lower())])
        client.set_terminated(child.run_id)


def _metric_name(name: str) -> str:
    """Return a figure's name in the letters that MLflow accepts."""
    return "".join(letter if letter.isalnum() or letter in "_-. /" else "_" for letter in name)


def train(
    frame: "pd.DataFrame", domain: Domain, source: Source, settings: Settings, ledger_fit: "LedgerFit | None" = None
) -> TrainingResult:
    """Train a domain's model so that the same rows, code, settings and libraries give the same bundle, byte for byte.

    Parameters
    ----------
    frame
        The feature table in the order of its key, as `stages.common.to_frame` gives it.
    settings
        With `as_of` set: the time of day must not decide what is known.
    ledger_fit
        Fits the boosted candidates on the rows of other customers too; its result depends on the number of workers, and is as good.
    """
    from finrisk_assets.modelling.training.provenance import limit_threads

    with limit_threads():
        return domain.train(frame, domain.select_features(source), source, settings, ledger_fit)


def write_rows(rows: "pa.Table", file: Path) -> Path:
    """Write the rows to Parquet, the same bytes for the same rows.

    Without statistics, and with dictionaries for text alone: numbers that hardly repeat gain nothing by them, and a million rows are
    written in two thirds of the time.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = [field.name for field in rows.schema if pa.types.is_string(field.type)]
    pq.write_table(rows, file, compression="snappy", use_dictionary=text, write_statistics=False)
    return file


def _origin(
    trained: TrainingResult, snapshot: str, instance: dg.DagsterInstance, domain: Domain, source: Source, settings: Settings
) -> dict[str, str]:
    """Return the origin of the model, as tags of its version and metadata of its asset."""
    from finrisk_assets.modelling.training.provenance import Origin, describe_environment

    return Origin(
        snapshot=snapshot,
        data_sha256=trained.spec.data_sha256,
        code_sha256=trained.spec.code_sha256,
        seed=str(trained.spec.seed),
        raw=json.dumps(_landed(instance, domain, source)),
        dvc=json.dumps(dvc.read_hashes(source)),
        **describe_environment(settings),
    ).to_tags()


def _landed(instance: dg.DagsterInstance, domain: Domain, source: Source) -> dict[str, str]:
    """Return the raw tables behind the features, each with the hash of its landed snapshot, where Dagster knows the hash."""
    landings = {}
    for table in (f"raw_{name}" for name in domain.tables if name in source.tables):
        event = instance.get_latest_materialization_event(dg.AssetKey(table))
        landing = event and event.asset_materialization and event.asset_materialization.metadata.get("snapshot")
        if landing:
            landings[table] = str(landing.value)
    return landings


def _dataset(name: str, spec: "BundleSpec", run_id: str) -> Any:
    """Return the training table as MLflow's dataset: MLflow's own digest of a frame takes minutes on a million rows."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.types import ColSpec, Schema

    columns = Schema([ColSpec("string" if one.is_category else "double", one.name, required=False) for one in spec.features])
    return MetaDataset(CodeDatasetSource({"dagster.run_id": run_id}), name=name, digest=spec.data_sha256[:36], schema=columns)


def _columns(rows: Any) -> dict[str, list[Any]]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def _log_files(mlflow: Any, files: Mapping[str, bytes], folder: Path) -> None:
    """Store files with the run, and beside the candidate's bundle."""
    run = mlflow.active_run().info.run_id
    for name, content in files.items():
        (folder / name).write_bytes(content)
        log_artifact(mlflow.MlflowClient(), run, name, content)


def _log_pictures(mlflow: Any, plots: Mapping[str, bytes]) -> None:
    run = mlflow.active_run().info.run_id
    for name, png in plots.items():
        log_artifact(mlflow.MlflowClient(), run, f"plots/{name}.png", png)
