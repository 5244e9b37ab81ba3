"""Loan offers on the Karlan–Zinman experiment: the published estimates first, then acceptance, then the profit of a default model.

Run it as ``python -m benchmarks.offers``. It reads FINRISK_DATA_DIR. The published figures are those of Karlan & Zinman, *Credit
Elasticities in Less-Developed Economies* (American Economic Review 98, 2008); the specification is theirs: the monthly rate, dummies of
risk grade and mailing. Nothing is chosen on the test rows.
"""

import argparse
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.ledger.sources.karlan_zinman import FILE, read
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """One published figure beside ours: the coefficient of the monthly rate in percentage points, and the rows."""

    name: str
    published: float
    published_n: int | None
    value: float
    n: int
    digits: int


def estimates(clients: "pd.DataFrame") -> list[Estimate]:
    """The published estimates, estimated again.

    The take-up is *having applied*; its marginal effect is taken at the means. Revenue, size and arrears are regressed on the rate
    among offers not above the standard rate whose contract rate is the offered one.
    """
    usual = clients[clients.normrate_less == 1]
    above = clients[clients.normrate_more == 1]
    kept = usual[usual.offer4 == usual.final4]
    controls = ("LOW", "MEDIUM", 1, 2)
    found = [
        Estimate("take-up, up to the standard rate", -0.00289, 53_178, probit_effect(usual, controls), len(usual), 5),
        # Only the first mailing offered such rates.
        Estimate("take-up, above the standard rate", -0.017, None, probit_effect(above, controls[:2]), len(above), 4),
    ]
    for name, outcome, published, n in (
        ("interest revenue", "grossinterest", 2.553, 31_231),
        ("loan size", "loansize", -4.368, 31_231),
        ("past due", "pstdue_average", 12.161, 2_325),
    ):
        rows = kept[kept[outcome].notna()]
        solved = np.linalg.lstsq(design(rows, controls), rows[outcome].to_numpy(np.float64), rcond=None)[0]
        found.append(Estimate(name, published, n, float(solved[1]), len(rows), 3))
    return found


def design(clients: "pd.DataFrame", controls: tuple[str | int, ...]) -> Floats:
    """Constant, monthly rate, and a dummy per control: a risk grade by its name, a mailing by its number."""
    dummies = [(clients.risk == one) if isinstance(one, str) else (clients.wave == one) for one in controls]
    return np.column_stack([np.ones(len(clients)), clients.offer4, *dummies]).astype(np.float64)


def probit_effect(clients: "pd.DataFrame", controls: tuple[str | int, ...]) -> float:
    """Marginal effect of the monthly rate on the probability of applying, at the means, of a probit fitted by Newton's method."""
    from scipy.stats import norm

    rows, sign = design(clients, controls), 2 * clients.applied.to_numpy(np.float64) - 1
    beta = np.zeros(rows.shape[1])
    for _ in range(100):
        index = rows @ beta
        ratio = sign * np.exp(norm.logpdf(index) - norm.logcdf(sign * index))
        step = np.linalg.solve((rows * (ratio * (ratio + index))[:, None]).T @ rows, rows.T @ ratio)
        beta += step
        if np.abs(step).max() < 1e-10:
            return float(beta[1] * norm.pdf(rows.mean(axis=0) @ beta))
    raise ValueError("the probit did not converge")


def acceptance(settings: Settings, clients: "pd.DataFrame", boosted: bool) -> None:
    """Print how well acceptance is ranked, calibrated, and how steeply it falls, at random and on the last mailing."""
    from finrisk_assets.domains.loan_offers import definition, model
    from finrisk_assets.modelling.evaluation import metrics
    from finrisk_assets.modelling.training import candidates

    source, tables = load(settings)
    domain = definition.LOAN_OFFERS
    declared = domain.select_features(source)
    known = domain.labelled_rows(domain.build_features(tables, source).execute().sort_values("offer_id", ignore_index=True), settings)
    rows, labels = candidates.to_matrix(known, declared), known.is_accepted.to_numpy()
    mailing = clients.wave.to_numpy()[known.offer_id.astype(int) - 1]
    random = domain.split(known, settings)
    early = np.flatnonzero(mailing < 3)
    held = np.random.default_rng(settings.seed).random(len(early)) < 0.25
    last = replace(random, train=early[~held], validation=early[held], test=np.flatnonzero(mailing == 3))
    models = model.candidates(declared, settings.seed)
    if boosted:
        models["xgboost"] = candidates.build_candidates(declared, settings.seed, settings.threads, len(rows))["xgboost"]
    at = [feature.name for feature in declared].index("annual_rate_pct")
    print(f"\n{'split':14}{'model':22}{'AUC [95 %]':26}{'ECE':>7}{'per pp a month':>16}{'n':>8}")
    for name, window in (("at random", random), ("last mailing", last)):
        test, outcome = rows[window.test], labels[window.test]
        for one in candidates.fit_candidates(rows, labels, window, models):
            level = model.calibrate_level(candidates.compute_margin(one.estimator, rows[window.validation])[0], labels[window.validation])

            def said(at_rows: NDArray[np.float32], one=one, level=level) -> Floats:  # type: ignore[no-untyped-def]
                return level.apply(candidates.compute_margin(one.estimator, at_rows)[0])

            above, below = test.copy(), test.copy()
            above[:, at] += 6  # half a point a month on either side
            below[:, at] -= 6
            slope = float((said(above) - said(below)).mean())
            p = said(test)
            error = metrics.expected_calibration_error(outcome, p)
            print(f"{name:14}{one.name:22}{metrics.auc(outcome, p)!s:26}{error:7.4f}{slope:16.5f}{len(test):8,}")


def default(settings: Settings) -> None:
    """Print the expected maximum profit of a logistic default model on the borrowers' test rows."""
    from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
    from finrisk_assets.modelling.evaluation import metrics
    from finrisk_assets.modelling.evaluation.expected_max_profit import expected_max_profit
    from finrisk_assets.modelling.training import candidates

    source, tables = load(settings)
    declared = LOAN_DEFAULT.select_features(source)
    known = LOAN_DEFAULT.labelled_rows(
        LOAN_DEFAULT.build_features(tables, source).execute().sort_values("loan_id", ignore_index=True), settings
    )
    rows, labels = candidates.to_matrix(known, declared), known.is_default.to_numpy()
    window = LOAN_DEFAULT.split(known, settings)
    models = candidates.build_candidates(declared, settings.seed, settings.threads, len(window.train))
    one = candidates.fit_candidates(rows, labels, window, {"logistic_regression": models["logistic_regression"]})[0]
    outcome, said = labels[window.test], one.probability(rows[window.test])
    profit = expected_max_profit(outcome, said)
    print(f"\nDefault of the borrowers: AUC {metrics.auc(outcome, said)}, {int(outcome.sum())} of {len(outcome)} test loans bad")
    print(f"EMP {profit.profit:.4f} of the sum lent, refusing {profit.refused:.1%} (Verbraken et al. 2014, their loss and return)")


def load(settings: Settings):  # type: ignore[no-untyped-def]
    """The source, and its valid tables in a DuckDB of their own."""
    import ibis

    from finrisk_assets.ledger import contract, sources

    source, engine = sources.load(settings), ibis.duckdb.connect()
    valid: dict[str, ibis.Table] = {}
    with tempfile.TemporaryDirectory() as folder:
        for table, raw in source.tables.items():
            path = Path(folder) / f"{table}.parquet"
            raw.land(path)
            landed = engine.create_table(f"raw_{table}", engine.read_parquet(path))
            valid[table] = engine.create_table(table, contract.split(raw.table, raw.columns, landed, valid, settings.now).valid)
    return source, valid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boosted", action="store_true", help="fit XGBoost beside it, as the README tells of")
    given = parser.parse_args()
    began = time.perf_counter()
    environment = Settings.from_environment()
    settings = Settings(source="karlan_zinman", data_dir=environment.data_dir, as_of=datetime(2020, 1, 1), threads=environment.threads)
    clients = read(settings.data_dir / "karlan_zinman" / FILE)
    print(f"{'per percentage point of the monthly rate':44}{'published':>11}{'ours':>11}{'n':>9}")
    for one in estimates(clients):
        print(f"{one.name:44}{one.published:11.{one.digits}f}{one.value:11.{one.digits}f}{one.n:9,}")
    acceptance(settings, clients, given.boosted)
    default(settings)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
