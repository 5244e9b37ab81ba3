"""The stage ``scores_<domain>``: the champion decides for the whole population."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets import checks
from finrisk_assets.domain import Domain
from finrisk_assets.resources import Warehouse, column_schema
from finrisk_assets.settings import Settings
from finrisk_assets.stages.common import champion_folder, common

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.modelling.bundle import Bundle

SCORING_CHUNK = 100_000
"""Rows that are scored at a time, so that memory stays bounded."""


def assets(domain: Domain, settings: Settings) -> list[Any]:
    """The batch scores and their contract."""
    return [_scores(domain, settings), checks.contract(f"scores_{domain.name}", domain.score_contract())]


def _scores(domain: Domain, settings: Settings) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"scores_{domain.name}",
        deps=[f"features_{domain.group}", f"champion_{domain.name}"],
        description=f"{domain.title} decided for the whole population by the champion.",
        metadata={"dagster/column_schema": column_schema(domain.score_contract())},
        io_manager_key="tables",
        **common(domain, {"ibis", "xgboost"}),
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
