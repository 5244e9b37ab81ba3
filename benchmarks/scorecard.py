"""The scorecard beside the other candidates for loan default, and how long one row takes.

Run it as ``python -m benchmarks.scorecard`` (about a minute). Taiwan is read from FINRISK_DATA_DIR and split as the published figures
are. ``--home`` adds the loans of a home that ``make demo`` filled: the split in time, the candidates and the choice are the product's.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.loans import PUBLISHED, SEED, load
from finrisk_assets.domains.loan_default.model import SCORECARD, candidates
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import candidates as model
from finrisk_assets.modelling.training.scorecard import Scorecard, ScorecardClassifier
from finrisk_assets.scoring.spec import Rows
from finrisk_assets.settings import Settings
from schemas.features import Feature


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, action="append", default=[], help="a FINRISK_HOME with features_loan_default, repeatable")
    parser.add_argument("--threads", type=int, default=1, help="threads of a model's training")
    parser.add_argument("--cards-only", action="store_true", help="leave out the other candidates")
    given = parser.parse_args()
    data = Settings.from_environment().data_dir / "taiwan"
    if data.is_dir():
        taiwan(given.threads, given.cards_only)
    else:
        print(f"taiwan: no data at {data}; set FINRISK_DATA_DIR")
    for home in given.home:
        stored(home, given.threads, given.cards_only)


def cards(features: Sequence[Feature]) -> dict[str, Any]:
    """Return the product's scorecard, and one cut without OptBinning."""
    names, monotone = tuple(feature.name for feature in features), tuple(feature.monotone for feature in features)
    return {SCORECARD: ScorecardClassifier(names, monotone), "scorecard_pooled": ScorecardClassifier(names, monotone, binning="pooled")}


def taiwan(threads: int, cards_only: bool) -> None:
    """A quarter as test, drawn as the published benchmark draws it (not stratified, seed 42)."""
    from sklearn.model_selection import train_test_split

    loans = load("taiwan")
    learn, test = train_test_split(np.arange(len(loans.labels)), test_size=0.25, random_state=SEED)
    others = {} if cards_only else candidates(loans.features, SEED, threads, len(learn))
    for name, one in (others | cards(loans.features)).items():
        began = time.perf_counter()
        one.fit(loans.rows[learn], loans.labels[learn])
        seconds = time.perf_counter() - began
        area = metrics.auc(loans.labels[test], model.compute_margin(one, loans.rows[test])[0])
        print(f"  {name:28} AUC {area}  {seconds:6.1f} s  {_size(one)}")
        if isinstance(one, ScorecardClassifier):
            _speed(one.card_, loans.rows[test[:2_000]], one.names)
    print("  published:", ", ".join(f"{name} {value:.4f}" for name, value in PUBLISHED.items()))


def stored(home: Path, threads: int, cards_only: bool) -> None:
    """The loans of a home, split in time; each candidate on the validation and on the test window."""
    import ibis

    from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
    from finrisk_assets.scoring.bundle import Bundle

    settings = Settings.from_environment()
    declared = Bundle.load(home / "champions" / "loan_default" / "bundle").features
    engine = ibis.duckdb.connect(home / "warehouse.duckdb", read_only=True)
    known = LOAN_DEFAULT.labelled_rows(engine.table("features_loan_default", database="analytics").execute(), settings)
    engine.disconnect()
    windows, rows = LOAN_DEFAULT.split(known, settings), model.to_matrix(known, declared)
    labels = known.is_default.to_numpy(dtype=int)
    print(f"\n{home.name}: {len(labels)} loans, {labels.mean():.2%} in default, {len(windows.train)} to learn from")
    others = {} if cards_only else candidates(declared, settings.seed, threads, len(windows.train))
    for found in model.fit_candidates(rows, labels, windows, others | cards(declared)):
        area = metrics.auc(labels[windows.test], found.probability(rows[windows.test]))
        print(f"  {found.name:28} validation AUC {found.auc}  test AUC {area}  {found.seconds:6.1f} s  {_size(found.estimator)}")


def _size(estimator: Any) -> str:
    if not isinstance(estimator, ScorecardClassifier):
        return ""
    parts = estimator.card_.characteristics
    return f"{len(parts)} characteristics, {sum(len(one.points) for one in parts)} bins"


def _speed(card: Scorecard, rows: Rows, names: Sequence[str]) -> None:
    given = [dict(zip(names, row, strict=True)) for row in rows.tolist()]
    card.points(given[0])
    began = time.perf_counter()
    for row in given:
        card.points(row)
    print(f"  {'':28} {(time.perf_counter() - began) / len(given) * 1e6:.1f} us a row")


if __name__ == "__main__":
    main()
