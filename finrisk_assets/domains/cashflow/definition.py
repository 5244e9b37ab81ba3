"""Cashflow as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain, Evaluation, Fault, Figure, MonitoringSpec, TestWindow
from finrisk_assets.domains.cashflow import decide, features
from finrisk_assets.domains.classifier import Classifier, excludes, is_advantage, net_benefit
from schemas.features import Feature
from schemas.ledger import Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

LEVEL = 0.8
"""The share of changes that an interval is to hold; that of `modelling.intervals`."""
LARGEST_MISS, LARGEST_EXCESS = 0.04, 0.08
"""By how much the coverage may fall short of the level, and exceed it: too wide is the lesser fault, and usual where a ledger is small."""

MORE_SCORES = (
    Column("account_id", "string", "The account.", personal="identifier"),
    Column("expected_change_amount", "float64", "By how much the balance is expected to change.", "currency", True),
    Column("low_change_amount", "float64", "The change is below it once in ten times.", "currency", True),
    Column("high_change_amount", "float64", "The change is above it once in ten times.", "currency", True),
)


def _features(source: "Source") -> tuple[Feature, ...]:
    filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
    return features.declared(filled, source.features.get("cashflow", ()))


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The month-ends whose next month had ended at the moment the ledger is read."""
    known_by_now = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
    known = frame[frame.is_surplus.notna() & known_by_now].reset_index(drop=True)
    return known.assign(is_surplus=known.is_surplus.astype(bool))


def _candidates(declared: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
    from finrisk_assets.domains.cashflow import model

    return model.candidates(declared, seed, threads, n_rows)


def _with_amount(spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
    from finrisk_assets.domains.cashflow import model

    return replace(spec, amount=model.amount(spec.features, features.SCALE, train, validation, settings.seed, settings.threads))


CLASSIFIER = Classifier(
    domain="cashflow",
    key="account_month",
    label="is_surplus",
    moment="as_of",
    known=_known,
    thresholds=lambda settings: decide.thresholds(),
    candidates=_candidates,
    panel="customer_id",
    outcome="surplus",
    refine=_with_amount,
)


def _evaluate(frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
    window = CLASSIFIER.test(frame, bundle, settings)
    found = CLASSIFIER.evaluate(frame, bundle, settings)
    return Evaluation([*found.figures, *_beside_baselines(window), *_amounts(window, bundle)], found.plots)


def _beside_baselines(window: TestWindow) -> list[Figure]:
    """The rules that a model must beat; none where a panel of the source's own has no earlier months."""
    from finrisk_assets.domains.cashflow import model

    if not set(model.BASELINE_FEATURES) <= set(window.frame.columns):
        return []
    beside = model.beside(window.labels, window.probability, model.baselines(window.frame))
    meaning = {True: "the model's AUC less that of the rule, DeLong's paired interval", False: "of the rule, on the same rows"}
    return [Figure(name, one.value, one.low, one.high, meaning[name.startswith("auc_above")]) for name, one in beside.items()]


def _amounts(window: TestWindow, bundle: "Bundle") -> list[Figure]:
    """How often the interval held the change, how wide it was, and the error of the expected change beside two plain guesses."""
    import numpy as np

    from finrisk_assets.modelling.training import intervals

    if not bundle.has_amount:
        return []
    known = (window.frame.change_amount.notna() & window.frame[features.SCALE].notna()).to_numpy()
    said, change = bundle.amount(window.rows[known]), window.frame.change_amount[known].to_numpy(dtype=float)
    scale = window.frame[features.SCALE][known].to_numpy(dtype=float)
    last = window.frame.net_flow_to_movement_1m[known].fillna(0.0).to_numpy(dtype=float) * scale
    held = intervals.coverage(change, said.low, said.high)
    told = "mean absolute error, currency"
    return [
        Figure("interval_coverage", held.value, held.low, held.high, f"of the {intervals.LEVEL:.0%} interval, Wilson"),
        Figure("share_below_interval", float(np.mean(change < said.low)), meaning="a tenth is meant to be"),
        Figure("mean_interval_width", float(np.mean((said.high - said.low) / scale)), meaning="over the usual monthly movement"),
        Figure("pinball_low", intervals.pinball(change, said.low, (1 - intervals.LEVEL) / 2), meaning="pinball loss, currency"),
        Figure("pinball_high", intervals.pinball(change, said.high, (1 + intervals.LEVEL) / 2), meaning="pinball loss, currency"),
        Figure("mae_expected", float(np.mean(np.abs(change - said.expected))), meaning=told),
        Figure("mae_no_change", float(np.mean(np.abs(change))), meaning=f"{told}, of saying that nothing changes"),
        Figure("mae_last_month", float(np.mean(np.abs(change - last))), meaning=f"{told}, of repeating the last month's net flow"),
    ]


def _gate(figures: Mapping[str, Figure]) -> list[Fault]:
    """A model that a plain rule equals may not decide, nor one whose intervals do not hold what they promise."""
    faults = CLASSIFIER.gate(figures)
    for name in ("persistence", "seasonal_naive"):
        above = figures.get(f"auc_above_{name}")
        if above is not None and not is_advantage(above):
            said = f"the AUC is {above.value:+.3f} beside that of the rule {name}: its interval begins at {above.low}"
            faults.append(Fault("discrimination", said))
    held = figures.get("interval_coverage")
    if held is not None and excludes(held, LEVEL - LARGEST_MISS, LEVEL + LARGEST_EXCESS):
        faults.append(Fault("calibration", f"the {LEVEL:.0%} interval held {held.value:.1%} of the changes"))
    return faults


def _score(frame: "pd.DataFrame", champion: "Bundle") -> dict[str, Any]:
    """Direction and amount of each row of the feature table."""
    import numpy as np

    from finrisk_assets.modelling.training.candidates import matrix

    rows = matrix(frame, champion.features)
    margin = champion.margin(rows)
    probability = champion.calibration.apply(margin)
    said = {"score": margin, "probability": probability, "decision": decide.decisions(probability, champion.thresholds)}
    return said | {f"{name}_change_amount": np.ma.masked_invalid(found) for name, found in champion.amount(rows)._asdict().items()}


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decisions(probability, thresholds)


class _Cashflow(Domain):
    """A domain that two kinds of source have: one with movements by account, and one with a panel of its own."""

    def unavailable_reason(self, source: "Source") -> str | None:
        if features.is_panel({name: raw.columns for name, raw in source.tables.items()}):
            return source.without.get(self.name)
        return super().unavailable_reason(source)


CASHFLOW = _Cashflow(
    name="cashflow",
    title="Cashflow",
    owner="personal-finance",
    tables=("customers", "accounts", "transactions"),
    keys=features.KEYS,
    moment="as_of",
    months_back=15,
    months_ahead=1,
    features=_features,
    build=lambda tables, source: features.build(tables, _features(source)),
    train=CLASSIFIER.train,
    evaluate=_evaluate,
    test=CLASSIFIER.test,
    gate=_gate,
    gain=lambda window, bundle: net_benefit(window, [bundle.thresholds["surplus_from"]]),
    gain_unit="surpluses foretold, less false ones at the odds of the threshold, per account and month",
    decide=_decide,
    needs=("transactions.account_id",),
    watch=MonitoringSpec(
        label="is_surplus",
        matured=_known,
        decision_thresholds=("surplus_from",),
        by_construction={
            "history_months": "grows as the ledger ages",
            **dict.fromkeys(("was_surplus_year_ago", "net_flow_year_ago_to_movement"), "missing until there is a year of history"),
            **dict.fromkeys(("next_month_sin", "next_month_cos", "next_month_number", "next_month_days"), "the month of the year"),
        },
    ),
    more_scores=MORE_SCORES,
    score=_score,
    truth="truth_cashflow",
    oracle=CLASSIFIER.oracle(("account_id", "as_of"), "true_probability"),
)
