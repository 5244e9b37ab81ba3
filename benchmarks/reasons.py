"""The share of refusals that flip when the factors named by their reasons change: loan default, on finished runs and on Taiwan.

Run it as ``python -m benchmarks.reasons`` after ``make demo`` (about a minute). It reads the feature tables and champions below
FINRISK_HOME, and Taiwan's loans from FINRISK_DATA_DIR. Boosted trees are fitted beside each champion, so that both kinds of model show.

A named factor becomes what is typical (the median) of the applicants just approved: the riskiest below the cutoff among those of the
validation window. Refused are rows of the test window, and applications at month-ends where there are any. Spending that is
at HIGH risk is looked at in the same way. Then every refusal is asked for its nearest feasible change, and how long that took.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import loans, reason_fidelity, reason_truth
from finrisk_assets.domains.classifier import ClassifierDomain
from finrisk_assets.domains.loan_default import actionability, decide
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.modelling.evaluation import explain
from finrisk_assets.modelling.training import candidates
from finrisk_assets.modelling.training.convert import convert_estimator
from finrisk_assets.modelling.training.split import Split, split
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.recourse import RecourseSearch, approved_quantile_rows
from finrisk_assets.scoring.spec import BundleSpec, Floats, Rows
from finrisk_assets.settings import Settings
from schemas.features import Feature

STORED = ("simulator", "berka", "karlan_zinman")
DEMANDED = 0.9
MOST_CHANGES = 150
MOST = 500
"""Refused rows that are looked at, drawn at random: a tree's explanation takes a millisecond."""


@dataclass(frozen=True)
class Questions:
    """A measurement of a model: the threshold that those just approved are below, and lines of words, from where, to below where."""

    cutoff: str
    lines: tuple[tuple[str, str, str], ...]
    demanded: str = ""


LOANS = Questions(
    "refer_from",
    (
        ("refused, then not refused", "refuse_from", "refuse_from"),
        ("refused, then approved at once", "refuse_from", "refer_from"),
        ("not approved, then approved", "refer_from", "refer_from"),
    ),
    "refused, then not refused",
)
HIGH = Questions("high_from", (("HIGH, then below", "high_from", "high_from"),))


@dataclass(frozen=True)
class Applicants:
    """A source's loans, their split, and the month-end applications that may be refused too."""

    features: tuple[Feature, ...]
    rows: Rows
    labels: Floats
    windows: Split
    month_ends: Rows


@dataclass(frozen=True)
class Comparison:
    """Choices of what to change, by name, and what a changed feature becomes: the median of so many just approved."""

    n_near: int
    ordinary: Rows
    choices: Mapping[str, reason_fidelity.Choice]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", help=f"of {', '.join(STORED)} and taiwan; all, unless named")
    parser.add_argument("--decisions", type=int, default=25_000, help="decisions of each domain and source whose sentences are checked")
    parser.add_argument("--threads", type=int, default=1, help="threads of a model's training")
    given = parser.parse_args()
    unknown = sorted(set(given.sources) - {*STORED, "taiwan"})
    if unknown:
        parser.error(f"no loans are known of {', '.join(unknown)}")
    total = reason_truth.Truth()
    started, environment = time.perf_counter(), Settings.from_environment()
    for source in given.sources or (*STORED, "taiwan"):
        settings = Settings(home=environment.home, data_dir=environment.data_dir, source=source)
        champion = settings.root / "champions" / "loan_default" / "bundle"
        if source == "taiwan" and not (settings.data_dir / "taiwan").is_dir():
            print(f"\ntaiwan: no data at {settings.data_dir / 'taiwan'}; set FINRISK_DATA_DIR")
        elif source == "taiwan":
            report("taiwan, boosted trees", *fitted(taiwan(settings), settings, given.threads), LOANS)
        elif champion.is_dir():
            bundle, held = Bundle.load(champion), stored(settings, champion, LOAN_DEFAULT)
            report(f"{source}, champion", bundle, held, LOANS)
            print_nearest_changes(bundle, held)
            report(f"{source}, boosted trees", *fitted(held, settings, given.threads), LOANS)
            spending = settings.root / "champions" / "spending_risk" / "bundle"
            if spending.is_dir():
                report(f"{source}, spending risk", Bundle.load(spending), stored(settings, spending, SPENDING_RISK), HIGH)
            print(f"\n{source}: the sentences of all domains, each checked against the value")
            total.add(print_truth(settings, given.decisions))
        else:
            print(f"\n{source}: no champion below {settings.root}: FINRISK_SOURCE={source} finrisk demo makes it")
    if total.decisions:
        print(f"\n{len(total.false)} of {total.sentences} sentences of {total.decisions} decisions are false")
    print(f"\n{time.perf_counter() - started:.0f} s in all")


def stored(settings: Settings, champion: Path, domain: ClassifierDomain) -> Applicants:
    """The rows of a run's feature table that have an outcome, split as the champion was trained, and those that have none."""
    declared = Bundle.load(champion).features
    frame = Warehouse(url=settings.warehouse).table(f"features_{domain.group}").to_pandas()
    frame = frame.sort_values(domain.key).reset_index(drop=True)
    known = domain.labelled_rows(frame, settings)
    month_ends = candidates.to_matrix(frame[frame[domain.label].isna()], declared)
    windows = domain.split(known, settings)
    return Applicants(declared, candidates.to_matrix(known, declared), known[domain.label].to_numpy(dtype=float), windows, month_ends)


def taiwan(settings: Settings) -> Applicants:
    held = loans.load("taiwan")
    windows = split(held.keys, held.labels, seed=settings.seed)
    return Applicants(held.features, held.rows, held.labels.astype(float), windows, held.rows[:0])


def fitted(held: Applicants, settings: Settings, threads: int) -> tuple[Bundle, Applicants]:
    """Boosted trees on the training window, as a bundle with its reference."""
    model = candidates.build_candidates(held.features, settings.seed, threads, len(held.windows.train))["xgboost"]
    (one,) = candidates.fit_candidates(held.rows, held.labels, held.windows, {"xgboost": model})
    validation = held.rows[held.windows.validation]
    spec = BundleSpec(
        name="finrisk-loan-default",
        domain="loan_default",
        source=settings.source,
        features=held.features,
        components=(convert_estimator(one.estimator, held.features).component,),
        calibration=one.fitted_calibration.calibration,
        golden_rows=validation[:1],
        seed=settings.seed,
        data_sha256="",
        code_sha256="",
    )
    return Bundle(spec, "", threads), held


def compare(bundle: Bundle, held: Applicants, cutoff: str) -> Comparison:
    """Choose what is changed in a refused row: what its reasons name, and three choices that give this a scale."""
    validation = held.rows[held.windows.validation]
    near = validation[reason_fidelity.nearest_approved(bundle.probability(validation), bundle.thresholds[cutoff])]
    reference = bundle.reference or explain.mean_just_approved(bundle, validation, bundle.thresholds[cutoff])
    ordinary = reason_fidelity.typical(near)
    choices = {
        "reasons": reason_fidelity.by_reasons(reference),
        "mean SHAP": reason_fidelity.by_reasons(None),
        "best four": reason_fidelity.by_rescoring(ordinary),
        "any four": reason_fidelity.at_random(bundle.seed),
    }
    return Comparison(len(near), ordinary, choices)


def report(name: str, bundle: Bundle, held: Applicants, asked: Questions) -> None:
    """Print the flip rate of every question, population and choice of factors."""
    turns, held_against = bundle.thresholds, compare(bundle, held, asked.cutoff)
    others = [choice for choice in held_against.choices if choice != "reasons"]
    said = ", ".join(f"{turn} {value:.3f}" for turn, value in turns.items())
    print(f"\n{name}: {said}; {held_against.n_near} just below {asked.cutoff}")
    print(f"  {'':52} {'reasons':24} {'':17} {'factors':8} {'  '.join(others)}")
    for question, low, below in asked.lines:
        for population, rows in refused(bundle, held, turns[low]):
            found = {
                choice: reason_fidelity.flips(bundle, rows, choose, held_against.ordinary, turns[below])
                for choice, choose in held_against.choices.items()
            }
            told, beside = found["reasons"], "  ".join(f"{found[choice].rate.value:{len(choice)}.3f}" for choice in others)
            mark = f"  demanded {DEMANDED}: {'reached' if told.rate.value >= DEMANDED else 'MISSED'}" if question == asked.demanded else ""
            moved = f"p {told.before:.3f} -> {told.after:.3f}"
            print(f"  {question:29} {told.n:5} {population:16} {told.rate} {moved:17} {told.named:7.1f}  {beside}{mark}")


def print_truth(settings: Settings, limit: int) -> reason_truth.Truth:
    """Print for every champion of a source how many sentences of its decisions are false, and return the counts of all."""
    total, warehouse = reason_truth.Truth(), Warehouse(url=settings.warehouse)
    for domain in DOMAINS:
        folder = settings.root / "champions" / domain.name / "bundle"
        if not folder.is_dir():
            continue
        frame = warehouse.table(f"features_{domain.group}").to_pandas().sort_values(domain.keys[0].name)
        rows = candidates.to_matrix(frame, Bundle.load(folder).features)
        truth = reason_truth.check_decisions(folder, reason_truth.draw_rows(rows, limit, settings.seed))
        print(
            f"  {domain.name:22} {truth.decisions:7} decisions, {truth.sentences:7} sentences: "
            f"{len(truth.false)} false, {truth.contradictions} contradictions"
        )
        for line in truth.false[:3]:
            print(f"    {line}")
        total.add(truth)
    return total


def print_nearest_changes(bundle: Bundle, held: Applicants) -> None:
    """Print for how many there is a nearest feasible change, and how long one search takes."""
    names = [feature.name for feature in bundle.features]
    for goal, turn in (("to be approved", "refer_from"), ("not to be refused", "refuse_from")):
        reached = decide.APPROVE if turn == "refer_from" else decide.REFER
        shortfall = partial(decide.measure_shortfall, names=names, policy=bundle.policy, goal=reached)
        search = RecourseSearch(bundle, {}, approved_quantile_rows(bundle), shortfall, actionability.apply_changes)
        for population, rows in refused(bundle, held, bundle.thresholds[turn]):
            sizes, seconds = [], []
            for values in rows[:MOST_CHANGES].tolist():
                row = {name: None if value != value else value for name, value in zip(names, values, strict=True)}
                began = time.perf_counter()
                able = {name: how for name, how in actionability.find_allowed_changes(row).items() if name in bundle.approved}
                found = replace(search, allowed=able).find_nearest(row)
                seconds.append(time.perf_counter() - began)
                sizes.append(len(found.changes or ()))
            taken = np.quantile(seconds, [0.5, 0.95, 1.0]) * 1e3
            shares = ", ".join(f"{sizes.count(size) / len(sizes):.0%} with {size}" for size in (1, 2, 3))
            print(
                f"  nearest change {goal:17} {len(sizes):5} {population:13} {np.mean(np.array(sizes) > 0):.0%} have one ({shares}); "
                f"{taken[0]:.0f} ms in the middle, 95 % within {taken[1]:.0f}, at most {taken[2]:.0f}"
            )


def refused(bundle: Bundle, held: Applicants, threshold: float) -> Iterator[tuple[str, Rows]]:
    """Rows of the test window, and those without an outcome, that score at or above a threshold; at most `MOST` of each."""
    for population, rows in (("test window", held.rows[held.windows.test]), ("without outcome", held.month_ends)):
        found = rows[bundle.probability(rows) >= threshold] if len(rows) else rows
        if len(found) > MOST:
            found = found[np.random.default_rng(bundle.seed).choice(len(found), MOST, replace=False)]
        if len(found):
            yield population, found


if __name__ == "__main__":
    main()
