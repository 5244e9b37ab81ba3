"""Helpers that several stages share: folders, frames, tables of figures, pictures, and the contract of a bundle."""

import base64
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain, Figure
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import Tracking
from finrisk_assets.graph.warehouse import WAREHOUSE_POOL, Warehouse, count
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.packs.pack import canonical_json
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from finrisk_assets.scoring.bundle import Bundle

WITHOUT_CHAMPION = "no model of it has passed its gate on this ledger yet"
"""Reason why a domain with tables is absent from scores and Bento, as the service tells whoever asks."""


def candidate_folder(domain: Domain, settings: Settings) -> Path:
    """Return the folder of the bundle that training wrote last."""
    return settings.root / "candidates" / domain.name / "bundle"


def champion_folder(domain: Domain, settings: Settings) -> Path:
    """Return the folder of the champion's exported bundle, for batch scoring and for the Bento."""
    return settings.root / "champions" / domain.name / "bundle"


LEFT_OUT = "left_out"
"""Name of the reason in the observation of an asset that is left out."""


def leave_out(context: dg.AssetExecutionContext, domain: Domain, reason: str) -> None:
    """Record why an asset is not materialised and its domain left out: what is downstream is skipped, and the other domains go on."""
    context.log.warning(f"{domain.name} is left out: {reason}")
    context.log_event(dg.AssetObservation(context.asset_key, metadata={LEFT_OUT: reason, "domain": domain.name}))


def common(domain: Domain, kinds: set[str], pool: str = WAREHOUSE_POOL) -> dict[str, Any]:
    return {"group_name": domain.group, "owners": [f"team:{domain.owner}"], "kinds": kinds, "pool": pool}


def pictures(plots: Mapping[str, bytes]) -> dict[str, dg.MetadataValue]:
    encoded = {name: base64.b64encode(png).decode() for name, png in plots.items()}
    return {name: dg.MetadataValue.md(f"![{name}](data:image/png;base64,{text})") for name, text in encoded.items()}


def load_frame(features: LazyTable, domain: Domain) -> "pd.DataFrame":
    """Return the feature table as pandas, ordered by its key so that training sees the same rows in the same order every time."""
    return to_frame(ordered(features, domain))


def sample_rows(features: LazyTable, domain: Domain, settings: Settings) -> LazyTable:
    """Return the rows that train and evaluate a model: all, or those of a sample of customers where ``FINRISK_TRAINING_ROWS`` allows fewer.

    Customers with an outcome and customers without one are drawn by the seed in equal shares. Every row of a drawn customer is kept, so
    rates, calibration and histories are those of the ledger, and no row needs a weight.
    """
    total = count(features)
    if total <= settings.training_rows:
        return features
    import ibis
    import numpy as np
    import pyarrow as pa

    has_outcome = features[domain.label].cast("int64").max().fill_null(0) > 0
    people = features.group_by("customer_id").agg(has_outcome=has_outcome).order_by("customer_id").to_pyarrow()
    names, is_stratum = people["customer_id"].to_numpy(), people["has_outcome"].to_numpy()
    draw, share = np.random.default_rng(settings.seed), settings.training_rows / total
    strata = [names[is_stratum == value] for value in (True, False)]
    drawn = np.concatenate([draw.permutation(stratum)[: round(len(stratum) * share)] for stratum in strata])
    return features.semi_join(ibis.memtable(pa.table({"customer_id": pa.array(np.sort(drawn), pa.string())})), "customer_id")


def load_evaluation_rows(warehouse: Warehouse, domain: Domain, settings: Settings) -> "pd.DataFrame":
    """Return the rows of the feature table on which a model is evaluated, ordered by its key.

    What its companions know is not joined: an evaluation is computed again from the version's own snapshot, bundle and policy alone.
    """
    features = warehouse.table(f"features_{domain.group}")
    return load_frame(domain.evaluation_rows(sample_rows(features, domain, settings)), domain)


def join_companions(rows: LazyTable, domain: Domain, warehouse: Warehouse) -> LazyTable:
    """Join what the companions of a domain know of rows of its feature table, as far as the warehouse has it."""
    return domain.join_companions(rows, lambda name: warehouse.table(name) if warehouse.has(name) else None)


def load_bundle(folder: Path, domain: Domain, settings: Settings) -> "Bundle":
    """Load a bundle of a domain as it decides: under the policy in effect, beside the champions of its companions that there are."""
    from finrisk_assets.scoring.bundle import Bundle

    policy, folders = load_policy(settings), {name: settings.root / "champions" / name / "bundle" for name in domain.companions}
    companions = {name: Bundle.load(path, threads=settings.threads, policy=policy) for name, path in folders.items() if path.is_dir()}
    return Bundle.load(folder, threads=settings.threads, policy=policy).under(policy, companions)


def ordered(features: LazyTable, domain: Domain) -> "pa.Table":
    """Return the rows of the feature table in memory, ordered by its key."""
    return features.order_by(domain.keys[0].name).to_pyarrow()


def to_frame(rows: "pa.Table") -> "pd.DataFrame":
    """Convert rows to pandas, which takes over their memory: `rows` must not be used afterwards."""
    return rows.to_pandas(self_destruct=True, split_blocks=True)


def run_link(tracking: Tracking, run_id: str) -> dg.MetadataValue:
    """Return the place of a run's page in MLflow: a link where MLflow's address is known, else the command that starts it."""
    page = _run_page(tracking, run_id)
    if tracking.address:
        return dg.MetadataValue.url(f"{tracking.address}/{page}")
    return dg.MetadataValue.md(
        f"`mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri {tracking.store}` shows it at [{page}](http://127.0.0.1:5000/{page})"
    )


def artifact_link(tracking: Tracking, run_id: str, artifact: str, file: Path) -> dg.MetadataValue:
    """Return the place of a file that is also an artifact of a run: a link where MLflow's address is known, else its path."""
    if not tracking.address:
        return dg.MetadataValue.path(file)
    return dg.MetadataValue.url(f"{tracking.address}/{_run_page(tracking, run_id)}/artifactPath/{artifact}")


def _run_page(tracking: Tracking, run_id: str) -> str:
    experiment = tracking.client().get_run(run_id).info.experiment_id
    return f"#/experiments/{experiment}/runs/{run_id}"


def console_link(settings: Settings, domain: Domain, part: str = "") -> dict[str, dg.MetadataValue]:
    """Return the address of a model's page in the console, as metadata, or of a part of it; nothing where no address is known."""
    page = f"{settings.console_url.rstrip('/')}/models/{domain.name}" + (f"#{part}" if part else "")
    return {"console": dg.MetadataValue.url(page)} if settings.console_url else {}


def log_artifact(client: Any, run_id: str, path: str, content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(path).name
        file.write_bytes(content)
        folder = Path(path).parent.as_posix()
        client.log_artifact(run_id, str(file), None if folder == "." else folder)


def figure_table(rows: list[dict[str, Any]]) -> Any:
    import pyarrow as pa

    text, number = pa.string(), pa.float64()
    return pa.Table.from_pylist(
        rows, pa.schema([("metric", text), ("value", number), ("low", number), ("high", number), ("meaning", text)])
    )


def read_figures(stored: LazyTable) -> list[Figure]:
    return [Figure(**row) for row in stored.to_pyarrow().to_pylist()]


def find_figure_faults(figures: list[Figure]) -> list[str]:
    if not figures:
        return ["there are no figures"]
    return [f"{figure.metric} is not a finite number" for figure in figures if not math.isfinite(figure.value)]


def check_finite_figures(asset: str) -> dg.AssetChecksDefinition:
    """Build the contract of a table of figures: the table has rows, and each figure is a finite number."""
    return checks.blocking_check(
        asset,
        f"{asset}_contract",
        "Every figure is a finite number.",
        lambda warehouse: find_figure_faults(read_figures(warehouse.table(asset))),
    )


def write_report(settings: Settings, domain: Domain, name: str, content: Mapping[str, Any]) -> None:
    """Replace a report of a domain that the service reads, a JSON file in the folder of reports."""
    file = settings.root / "reports" / domain.name / name
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_bytes(canonical_json(content))
    part.replace(file)


def find_bundle_faults(domain: Domain, source: Source, folder: Path) -> list[str]:
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleError

    try:
        bundle = Bundle.load(folder)
    except BundleError as error:
        return [str(error)]
    lacking = [feature.name for feature in bundle.features if feature.name not in domain.feature_contract(source).names]
    return [f"the bundle reads {name}, which features_{domain.group} does not have" for name in lacking]
