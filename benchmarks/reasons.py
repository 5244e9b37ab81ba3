"""How often changing the factors that a refusal's reasons name flips the decision: loan default, on what runs have left and on Taiwan.

Run it as ``python -m benchmarks.reasons`` after ``make demo`` (about a minute). It reads the feature tables and champions below
FINRISK_HOME, and Taiwan's loans from FINRISK_DATA_DIR. Boosted trees are fitted beside each champion, so that both kinds of model show.

A named factor becomes what is typical (the median) of the applicants just approved: the riskiest below the cutoff among those of the
validation window. Refused are rows of the test window, and standing applications at month-ends where there are any.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np

from benchmarks import loans
from finrisk_assets.loan_default import decide
from finrisk_assets.loan_default.assets import CLASSIFIER
from finrisk_assets.modelling import candidates, explain, flips
from finrisk_assets.modelling.bundle import Bundle, BundleSpec, Floats, Rows
from finrisk_assets.modelling.split import Split, split
from finrisk_assets.modelling.trees import component_from
from finrisk_assets.settings import Settings
from schemas.features import Feature

STORED = ("simulator", "berka", "karlan_zinman")
DEMANDED = 0.9
MOST = 500
"""Refused rows that are looked at, drawn at random: a tree's explanation takes a millisecond."""
QUESTIONS = (
    ("refused, then not refused", "refuse_from", "refuse_from"),
    ("refused, then approved at once", "refuse_from", "refer_from"),
    ("not approved, then approved", "refer_from", "refer_from"),
)


@dataclass(frozen=True)
class Applicants:
    """What is known of a source's loans, their split, and the standing applications that may be refused too."""

    features: tuple[Feature, ...]
    rows: Rows
    labels: Floats
    windows: Split
    standing: Rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help=f"of {', '.join(STORED)} and taiwan; all, unless named")
    parser.add_argument("--threads", type=int, default=1, help="threads of a model's training")
    given = parser.parse_args()
    unknown = sorted(set(given.sources) - {*STORED, "taiwan"})
    if unknown:
        parser.error(f"no loans are known of {', '.join(unknown)}")
    started, environment = time.perf_counter(), Settings.from_environment()
    for source in given.sources or (*STORED, "taiwan"):
        settings = Settings(home=environment.home, data_dir=environment.data_dir, source=source)
        champion = settings.root / "champions" / "loan_default" / "bundle"
        if source == "taiwan":
            report("taiwan, boosted trees", *fitted(taiwan(settings), settings, given.threads))
        elif champion.is_dir():
            held = stored(settings, champion)
            report(f"{source}, champion", Bundle.load(champion), held)
            report(f"{source}, boosted trees", *fitted(held, settings, given.threads))
        else:
            print(f"\n{source}: no champion below {settings.root}: FINRISK_SOURCE={source} finrisk demo makes it")
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def stored(settings: Settings, champion: Path) -> Applicants:
    """The loans and standing applications of a run's feature table, split as the champion was trained."""
    declared = Bundle.load(champion).features
    engine = ibis.duckdb.connect(settings.root / "warehouse.duckdb", read_only=True)
    frame = engine.table("features_loan_default", database="analytics").execute().sort_values("loan_id").reset_index(drop=True)
    known = CLASSIFIER.known(frame, settings)
    standing = candidates.matrix(frame[frame.is_default.isna()], declared)
    windows = CLASSIFIER.split(known, settings)
    return Applicants(declared, candidates.matrix(known, declared), known.is_default.to_numpy(dtype=float), windows, standing)


def taiwan(settings: Settings) -> Applicants:
    held = loans.load("taiwan")
    windows = split(held.keys, held.labels, seed=settings.seed)
    return Applicants(held.features, held.rows, held.labels.astype(float), windows, held.rows[:0])


def fitted(held: Applicants, settings: Settings, threads: int) -> tuple[Bundle, Applicants]:
    """Boosted trees on the training window, as a bundle with its reference."""
    model = candidates.candidates(held.features, settings.seed, threads, len(held.windows.train))["xgboost"]
    (one,) = candidates.fit_all(held.rows, held.labels, held.windows, {"xgboost": model})
    validation, turns = held.rows[held.windows.validation], decide.thresholds()
    spec = BundleSpec(
        name="finrisk-loan-default",
        domain="loan_default",
        source=settings.source,
        features=held.features,
        components=(component_from(one.estimator, held.features).component,),
        calibration=one.calibrated.calibration,
        thresholds=turns,
        golden_rows=validation[:1],
        seed=settings.seed,
        data_sha256="",
        code_sha256="",
    )
    return Bundle(spec, "", threads), held


def report(name: str, bundle: Bundle, held: Applicants) -> None:
    """Print the flip rate of every question, population and choice of factors."""
    turns, validation = bundle.thresholds, held.rows[held.windows.validation]
    near = validation[flips.nearest_approved(bundle.probability(validation), turns["refer_from"])]
    reference = bundle.reference or explain.just_approved(bundle, validation, turns["refer_from"])
    ordinary = flips.typical(near)
    choices: Mapping[str, flips.Choice] = {
        "reasons": flips.by_reasons(reference),
        "mean SHAP": flips.by_reasons(None),
        "best four": flips.by_rescoring(ordinary),
        "any four": flips.at_random(bundle.seed),
    }
    print(f"\n{name}: refer from {turns['refer_from']:.3f}, refuse from {turns['refuse_from']:.3f}; {len(near)} just approved")
    print(f"  {'':52} {'reasons':24} {'':17} {'factors':8} {'  '.join(list(choices)[1:])}")
    for question, low, below in QUESTIONS:
        for population, rows in _refused(bundle, held, turns[low]):
            found = {choice: flips.flips(bundle, rows, choose, ordinary, turns[below]) for choice, choose in choices.items()}
            told, others = found["reasons"], "  ".join(f"{found[choice].rate.value:{len(choice)}.3f}" for choice in list(choices)[1:])
            asked = low == below == "refuse_from"
            mark = f"  demanded {DEMANDED}: {'reached' if told.rate.value >= DEMANDED else 'MISSED'}" if asked else ""
            moved = f"p {told.before:.3f} -> {told.after:.3f}"
            print(f"  {question:29} {told.n:5} {population:16} {told.rate} {moved:17} {told.named:7.1f}  {others}{mark}")


def _refused(bundle: Bundle, held: Applicants, threshold: float) -> Iterator[tuple[str, Rows]]:
    for population, rows in (("loans, test", held.rows[held.windows.test]), ("month-ends", held.standing)):
        refused = rows[bundle.probability(rows) >= threshold] if len(rows) else rows
        if len(refused) > MOST:
            refused = refused[np.random.default_rng(bundle.seed).choice(len(refused), MOST, replace=False)]
        if len(refused):
            yield population, refused


if __name__ == "__main__":
    main()
