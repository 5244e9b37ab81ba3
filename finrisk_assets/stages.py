"""The stages of a domain as Dagster assets, the same in all domains: features, model, evaluation, champion, scores.

A domain says *what* (its pure functions, `domain.Domain`); this module says *how* that becomes assets, checks, MLflow runs
and stored tables.
"""

import base64
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets import checks
from finrisk_assets.domain import Domain, Figure
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.modelling import registry
from finrisk_assets.resources import Tracking, Warehouse, column_schema, markdown_table
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.modelling.bundle import Bundle, BundleSpec

SCORING_CHUNK = 100_000
"""Rows that are scored at a time, so that memory stays bounded."""


def assets(domain: Domain, source: Source, settings: Settings, available: Collection[str] = ()) -> list[Any]:
    """Every asset and check of one domain on one source; `available` are the scores of its other domains."""
    name = domain.name
    features = [_features(domain, source, available), checks.contract(f"features_{name}", domain.feature_contract(source))]
    return [
        *([] if domain.features_of else features),
        _model(domain, source, settings),
        checks.demand(
            f"model_{name}",
            f"model_{name}_contract",
            "The bundle loads, its golden rows agree and its inputs are the feature table's.",
            lambda warehouse: _bundle_faults(domain, source, candidate_folder(domain, settings)),
        ),
        _evaluation(domain, settings),
        checks.demand(
            f"evaluation_{name}",
            f"evaluation_{name}_contract",
            "Every figure is a finite number.",
            lambda warehouse: _figure_faults(_figures(warehouse.table(f"evaluation_{name}"))),
        ),
        checks.demand(
            f"evaluation_{name}",
            f"model_{name}_gate",
            "What a model must show on the frozen test window before it may decide.",
            lambda warehouse: domain.gate({figure.metric: figure for figure in _figures(warehouse.table(f"evaluation_{name}"))}),
        ),
        _champion(domain, settings),
        checks.demand(
            f"champion_{name}",
            f"champion_{name}_contract",
            "The exported bundle loads and its golden rows agree.",
            lambda warehouse: _bundle_faults(domain, source, champion_folder(domain, settings)),
        ),
        _scores(domain, settings),
        checks.contract(f"scores_{name}", domain.score_contract()),
        *_parity(domain, source),
        *_oracle(domain, source, settings),
    ]


def candidate_folder(domain: Domain, settings: Settings) -> Path:
    """Where training leaves its bundle."""
    return settings.root / "candidates" / domain.name / "bundle"


def champion_folder(domain: Domain, settings: Settings) -> Path:
    """Where the champion's bundle is exported to, for batch scoring and for the Bento."""
    return settings.root / "champions" / domain.name / "bundle"


def _common(domain: Domain, kinds: set[str]) -> dict[str, Any]:
    return {"group_name": domain.group, "owners": [f"team:{domain.owner}"], "kinds": kinds}


def _pictures(plots: Mapping[str, bytes]) -> dict[str, dg.MetadataValue]:
    encoded = {name: base64.b64encode(png).decode() for name, png in plots.items()}
    return {name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{text})") for name, text in encoded.items()}


def _features(domain: Domain, source: Source, available: Collection[str]) -> dg.AssetsDefinition:
    contract = domain.feature_contract(source)
    tables = {table: dg.AssetIn(f"validated_{table}") for table in domain.tables if table in source.tables}
    upstream = {scores: dg.AssetIn(scores) for scores in domain.upstream if scores in available}

    @dg.asset(
        name=f"features_{domain.name}",
        ins={**tables, **upstream},
        description=f"{contract.description} {len(domain.features(source))} features, each known when the decision falls.",
        metadata={"dagster/column_schema": column_schema(contract)},
        io_manager_key="tables",
        **_common(domain, {"ibis"}),
    )
    def features(context: dg.AssetExecutionContext, **tables: LazyTable) -> LazyTable:
        return domain.build(tables, source)

    return features


def _parity(domain: Domain, source: Source) -> list[dg.AssetChecksDefinition]:
    parity = domain.parity
    if parity is None:
        return []
    return [
        checks.demand(
            f"features_{domain.name}",
            f"features_{domain.name}_parity",
            "A sample replayed one by one, as the service computes it, equals the stored features row for row.",
            lambda warehouse: parity(warehouse.table, source),
        )
    ]


def _model(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"model_{domain.name}",
        deps=[f"features_{domain.group}"],
        description=f"{domain.title}: trains the candidates, chooses one on the validation window, registers it as challenger.",
        **_common(domain, {"scikitlearn", "xgboost", "mlflow"}),
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
                **_pictures(trained.plots),
            },
            data_version=dg.DataVersion(version),
        )

    return model


def _evaluation(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"evaluation_{domain.name}",
        deps=[f"features_{domain.group}", f"model_{domain.name}"],
        description="Figures of the challenger on the frozen test window, each with its 95 % interval.",
        io_manager_key="tables",
        **_common(domain, {"mlflow", "shap"}),
    )
    def evaluation(context: dg.AssetExecutionContext, warehouse: Warehouse, tracking: Tracking) -> dg.Output[LazyTable]:
        import ibis

        from finrisk_assets.modelling.bundle import Bundle

        challenger = Bundle.load(candidate_folder(domain, settings), threads=settings.threads)
        frame = load_frame(warehouse.table(f"features_{domain.group}"), domain)
        result = domain.evaluate(frame, challenger, settings)
        client = tracking.client()
        registered = registry.find(client, domain.name, registry.CHALLENGER)
        if registered is None:
            raise dg.Failure(f"no challenger is registered for {domain.name}: materialise model_{domain.name} first")
        for figure in result.figures:
            client.log_metric(registered.run_id, f"test_{figure.metric}", figure.value)
        for name, png in result.plots.items():
            _log_artifact(client, registered.run_id, f"plots/test_{name}.png", png)
        rows = [asdict(figure) for figure in result.figures]
        return dg.Output(
            ibis.memtable(_figure_table(rows)),
            metadata={
                "bundle": challenger.version,
                "figures": dg.MetadataValue.md(markdown_table(rows)),
                "mlflow_run_id": registered.run_id,
                **{figure.metric: float(figure.value) for figure in result.figures},
                **_pictures(result.plots),
            },
        )

    return evaluation


def _champion(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"champion_{domain.name}",
        deps=[f"evaluation_{domain.name}"],
        description="Moves the alias `champion` to the challenger that passed its gate, and exports its scoring bundle.",
        **_common(domain, {"mlflow"}),
    )
    def champion(context: dg.AssetExecutionContext, tracking: Tracking) -> dg.MaterializeResult:
        from finrisk_assets.modelling.bundle import Bundle

        client = tracking.client()
        challenger = registry.find(client, domain.name, registry.CHALLENGER)
        if challenger is None:
            raise dg.Failure(f"no challenger is registered for {domain.name}: materialise model_{domain.name} first")
        registry.promote(client, challenger)
        bundle = Bundle.load(registry.fetch(client, challenger, champion_folder(domain, settings)))
        return dg.MaterializeResult(
            metadata={
                "model": challenger.name,
                "registry_version": challenger.version,
                "bundle": bundle.version,
                "mlflow_run_id": challenger.run_id,
                "folder": dg.MetadataValue.path(champion_folder(domain, settings)),
            },
            data_version=dg.DataVersion(bundle.version),
        )

    return champion


def _scores(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"scores_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}"],
        description=f"{domain.title} decided for the whole population by the champion.",
        metadata={"dagster/column_schema": column_schema(domain.score_contract())},
        io_manager_key="tables",
        **_common(domain, {"ibis", "xgboost"}),
    )
    def scores(context: dg.AssetExecutionContext, warehouse: Warehouse) -> LazyTable:
        path = settings.root / "landing" / f"scores_{domain.name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        score_to(path, warehouse.table(f"features_{domain.group}"), domain, settings)
        return warehouse.connection.read_parquet(str(path))

    return scores


def score_to(path: Path, features: LazyTable, domain: Domain, settings: Settings) -> None:
    """Score a feature table in chunks into a Parquet file, in the order of the table's key."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from finrisk_assets.modelling.bundle import Bundle

    champion = Bundle.load(champion_folder(domain, settings), threads=settings.threads)
    contract = domain.score_contract()
    carried = [column.name for column in contract.columns if column.name in features.columns]
    batches: Iterator[pa.RecordBatch] = features.order_by(domain.keys[0].name).to_pyarrow_batches(chunk_size=SCORING_CHUNK)
    writer: pq.ParquetWriter | None = None
    for batch in batches:
        frame = batch.to_pandas()
        found = domain.score(frame, champion) if domain.score else _scored(domain, frame, champion)
        columns = {name: batch.column(name) for name in carried} | {
            name: pa.array(values, pa.string() if name == "decision" else None) for name, values in found.items()
        }
        scored = pa.table(columns | {"model_version": pa.array([champion.version] * len(batch), pa.string())})
        scored = scored.select(list(contract.names))
        writer = writer or pq.ParquetWriter(path, scored.schema, coerce_timestamps="us", allow_truncated_timestamps=False)
        writer.write_table(scored)
    if writer is None:
        raise dg.Failure(f"features_{domain.group} has no rows to score")
    writer.close()


def _scored(domain: Domain, frame: "pd.DataFrame", champion: "Bundle") -> dict[str, Any]:
    """Margin, probability and decision of each row."""
    from finrisk_assets.modelling.candidates import matrix

    margin = champion.margin(matrix(frame, champion.features))
    probability = champion.calibration.apply(margin)
    decision = domain.decide(probability, margin, champion.thresholds)
    return {"score": margin, "probability": probability, "decision": decision}


def _oracle(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    compare = domain.oracle
    if compare is None or domain.truth not in source.truth:
        return []

    @dg.asset(
        name=f"oracle_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}", domain.truth],
        description="The champion beside an oracle that knows the true probabilities, on the test window. Only a simulator can tell.",
        io_manager_key="tables",
        **_common(domain, {"ibis"}),
    )
    def oracle(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.Output[LazyTable]:
        import ibis

        from finrisk_assets.modelling.bundle import Bundle

        champion = Bundle.load(champion_folder(domain, settings), threads=settings.threads)
        frame = load_frame(warehouse.table(f"features_{domain.group}"), domain)
        rows = [asdict(figure) for figure in compare(frame, warehouse.table(domain.truth).to_pandas(), champion, settings)]
        return dg.Output(ibis.memtable(_figure_table(rows)), metadata={"figures": dg.MetadataValue.md(markdown_table(rows))})

    contract = checks.demand(
        f"oracle_{domain.name}",
        f"oracle_{domain.name}_contract",
        "Every figure is a finite number.",
        lambda warehouse: _figure_faults(_figures(warehouse.table(f"oracle_{domain.name}"))),
    )
    return [oracle, contract]


def load_frame(features: LazyTable, domain: Domain) -> "pd.DataFrame":
    """The feature table as pandas, ordered by its key so that training sees the same rows in the same order every time."""
    return features.order_by(domain.keys[0].name).to_pyarrow().to_pandas(self_destruct=True, split_blocks=True)


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
        _log_artifact(mlflow.MlflowClient(), run, f"plots/{name}.png", png)


def _log_artifact(client: Any, run_id: str, path: str, content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(path).name
        file.write_bytes(content)
        client.log_artifact(run_id, str(file), str(Path(path).parent))


def _figure_table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.Table.from_pylist(
        rows, pa.schema([("metric", text), ("value", number), ("low", number), ("high", number), ("meaning", text)])
    )


def _figures(stored: LazyTable) -> list[Figure]:
    return [Figure(**row) for row in stored.to_pyarrow().to_pylist()]


def _figure_faults(figures: list[Figure]) -> list[str]:
    if not figures:
        return ["there are no figures"]
    return [f"{figure.metric} is not a finite number" for figure in figures if not math.isfinite(figure.value)]


def _bundle_faults(domain: Domain, source: Source, folder: Path) -> list[str]:
    from finrisk_assets.modelling.bundle import Bundle, BundleError

    try:
        bundle = Bundle.load(folder)
    except BundleError as error:
        return [str(error)]
    lacking = [feature.name for feature in bundle.features if feature.name not in domain.feature_contract(source).names]
    return [f"the bundle reads {name}, which features_{domain.group} does not have" for name in lacking]
