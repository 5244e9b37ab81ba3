"""Loan offers as the graph knows them: who teaches, how the population is scored, and what the profit is compared with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from finrisk_assets.domains.base import Figure, MonitoringSpec, ScoredWindow, TrainingResult
from finrisk_assets.domains.classifier import ClassifierDomain
from finrisk_assets.domains.loan_offers import decide, features, model, profit
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

SCORING_CHUNK = 2_000
"""Rows whose grids are scored together, so that memory stays bounded."""


class LoanOffers(ClassifierDomain):
    """The choice of a loan offer: the acceptance of terms, joined with the PD in a profit optimum."""

    name = "loan_offers"
    title = "Loan offers"
    owner = "credit-pricing"
    tables = ("offers", "transactions")
    needs = tuple(f"offers.{name}" for name in ("annual_rate_pct", "loan_amount", "term_months", "is_rate_random", "is_accepted"))
    upstream = ("scores_loan_default",)
    keys = features.KEYS
    decision_time = "offered_at"
    months_back = 6
    label = "is_accepted"
    outcome = "acceptance"
    utility_unit = "profit in currency per customer, by the offers whose random rate was the one chosen"
    examined: ClassVar[Mapping[str, str]] = {"annual_rate_pct": "the offer itself states the rate, which was drawn at random"}
    truth = "truth_offers"
    truth_key = ("offer_id",)
    truth_probability = "true_acceptance"
    monitoring = MonitoringSpec(
        by_construction=dict.fromkeys(("days_since_offer", "accepted_share_before"), "needs earlier offers, which add up with the ledger"),
        is_scored_as_it_stands=False,
    )
    more_scores = (
        features.PD,
        Column("offered_rate_pct", "float64", "Yearly rate of the best offer.", "percent a year", True, 0, personal="personal"),
        Column("offered_amount", "float64", "Amount of the best offer.", "currency", True, 0, personal="personal"),
        Column("offered_term_months", "float64", "Months to repay of the best offer.", "months", True, 1, personal="personal"),
        Column("offered_instalment_amount", "float64", "Its monthly instalment.", "currency a month", True, 0, personal="personal"),
        Column("expected_profit_amount", "float64", "What it is expected to earn.", "currency", True, personal="personal"),
        Column("no_offer_reason", "string", "Why nothing is offered.", nullable=True, allowed=decide.REASONS[1:]),
    )

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
        return features.select_features(filled, source.features.get("loan_offers", ()))

    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source") -> "LazyTable":
        return features.build(tables, self.select_features(source))

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

    def thresholds(self, settings: "Settings") -> Mapping[str, float]:
        return decide.OfferLimits().thresholds()

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        return model.candidates(features, seed, threads, n_rows)

    def complete_spec(self, spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
        """Return the bundle with the limits and the grid of terms that it was trained on, its level set by the validation window."""
        from finrisk_assets.modelling.training.candidates import to_matrix
        from finrisk_assets.scoring.bundle import Bundle

        grid = model.build_grid(train)
        limits = replace(decide.OfferLimits(), rate_cap_pct=max(grid.rates))
        margins = Bundle(spec, "").margin(to_matrix(validation, spec.features))
        calibration = model.calibrate_level(margins, validation.is_accepted)
        return replace(spec, thresholds={**limits.thresholds(), **grid.thresholds()}, calibration=calibration)

    def train(self, frame: "pd.DataFrame", features: tuple[Feature, ...], source: "Source", settings: "Settings") -> TrainingResult:
        """Train the acceptance model; the record says that `complete_spec` sets the calibration's level."""
        result = super().train(frame, features, source, settings)
        return replace(result, params={**result.params, "calibration": "level"})

    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> Mapping[str, Any]:
        """Return the best offer of each row, with its acceptance or, where nothing is offered, that of the cheapest terms."""
        from finrisk_assets.modelling.training.candidates import to_matrix

        state, income, pd = (
            to_matrix(frame, champion.features),
            profit.to_floats(frame, "monthly_income_amount"),
            profit.to_floats(frame, "pd"),
        )
        columns: dict[str, list[Any]] = {}
        for start in range(0, len(frame), SCORING_CHUNK):
            chunk = slice(start, start + SCORING_CHUNK)
            for name, values in _best_offers(champion, state[chunk], income[chunk], pd[chunk]).items():
                columns.setdefault(name, []).append(values)
        return {name: _concatenate(chunks) for name, chunks in columns.items()}

    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        return profit.estimate_logged_profit(window.frame, window.labels, bundle)

    def compare_with_truth(self, frame: "pd.DataFrame", truth: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Sequence[Figure]:
        """Compare the acceptance with the truth, then the profit with that of plain policies."""
        acceptance = super().compare_with_truth(frame, truth, bundle, settings)
        labelled = self.labelled_rows(frame, settings)
        train = labelled.iloc[self.split(labelled, settings).train]
        test = self.score_test_window(frame, bundle, settings).frame
        return [*acceptance, *profit.compare_policies(train, test, truth, bundle, seed=settings.seed)]


def _best_offers(champion: "Bundle", state: "np.ndarray", income: "np.ndarray", pd: "np.ndarray") -> dict[str, Any]:
    """Return the columns of the scores of some rows."""
    import numpy as np
    import pyarrow as pa

    grid, limits = decide.Grid.from_thresholds(champion.thresholds), decide.OfferLimits.from_thresholds(champion.thresholds)
    names = [feature.name for feature in champion.features]
    rows = decide.build_rows(names, state, income, grid)
    margin = champion.margin(rows.reshape(-1, len(names))).reshape(len(rows), len(grid))
    acceptance = champion.calibration.apply(margin)
    prices = decide.price_offers(acceptance, pd, income, grid, limits)
    choice = decide.choose_offers(prices, income, limits)
    none = choice.best < 0
    at = np.where(none, decide.find_cheapest(grid), choice.best)
    row = np.arange(len(at))
    return {
        "score": margin[row, at],
        "probability": acceptance[row, at],
        "decision": choice.decisions,
        "offered_rate_pct": pa.array(prices.points.rate[at], mask=none),
        "offered_amount": pa.array(prices.points.amount[row, at], mask=none),
        "offered_term_months": pa.array(prices.points.term[at], mask=none),
        "offered_instalment_amount": pa.array(prices.instalment[row, at], mask=none),
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
