"""Loan offers as the graph knows them: who teaches, how the population is scored, and what the profit is compared with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from finrisk_assets.domains.base import Figure, MonitoringSpec, ScoredWindow, TrainingResult
from finrisk_assets.domains.classifier import ClassifierDomain
from finrisk_assets.domains.loan_offers import decide, features, model, profit
from finrisk_assets.domains.loan_offers.pd_at_terms import PREFIX
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import ACCOUNT_TOTALS
from schemas.features import Feature
from schemas.ledger import Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.domains.ledger_fit import LedgerFit
    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

SCORING_CHUNK = 2_000
"""Rows whose grids are scored together, so that memory stays bounded."""


class LoanOffers(ClassifierDomain):
    """The choice of a loan offer: the acceptance of terms, joined with the PD in a profit optimum."""

    name = "loan_offers"
    title = "Loan offers"
    owner = "credit-pricing"
    tables = ("offers", "transactions")
    totals = (ACCOUNT_TOTALS.name,)
    reads_movements = False
    needs = tuple(f"offers.{name}" for name in ("annual_rate_pct", "loan_amount", "term_months", "is_rate_random", "is_accepted"))
    upstream = ("scores_loan_default", "scores_spending_risk")
    companions = ("loan_default",)
    keys = features.KEYS
    reference_group = "other customers"
    decision_time = "offered_at"
    months_back = 7
    label = "is_accepted"
    outcome = "acceptance"
    utility_unit = "profit in currency per customer, by the offers whose random rate was the one chosen"
    examined: ClassVar[Mapping[str, str]] = {"annual_rate_pct": "the offer itself states the rate, which was drawn at random"}
    truth = "truth_offers"
    more_truth = ("truth_limits",)
    truth_key = ("offer_id",)
    truth_probability = "true_acceptance"
    monitoring = MonitoringSpec(
        by_construction=dict.fromkeys(("days_since_offer", "accepted_share_before"), "needs earlier offers, which add up with the ledger"),
        is_scored_as_it_stands=False,
    )
    more_scores = (
        features.PD,
        features.SPENDING,
        Column("offered_rate_pct", "float64", "Yearly rate of the best offer.", "percent a year", True, 0, personal="personal"),
        Column("offered_amount", "float64", "Amount of the best offer.", "currency", True, 0, personal="personal"),
        Column("offered_term_months", "float64", "Months to repay of the best offer.", "months", True, 1, personal="personal"),
        Column("offered_instalment_amount", "float64", "Its monthly instalment.", "currency a month", True, 0, personal="personal"),
        Column("offered_pd", "float64", "Probability of default at its terms.", "probability", True, 0, 1, personal="personal"),
        Column("expected_profit_amount", "float64", "What it is expected to earn.", "currency", True, personal="personal"),
        Column("no_offer_reason", "string", "Why nothing is offered.", nullable=True, allowed=decide.REASONS[1:]),
    )

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
        return features.select_features(filled, source.features.get("loan_offers", ()))

    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan = ALL_TIMES) -> "LazyTable":
        return features.build(tables, self.select_features(source), span)

    def training_population(self, table: "LazyTable") -> "LazyTable":
        """Return the offers at random rates."""
        return table.filter(table.is_rate_random.fill_null(False))

    def labelled_rows(self, frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
        """Return the answered offers at random rates.

        A rate set by a policy depends on what the policy knew, so its answer teaches nothing.
        """
        is_known = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
        is_random = frame.is_rate_random.astype("boolean").fillna(False).astype(bool)
        labelled = frame[frame.is_accepted.notna() & is_random & is_known].reset_index(drop=True)
        return labelled.assign(is_accepted=labelled.is_accepted.astype(bool))

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        return model.candidates(features, seed, threads, n_rows)

    def complete_spec(self, spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
        """Return the bundle with the grid of terms that it was trained on, its level set by the validation window."""
        from finrisk_assets.modelling.training.candidates import to_matrix
        from finrisk_assets.scoring.bundle import Bundle

        margins = Bundle(spec, "").margin(to_matrix(validation, spec.features))
        calibration = model.calibrate_level(margins, validation.is_accepted)
        return replace(spec, thresholds=model.build_grid(train).thresholds(), calibration=calibration)

    def train(
        self,
        frame: "pd.DataFrame",
        features: tuple[Feature, ...],
        source: "Source",
        settings: "Settings",
        ledger_fit: "LedgerFit | None" = None,
    ) -> TrainingResult:
        """Train the acceptance model; the record says that `complete_spec` sets the calibration's level."""
        result = super().train(frame, features, source, settings, ledger_fit)
        return replace(result, params={**result.params, "calibration": "level"})

    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> Mapping[str, Any]:
        """Return the best offer of each row, with its acceptance or, where nothing is offered, that of the cheapest terms."""
        columns: dict[str, list[Any]] = {}
        for start in range(0, len(frame), SCORING_CHUNK):
            for name, values in _best_offers(champion, frame.iloc[start : start + SCORING_CHUNK]).items():
                columns.setdefault(name, []).append(values)
        return {name: _concatenate(chunks) for name, chunks in columns.items()}

    def join_companions(self, rows: "LazyTable", table: "Callable[[str], LazyTable | None]") -> "LazyTable":
        """Join the loan features of the application at each offer's moment, as `month_end_applications` of loan default names it.

        A source without such applications, for it has no movements, leaves the rows as they are: the PD is then the customer's.
        """
        loans = table("features_loan_default")
        if loans is None or not loans.loan_id.contains("@").any().to_pyarrow().as_py():
            return rows
        keys = ("loan_id", "customer_id", "applied_at", "is_default", "outcome_known_at")
        features = {f"{PREFIX}{name}": loans[name] for name in loans.columns if name not in keys}
        applications = loans.select(_application=loans.loan_id, **features)
        application = rows.offer_id.contains("@").ifelse(rows.offer_id, rows.customer_id + "@" + rows.offer_id)
        return rows.left_join(applications, application == applications._application).drop("_application")

    def value_decisions(self, frame: "pd.DataFrame", scored: Mapping[str, Any], policy: "Policy") -> "np.ndarray":
        """Return the expected profit of each offer, 0 where none is made."""
        import numpy as np

        return np.nan_to_num(scored["expected_profit_amount"].to_numpy(zero_copy_only=False))

    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        return profit.estimate_logged_profit(window.frame, window.labels, bundle)

    def select_truth(self, name: str, truth: "LazyTable", rows: "LazyTable") -> "LazyTable":
        if name in self.more_truth:
            return truth.semi_join(rows, truth.contract_id == rows.offer_id)
        return super().select_truth(name, truth, rows)

    def compare_with_truth(
        self, frame: "pd.DataFrame", truth: "Mapping[str, pd.DataFrame]", bundle: "Bundle", settings: "Settings"
    ) -> Sequence[Figure]:
        """Compare the acceptance with the truth, then the profit with that of plain policies."""
        from finrisk_assets.ledger.sources.simulator import economy_from_settings

        acceptance = super().compare_with_truth(frame, truth, bundle, settings)
        labelled = self.labelled_rows(frame, settings)
        train = profit.draw_rows(labelled.iloc[self.split(labelled, settings).train], settings.seed)
        test = profit.draw_rows(self.score_test_window(frame, bundle, settings).frame, settings.seed)
        (limits,), economy = (truth[name] for name in self.more_truth), economy_from_settings(settings)
        return [*acceptance, *profit.compare_policies(train, test, truth[self.truth], limits, bundle, economy, seed=settings.seed)]


def _best_offers(champion: "Bundle", frame: "pd.DataFrame") -> dict[str, Any]:
    """Return the columns of the scores of some rows."""
    import numpy as np
    import pyarrow as pa

    grid = profit.find_grid(champion)
    margin, prices = profit.price_by_model(frame, champion, grid)
    choice = decide.choose_offers(prices, profit.to_floats(frame, "monthly_income_amount"), champion.policy)
    none = choice.best < 0
    at = np.where(none, decide.find_cheapest(grid), choice.best)
    row = np.arange(len(at))
    return {
        "score": margin[row, at],
        "probability": prices.acceptance[row, at],
        "decision": choice.decisions,
        "offered_rate_pct": pa.array(prices.points.rate[at], mask=none),
        "offered_amount": pa.array(prices.points.amount[row, at], mask=none),
        "offered_term_months": pa.array(prices.points.term[at], mask=none),
        "offered_instalment_amount": pa.array(prices.instalment[row, at], mask=none),
        "offered_pd": pa.array(prices.pd[row, at], mask=none),
        "expected_profit_amount": pa.array(prices.expected_profit[row, at], mask=none),
        "no_offer_reason": pa.array([decide.REASONS[k] or None for k in choice.reason.tolist()], pa.string()),
    }


def _concatenate(chunks: Sequence[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(chunks[0], pa.Array):
        return pa.concat_arrays(list(chunks))
    return [value for chunk in chunks for value in chunk] if isinstance(chunks[0], list) else np.concatenate(chunks)


LOAN_OFFERS = LoanOffers()
