"""Spending risk on Berka and on the simulator: out of time and of other people, beside plain baselines, random folds and the oracle.

Run it as ``python -m benchmarks.spending`` (about two minutes). It reads FINRISK_DATA_DIR and goes the product's way: source, contract,
features, training, evaluation. Intervals are DeLong's, which take month-ends for independent, and a bootstrap over people.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import ibis
import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.spending_risk import definition, model
from finrisk_assets.ledger import contract, sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import candidates
from finrisk_assets.scoring import bundle
from finrisk_assets.settings import Settings

SEED = Settings().seed
Done = TypeVar("Done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="both", choices=["berka", "simulator", "both"])
    parser.add_argument("--customers", type=int, default=2_000, help="people in the simulator")
    parser.add_argument("--months", type=int, default=24, help="calendar months of the simulator's ledger")
    parser.add_argument("--threads", type=int, default=2, help="threads of a model's training")
    given = parser.parse_args()
    for name in ("berka", "simulator") if given.source == "both" else (given.source,):
        report(
            Settings(
                source=name,
                data_dir=Settings.from_environment().data_dir,
                as_of=datetime(2025, 12, 1),
                sim_customers=given.customers,
                sim_months=given.months,
                threads=given.threads,
            )
        )


def report(settings: Settings) -> None:
    """Print what both models reach on one source."""
    source = sources.load(settings)
    frame, truth = timed("ledger and features", lambda: load(source, settings))
    known = definition.SPENDING_RISK.labelled_rows(frame, settings)
    print(f"\n{source.description}\n{len(frame)} month-ends, {len(known)} with a known outcome, {known.is_trouble.mean():.2%} in trouble")
    windows = definition.SPENDING_RISK.split(known, settings)
    for name, rows in (("train", windows.train), ("validation", windows.validation), ("test", windows.test)):
        part = known.iloc[rows]
        print(f"  {name:10} {len(part):6} rows of {part.customer_id.nunique()} people, {part.is_trouble.sum()} in trouble")
    test = known.iloc[windows.test]
    for baseline in ("n_penalties_3m", "n_negative_balance_3m", "Low_Balance_Freq", "expense_to_income_3m"):
        print(f"  {baseline:24} AUC {metrics.auc(test.is_trouble, test[baseline])}")
    for domain in (definition.SPENDING_RISK, definition.SPENDING_RISK_EIGHT):
        judge(domain, frame, truth, source, settings)


def judge(domain: Domain, frame: pd.DataFrame, truth: pd.DataFrame | None, source: Source, settings: Settings) -> None:
    """Train one model as the product does and print its figures on the test window."""
    print(f"\n{domain.title}")
    trained = timed("training", lambda: domain.train(frame, domain.select_features(source), source, settings))
    for row in trained.candidates:
        print(f"  {row['model']:20} validation AUC {row['validation AUC']:.4f} [{row['low']:.4f}, {row['high']:.4f}]  {row['fit s']:.1f} s")
    with tempfile.TemporaryDirectory() as folder:
        bundle.write(Path(folder) / "bundle", trained.spec)
        champion = bundle.Bundle.load(Path(folder) / "bundle", threads=settings.threads)
    found = timed("evaluation", lambda: domain.evaluate(frame, champion, settings))
    for figure in found.figures:
        if figure.metric in ("auc", "brier", "calibration_slope", "expected_calibration_error", "trouble_rate", "mean_trouble"):
            interval = "" if figure.low is None else f" [{figure.low:.4f}, {figure.high:.4f}]"
            print(f"  {figure.metric:28} {figure.value:.4f}{interval}")
    window = domain.score_test_window(frame, champion, settings)
    low, high = by_people(window.labels, window.probability, window.frame.customer_id.to_numpy())
    print(f"  AUC, bootstrap over people   [{low:.4f}, {high:.4f}]")
    name = str(trained.params["champion_candidate"])
    known = domain.labelled_rows(frame, settings)
    folds = random_folds(known, domain, source, name, settings.threads)
    print(f"  AUC in random folds of rows  {folds}  neither out of time nor of other people")
    if truth is not None:
        for figure in domain.compare_with_truth(frame, {domain.truth: truth}, champion, settings):
            print(f"  {figure.metric:28} {figure.value:.4f}  {figure.meaning}")


def random_folds(known: pd.DataFrame, domain: Domain, source: Source, name: str, threads: int) -> metrics.Interval:
    """AUC of one candidate over five folds of rows drawn at random, which is how it should not be measured."""
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold

    declared = domain.select_features(source)
    rows, labels = candidates.to_matrix(known, declared), known.is_trouble.to_numpy(dtype=int)
    one = model.candidates(declared, SEED, threads, len(labels))[name]
    score = np.zeros(len(labels))
    for learn, test in StratifiedKFold(5, shuffle=True, random_state=42).split(rows, labels):
        score[test] = candidates.compute_margin(clone(one).fit(rows[learn], labels[learn]), rows[test])[0]
    return metrics.auc(labels, score)


def by_people(labels: ArrayLike, score: ArrayLike, people: NDArray[np.str_], draws: int = 500) -> tuple[float, float]:
    """95 % interval of the AUC where whole people are drawn again, not rows."""
    target, value = np.asarray(labels), np.asarray(score)
    order = np.argsort(people, kind="stable")
    rows_of = np.split(order, np.flatnonzero(people[order][1:] != people[order][:-1]) + 1)
    rng, found = np.random.default_rng(SEED), []
    for _ in range(draws):
        drawn = np.concatenate([rows_of[k] for k in rng.integers(0, len(rows_of), len(rows_of))])
        if 0 < target[drawn].sum() < len(drawn):
            found.append(metrics.auc(target[drawn], value[drawn]).value)
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def load(source: Source, settings: Settings) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Bring a source through its contract to features, and its true probabilities where it knows them."""
    engine = ibis.duckdb.connect(threads=settings.threads)
    valid: dict[str, ibis.Table] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, raw in source.tables.items():
            path = Path(folder) / f"{name}.parquet"
            raw.land(path)
            landed = engine.read_parquet(path, table_name=f"raw_{name}")
            valid[name] = engine.create_table(name, contract.split(raw.table, raw.columns, landed, valid, settings.now).valid)
        truth = None
        if definition.SPENDING_RISK.truth in source.truth:
            path = Path(folder) / "truth.parquet"
            source.truth[definition.SPENDING_RISK.truth](path)
            truth = pd.read_parquet(path)
        tables = {name: valid[name] for name in definition.SPENDING_RISK.tables}
        built = timed("features", lambda: engine.create_table("features", definition.SPENDING_RISK.build_features(tables, source)))
        return built.order_by("customer_month").to_pandas(), truth


def timed(what: str, work: Callable[[], Done]) -> Done:
    """Do it and print how long it took."""
    started = time.perf_counter()
    done = work()
    print(f"  {what}: {time.perf_counter() - started:.1f} s")
    return done


if __name__ == "__main__":
    main()
