"""Cashflow on data with an answer: Berka beside plain rules, the simulator beside its truth, and the Bank Marketing example.

Run it as ``python -m benchmarks.cashflow`` (a minute or two). It reads FINRISK_DATA_DIR and goes the product's way: source, contract,
features, training, evaluation on the frozen test window. Berka's two slices of movements lie a year apart and share no account: the
whole ledger is tested on the later one, so each slice is also trained and tested alone, out of time within itself.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import ibis

from finrisk_assets.domains.base import Figure
from finrisk_assets.domains.cashflow import model
from finrisk_assets.domains.cashflow.definition import CASHFLOW
from finrisk_assets.ledger import contract, sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training.candidates import to_matrix
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).parents[1]
GAP = "1995-01-01"
"""Between Berka's slices."""

SHOWN = (
    "auc", "persistence_auc", "auc_above_persistence", "persistence_amount_auc", "auc_above_persistence_amount", "seasonal_naive_auc",
    "auc_above_seasonal_naive", "seasonal_naive_amount_auc", "auc_above_seasonal_naive_amount", "expected_calibration_error",
    "calibration_slope", "surplus_rate", "mean_surplus", "interval_coverage", "share_below_interval", "mean_interval_width",
    "mae_expected", "mae_no_change", "mae_last_month", "n_test",
)  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """The feature table of a source, in the order of its key, and what only a simulator knows of it."""

    source: Source
    settings: Settings
    frame: "pd.DataFrame"
    truth: "pd.DataFrame | None"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="all", choices=["berka", "simulator", "bank", "all"])
    parser.add_argument("--threads", type=int, default=1, help="threads of a model's training")
    given = parser.parse_args()
    if given.source in ("berka", "all"):
        berka(given.threads)
    if given.source in ("simulator", "all"):
        simulator(given.threads)
    if given.source in ("bank", "all"):
        bank(given.threads)


def load(name: str, threads: int = 1, mapping: Path | None = None) -> Panel:
    """Bring a source through its contract to the feature table."""
    data_dir = Settings.from_environment().data_dir
    settings = Settings(source=name, data_dir=data_dir, as_of=datetime(2026, 1, 1), threads=threads, mapping=mapping)
    source = sources.load(settings)
    engine = ibis.duckdb.connect()
    valid: dict[str, ibis.Table] = {}
    with tempfile.TemporaryDirectory() as folder:
        for table, raw in source.tables.items():
            raw.land(Path(folder) / f"{table}.parquet")
            landed = engine.read_parquet(Path(folder) / f"{table}.parquet", table_name=f"raw_{table}")
            valid[table] = engine.create_table(table, contract.split(raw.table, raw.columns, landed, valid, settings.now).valid)
        truth = None
        if CASHFLOW.truth in source.truth:
            source.truth[CASHFLOW.truth](Path(folder) / "truth.parquet")
            truth = engine.read_parquet(Path(folder) / "truth.parquet").to_pandas()
        started = time.perf_counter()
        frame = CASHFLOW.build_features(valid, source).order_by("account_month").to_pyarrow().to_pandas()
    n = len(CASHFLOW.select_features(source))
    print(f"\n{source.description}\n{len(frame)} rows, {n} features in {time.perf_counter() - started:.1f} s")
    return Panel(source, settings, frame, truth)


def judge(panel: Panel, frame: "pd.DataFrame") -> tuple[Bundle, Mapping[str, Figure]]:
    """Train on these rows and return the bundle and its figures on their test window."""
    started = time.perf_counter()
    trained = CASHFLOW.train(frame, CASHFLOW.select_features(panel.source), panel.source, panel.settings)
    bundle = Bundle(trained.spec, "")
    fitted = time.perf_counter()
    figures = {figure.metric: figure for figure in CASHFLOW.evaluate(frame, bundle, panel.settings).figures}
    chosen, split = trained.params["champion_candidate"], trained.params["split"]
    print(f"  {chosen}, trained in {fitted - started:.1f} s, judged in {time.perf_counter() - fitted:.1f} s; {split}")
    for name in SHOWN:
        if name in figures:
            show(figures[name])
    for fault in CASHFLOW.find_faults(figures):
        print(f"  the gate refuses: {fault}")
    return bundle, figures


def show(figure: Figure) -> None:
    bounds = "" if figure.low is None or figure.high is None else f"[{figure.low:.4f}, {figure.high:.4f}]"
    print(f"    {figure.metric:34} {figure.value:12.4f} {bounds}")


def berka(threads: int) -> None:
    """Both slices as one ledger, then each alone."""
    panel = load("berka", threads)
    early = panel.frame.as_of < GAP
    for title, rows in (("both slices", early | True), ("first slice alone", early), ("second slice alone", ~early)):
        print(f"{title}:")
        judge(panel, panel.frame[rows].reset_index(drop=True))


def simulator(threads: int) -> None:
    """The default economy, beside its true probabilities."""
    panel = load("simulator", threads)
    bundle, _ = judge(panel, panel.frame)
    assert panel.truth is not None
    truth = {CASHFLOW.truth: panel.truth.assign(as_of=panel.truth.as_of.astype(panel.frame.as_of.dtype))}
    print("beside the truth:")
    for figure in CASHFLOW.compare_with_truth(panel.frame, truth, bundle, panel.settings):
        show(figure)


def bank(threads: int) -> None:
    """The example of a panel of one's own: its demonstration's random split, the order of its rows, and random folds."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from finrisk_assets.modelling.evaluation import metrics

    panel = load("mapped", threads, ROOT / "docs" / "bank-marketing.yaml")
    print("at random, as the demonstration splits it:")
    judge(panel, panel.frame)
    print("in order:")
    judge(panel, in_order(panel.frame))
    features = CASHFLOW.select_features(panel.source)
    rows, labels = to_matrix(panel.frame, features), panel.frame.is_surplus.to_numpy(dtype=bool)
    boosted = model.candidates(features, panel.settings.seed, threads)["xgboost"]
    folds = StratifiedKFold(5, shuffle=True, random_state=panel.settings.seed)
    said = cross_val_predict(boosted, rows, labels, cv=folds, method="predict_proba")[:, 1]
    print(f"    in five random folds: AUC {metrics.auc(labels, said)}")


def in_order(frame: "pd.DataFrame") -> "pd.DataFrame":
    """The panel with the number of a row as its moment, so that it is split by the file's order, which is said to be that of time."""
    return frame.assign(as_of=frame.account_id.astype("int64").to_numpy().astype("datetime64[s]").astype("datetime64[us]"))


if __name__ == "__main__":
    main()
