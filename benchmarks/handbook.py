"""The Fraud Detection Handbook beside our models, through our ledger and features on DuckDB: `python -m benchmarks.handbook`.

Printed, in one run: the book's chapter 3 baseline reproduced; the choice of our champion on weeks before the test week; the test
week, and there a model of the champion's kind fitted on the book's single week; and the weeks in sequence. Ends with the marks to
reach and fails if one is missed. Needs the real data (FINRISK_DATA_DIR).

The rules of the race. A label is known seven days later: no model learns from, and no feature reads, a label younger than that.
The test week is 2018-08-08 to 08-14, known-compromised customers taken out day by day. The last week that chooses anything ends
on 07-31, and its labels are known on 08-07, before the test week begins.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import numpy.typing as npt

from benchmarks.prequential import Period, mask_test_rows, prequential_periods
from finrisk_assets.domains.transaction_anomaly import catalogue, features, model
from finrisk_assets.features.windows import Declaration
from finrisk_assets.ledger import contract
from finrisk_assets.ledger.sources import handbook
from finrisk_assets.modelling.evaluation.fraud_metrics import fraud_scores
from finrisk_assets.settings import Settings

SEED = 0
DELAY_DAYS = handbook.LABEL_DELAY_DAYS
TEST = date(2018, 8, 8)
VALIDATION = date(2018, 7, 4)
"""First day of the four weeks that choose the champion."""
HISTORY = date(2018, 4, 8)
"""First training day of our models: before it, windows with labels are empty."""
WEEKS = 7
"""Test weeks in sequence, from `TEST` to 2018-09-25."""

BOOK = {
    "logistic_regression": (0.871, 0.606, 0.291),
    "random_forest": (0.867, 0.658, 0.287),
    "xgboost": (0.862, 0.639, 0.273),
    "isolation_forest": (0.808, 0.164, 0.190),
}
"""AUC, AP and CP@100 of the book; the isolation forest's are prequential, from its chapter on unsupervised methods."""
REPRODUCED = ("logistic_regression", "random_forest")
TOLERANCE, AP_MARK, CP_MARK = 0.01, 0.75, 0.305


@dataclass(frozen=True)
class Rows:
    """Transactions in time order, with one feature matrix (float32, NaN = missing)."""

    days: npt.NDArray[np.datetime64]
    customers: npt.NDArray[np.int32]
    is_fraud: npt.NDArray[np.bool_]
    matrix: npt.NDArray[np.float32]

    def scores(self, mask: npt.NDArray[np.bool_], margin: npt.NDArray[np.float64]) -> tuple[float, float, float]:
        found = fraud_scores(self.days[mask], self.customers[mask], self.is_fraud[mask], margin)
        return found["auc"], found["ap"], found["card_precision_at_100"]

    def period_mask(self, period: Period) -> npt.NDArray[np.bool_]:
        return mask_test_rows(period, self.days, self.customers, self.is_fraud)


def validated_transactions(connection: Any, settings: Settings, folder: Path) -> tuple[ibis.Table, tuple[str, ...]]:
    """Land the Handbook, hold it to the contract and store what meets it; with the columns that the source fills."""
    transactions = handbook.source(settings).tables["transactions"]
    transactions.land(folder / "raw.parquet")
    raw = connection.read_parquet(str(folder / "raw.parquet"))
    valid = contract.split(transactions.table, transactions.columns, raw, {}, datetime(2019, 1, 1)).valid
    return connection.create_table("transactions", valid), tuple(transactions.columns)


def rows_of(transactions: ibis.Table, declared: Sequence[Declaration], folder: Path) -> Rows:
    names = [declaration.feature.name for declaration in declared]
    began = time.perf_counter()
    features.build(transactions, declared).to_parquet(str(folder / "features.parquet"))
    took = time.perf_counter() - began
    stored = ibis.duckdb.connect().read_parquet(str(folder / "features.parquet"))
    ordered = stored.order_by("occurred_at", "transaction_id")
    keys = ordered.select("occurred_at", "customer_id", "is_fraud").to_pyarrow()
    matrix = np.empty((keys.num_rows, len(names)), dtype=np.float32)
    for at, name in enumerate(names):
        matrix[:, at] = ordered.select("occurred_at", "transaction_id", name).to_pyarrow()[name].to_numpy()
    print(f"{len(names):3} features of {keys.num_rows:,} transactions on DuckDB: {took:.1f} s")
    return Rows(
        keys["occurred_at"].to_numpy().astype("datetime64[D]"),
        keys["customer_id"].combine_chunks().dictionary_encode().indices.to_numpy(),
        keys["is_fraud"].to_numpy(zero_copy_only=False).astype(bool),
        matrix,
    )


def book_models(threads: int) -> dict[str, Any]:
    """The book's estimators with its defaults, which for XGBoost were other ones then."""
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from xgboost import XGBClassifier

    last = {
        "logistic_regression": LogisticRegression(random_state=0),
        "random_forest": RandomForestClassifier(random_state=0, n_jobs=threads),
        "xgboost": XGBClassifier(random_state=0, tree_method="exact", base_score=0.5, n_jobs=threads),
    }
    return {name: make_pipeline(StandardScaler(), estimator) for name, estimator in last.items()}


def isolation(rows: Rows, period: Period, declared: Sequence[Declaration]) -> npt.NDArray[np.float64]:
    """Margins of an isolation forest on the rows to be judged, fitted on the week before the delay, without labels."""
    recent = (rows.days >= np.datetime64(period.known_since)) & (rows.days <= np.datetime64(period.train_end))
    usable = model.isolate_features([declaration.feature for declaration in declared], rows.matrix[recent])
    forest = model.isolation_forest(SEED).fit(usable)
    return model.compute_isolation_margin(forest, rows.matrix[rows.period_mask(period)])


def fitted(estimator: Any, rows: Rows, period: Period) -> Any:
    """A candidate fitted on all history whose labels are known: every fraud, a share of the rest."""
    learn = np.flatnonzero(period.train_mask(rows.days))
    learn = learn[model.undersample(rows.is_fraud[learn], SEED)]
    return estimator.fit(rows.matrix[learn], rows.is_fraud[learn].astype(int))


def show(name: str, scores: Sequence[float], beside: Sequence[float] | None = None, note: str = "") -> None:
    told = "" if beside is None else "   book " + " / ".join(f"{value:.3f}" for value in beside)
    print(f"  {name:34}" + " / ".join(f"{value:.3f}" for value in scores) + told + (f"   {note}" if note else ""), flush=True)


def choose(
    rows: Rows, periods: Sequence[Period], declared: Sequence[Declaration], threads: int
) -> tuple[str, model.MarginJoin, bool, Mapping[str, Sequence[float]]]:
    """The candidate with the highest mean AP over the validation weeks, the join, and whether the join was worth it.

    The join is judged on the last week with weights from the weeks before; then it is fitted anew on all of them.
    """
    declared_features = [declaration.feature for declaration in declared]
    margins: dict[str, list[npt.NDArray[np.float64]]] = {}
    for period in periods:
        mask = rows.period_mask(period)
        for name, estimator in model.candidates(declared_features, SEED, n_jobs=threads).items():
            margins.setdefault(name, []).append(model.compute_log_odds(fitted(estimator, rows, period), rows.matrix[mask]))
        margins.setdefault("isolation_forest", []).append(isolation(rows, period, declared))
    masks = [rows.period_mask(period) for period in periods]
    mean = {
        name: tuple(np.mean([rows.scores(mask, margin) for mask, margin in zip(masks, weeks, strict=True)], axis=0).tolist())
        for name, weeks in margins.items()
    }
    chosen = max((name for name in mean if name != "isolation_forest"), key=lambda name: mean[name][1])
    labels = [rows.is_fraud[mask] for mask in masks]

    def joined(weeks: slice) -> model.MarginJoin:
        parts = {name: np.concatenate(margins[name][weeks]) for name in (chosen, "isolation_forest")}
        return model.fit_join(np.concatenate(labels[weeks]), parts)

    trial = joined(slice(None, -1)).margin({name: margins[name][-1] for name in (chosen, "isolation_forest")})
    worth = rows.scores(masks[-1], trial)[1] >= rows.scores(masks[-1], margins[chosen][-1])[1]
    return chosen, joined(slice(None)), bool(worth), mean


def main() -> int:
    settings = Settings.from_environment()
    threads = settings.threads
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        connection = ibis.duckdb.connect(threads=threads)
        transactions, filled = validated_transactions(connection, settings, folder)
        ours = features.select_features(filled)
        book_rows = rows_of(transactions, catalogue.HANDBOOK, folder)
        our_rows = rows_of(transactions, ours, folder)
        connection.disconnect()

    marks: dict[str, bool] = {}
    (test,) = prequential_periods(TEST, 1, train_days=7, delay_days=DELAY_DAYS)
    mask, train = book_rows.period_mask(test), test.train_mask(book_rows.days)
    frauds = int(book_rows.is_fraud[mask].sum())
    print("\nChapter 3, reproduced: AUC / AP / CP@100")
    print(f"  {train.sum():,} rows to learn from, {mask.sum():,} judged, {frauds} of them fraud")
    for name, estimator in book_models(threads).items():
        began = time.perf_counter()
        estimator.fit(book_rows.matrix[train], book_rows.is_fraud[train].astype(int))
        scores = book_rows.scores(mask, estimator.predict_proba(book_rows.matrix[mask])[:, 1])
        show(name, scores, BOOK[name], f"{time.perf_counter() - began:.1f} s")
        if name in REPRODUCED:
            near = max(abs(one - other) for one, other in zip(scores, BOOK[name], strict=True))
            marks[f"{name} within {TOLERANCE} of the book ({near:.3f} off)"] = near <= TOLERANCE
    show(
        "isolation_forest",
        book_rows.scores(mask, isolation(book_rows, test, catalogue.HANDBOOK)),
        BOOK["isolation_forest"],
        "15 features",
    )

    weeks = tuple(prequential_periods(VALIDATION, 4, train_days=7, delay_days=DELAY_DAYS, history_start=HISTORY))
    print(f"\nChosen on {weeks[0].test_start} to {weeks[-1].test_end}: mean of four weeks, {len(ours)} features")
    chosen, joined, worth, table = choose(our_rows, weeks, ours, threads)
    for name, means in table.items():
        show(name, means, note="chosen" if name == chosen else "")
    weights = ", ".join(f"{weight:.3f} x {name}" for name, weight in joined.weights.items())
    print(f"  join: {joined.intercept:.3f} + {weights}; {'kept' if worth else 'left out'}, by the last of the four weeks")

    def champion(period: Period) -> tuple[dict[str, tuple[float, float, float]], float]:
        began = time.perf_counter()
        candidate = model.candidates([declaration.feature for declaration in ours], SEED, n_jobs=threads)[chosen]
        fitted(candidate, our_rows, period)
        took = time.perf_counter() - began
        mask = our_rows.period_mask(period)
        parts = {chosen: model.compute_log_odds(candidate, our_rows.matrix[mask]), "isolation_forest": isolation(our_rows, period, ours)}
        margins = {**parts, "joined": joined.margin(parts)}
        return {part: our_rows.scores(mask, margin) for part, margin in margins.items()}, took

    leader = "joined" if worth else chosen
    sequence = tuple(prequential_periods(TEST, WEEKS, train_days=7, delay_days=DELAY_DAYS, history_start=HISTORY))
    results, took = champion(sequence[0])
    print(f"\nThe test week, {TEST} to {sequence[0].test_end}; the champion is {leader}, fitted in {took:.1f} s")
    for name, scores in results.items():
        show(name, scores, BOOK["isolation_forest"] if name == "isolation_forest" else None)
    # Like for like: the book's models above learned from this week only.
    week = model.candidates([declaration.feature for declaration in ours], SEED, n_jobs=threads)[chosen]
    week.fit(our_rows.matrix[train], our_rows.is_fraud[train].astype(int))
    show(f"{chosen}, the book's week", our_rows.scores(mask, model.compute_log_odds(week, our_rows.matrix[mask])), note="no other rows")
    _, ap, cp = results[leader]
    marks[f"AP of the champion {ap:.3f}, at least {AP_MARK}"] = ap >= AP_MARK
    marks[f"CP@100 of the champion {cp:.3f}, at least {CP_MARK}"] = cp >= CP_MARK
    marks[f"champion fitted in {took:.1f} s, under 60 s"] = took < 60

    print(f"\nIn sequence, {WEEKS} weeks to {sequence[-1].test_end}: mean and standard deviation")
    collected = [results, *(champion(period)[0] for period in sequence[1:])]
    for name in results:
        every = np.array([week[name] for week in collected])
        spread = " / ".join(f"{value:.3f}" for value in every.std(axis=0, ddof=1))
        show(name, every.mean(axis=0).tolist(), note=f"sd {spread}")

    print(f"\nPeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB\n")
    for text, reached in marks.items():
        print(f"{'reached' if reached else 'MISSED '}  {text}")
    return 0 if all(marks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
