"""Cashflow as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Evaluation, Fault, Figure, MonitoringSpec, ScoredWindow
from finrisk_assets.domains.cashflow import catalogue, decide, features
from finrisk_assets.domains.classifier import ClassifierDomain, excludes, is_advantage, net_benefit
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import ACCOUNT_TOTALS, CATEGORY_TOTALS
from schemas.features import Feature
from schemas.ledger import Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

MAX_SHORTFALL, MAX_EXCESS = 0.04, 0.08
"""Share: by how much the coverage may fall short of the level, and exceed it. Too wide an interval is the lesser fault, and usual where
a ledger is small."""


class Cashflow(ClassifierDomain):
    """Surplus or deficit of an account's next month, and the change of its balance with an interval."""

    name = "cashflow"
    title = "Cashflow"
    owner = "personal-finance"
    tables = ("customers", "accounts", "transactions")
    totals = (ACCOUNT_TOTALS.name, CATEGORY_TOTALS.name)
    reads_movements = False
    needs = ("transactions.account_id",)
    keys = features.KEYS
    reference_group = "other accounts"
    decision_time = "as_of"
    months_back = 15
    months_ahead = 1
    label = "is_surplus"
    outcome = "surplus"
    panel = "customer_id"
    utility_unit = "surpluses foretold, less false ones at the odds of the threshold, per account and month"
    truth = "truth_cashflow"
    truth_key = ("account_id", "as_of")
    monitoring = MonitoringSpec(
        decision_thresholds=("surplus_from",),
        by_construction={
            "history_months": "grows as the ledger ages",
            **dict.fromkeys(("was_surplus_year_ago", "net_flow_year_ago_to_movement"), "missing until there is a year of history"),
            **dict.fromkeys(("next_month_sin", "next_month_cos", "next_month_number", "next_month_days"), "the month of the year"),
        },
    )
    more_scores = (
        Column("account_id", "string", "The account.", personal="identifier"),
        Column("expected_change_amount", "float64", "By how much the balance is expected to change.", "currency", True),
        Column("low_change_amount", "float64", "The change is below it once in ten times.", "currency", True),
        Column("high_change_amount", "float64", "The change is above it once in ten times.", "currency", True),
    )

    def unavailable_reason(self, source: "Source") -> str | None:
        """Return why a source has no cashflow: a source has it with movements by account, or with a panel of its own."""
        if features.is_panel({name: raw.columns for name, raw in source.tables.items()}):
            return source.without.get(self.name)
        return super().unavailable_reason(source)

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
        return features.select_features(filled, source.features.get("cashflow", ()))

    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan = ALL_TIMES) -> "LazyTable":
        return features.build(tables, self.select_features(source), span)

    def labelled_rows(self, frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
        """Return the month-ends whose next month had ended when the ledger is read."""
        is_known = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
        labelled = frame[frame.is_surplus.notna() & is_known].reset_index(drop=True)
        return labelled.assign(is_surplus=labelled.is_surplus.astype(bool))

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        from finrisk_assets.domains.cashflow import model

        return model.candidates(features, seed, threads, n_rows)

    def complete_spec(self, spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
        """Return the bundle with the models of the amount."""
        from finrisk_assets.domains.cashflow import model

        return replace(spec, amount=model.fit_amount(spec.features, catalogue.SCALE, train, validation, settings.seed, settings.threads))

    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> dict[str, Any]:
        """Return direction and amount of each row of the feature table; no amount where too little is known."""
        import numpy as np

        from finrisk_assets.modelling.training.candidates import to_matrix

        rows = to_matrix(frame, champion.features)
        margin = champion.margin(rows)
        probability = champion.calibration.apply(margin)
        direction = {
            "score": margin,
            "probability": probability,
            "decision": decide.DECISION_RULE.decide_all(probability, champion.thresholds),
        }
        amounts = champion.amount(rows)._asdict()
        doubtful = champion.is_doubtful(rows)
        return direction | {
            f"{name}_change_amount": np.ma.masked_invalid(np.where(doubtful, np.nan, values)) for name, values in amounts.items()
        }

    def evaluate(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
        """Return the classifier's figures, those of the rules that a model must beat, and those of the amount."""
        window = self.score_test_window(frame, bundle, settings)
        evaluation = super().evaluate(frame, bundle, settings)
        return replace(evaluation, figures=[*evaluation.figures, *_baseline_figures(window), *_amount_figures(window, bundle)])

    def find_faults(self, figures: Mapping[str, Figure]) -> list[Fault]:
        """Return the classifier's faults, and those of a model that a plain rule equals or whose intervals do not hold their level."""
        faults = super().find_faults(figures)
        for name in ("persistence", "seasonal_naive"):
            above = figures.get(f"auc_above_{name}")
            if above is not None and not is_advantage(above):
                reason = f"the AUC is {above.value:+.3f} beside that of the rule {name}: its interval begins at {above.low}"
                faults.append(Fault("discrimination", reason))
        from finrisk_assets.modelling.training.intervals import INTERVAL_LEVEL

        coverage = figures.get("interval_coverage")
        if coverage is not None and excludes(coverage, INTERVAL_LEVEL - MAX_SHORTFALL, INTERVAL_LEVEL + MAX_EXCESS):
            faults.append(Fault("calibration", f"the {INTERVAL_LEVEL:.0%} interval held {coverage.value:.1%} of the changes"))
        return faults

    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        return net_benefit(window, [bundle.thresholds["surplus_from"]])


def _baseline_figures(window: ScoredWindow) -> list[Figure]:
    """Return the figures of the rules that a model must beat; none where a panel of the source's own has no earlier months."""
    from finrisk_assets.domains.cashflow import model

    if not set(model.BASELINE_FEATURES) <= set(window.frame.columns):
        return []
    compared = model.compare_with_rules(window.labels, window.probability, model.baselines(window.frame))
    meaning = {True: "the model's AUC less that of the rule, DeLong's paired interval", False: "of the rule, on the same rows"}
    return [Figure(name, one.value, one.low, one.high, meaning[name.startswith("auc_above")]) for name, one in compared.items()]


def _amount_figures(window: ScoredWindow, bundle: "Bundle") -> list[Figure]:
    """Return coverage and width of the interval, and the error of the expected change beside two plain guesses."""
    import numpy as np

    from finrisk_assets.modelling.training import intervals

    if not bundle.has_amount:
        return []
    has_change = (window.frame.change_amount.notna() & window.frame[catalogue.SCALE].notna()).to_numpy()
    forecast = bundle.amount(window.rows[has_change])
    change = window.frame.change_amount[has_change].to_numpy(dtype=float)
    scale = window.frame[catalogue.SCALE][has_change].to_numpy(dtype=float)
    last = window.frame.net_flow_to_movement_1m[has_change].fillna(0.0).to_numpy(dtype=float) * scale
    coverage = intervals.coverage(change, forecast.low, forecast.high)
    error = "mean absolute error, currency"
    return [
        Figure("interval_coverage", coverage.value, coverage.low, coverage.high, f"of the {intervals.INTERVAL_LEVEL:.0%} interval, Wilson"),
        Figure("share_below_interval", float(np.mean(change < forecast.low)), meaning="a tenth is meant to be"),
        Figure("mean_interval_width", float(np.mean((forecast.high - forecast.low) / scale)), meaning="over the usual monthly movement"),
        Figure(
            "pinball_low",
            intervals.pinball_loss(change, forecast.low, (1 - intervals.INTERVAL_LEVEL) / 2),
            meaning="pinball loss, currency",
        ),
        Figure(
            "pinball_high",
            intervals.pinball_loss(change, forecast.high, (1 + intervals.INTERVAL_LEVEL) / 2),
            meaning="pinball loss, currency",
        ),
        Figure("mae_expected", float(np.mean(np.abs(change - forecast.expected))), meaning=error),
        Figure("mae_no_change", float(np.mean(np.abs(change))), meaning=f"{error}, of saying that nothing changes"),
        Figure("mae_last_month", float(np.mean(np.abs(change - last))), meaning=f"{error}, of repeating the last month's net flow"),
    ]


CASHFLOW = Cashflow()
