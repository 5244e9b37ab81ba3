"""Loan offers as the graph knows them: who teaches, how the population is scored, and what the profit is held against."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain, Figure, MonitoringSpec, Trained
from finrisk_assets.domains.classifier import Classifier
from finrisk_assets.domains.loan_offers import decide, features, model, profit
from schemas.features import Feature
from schemas.ledger import Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

SCORED_AT_ONCE = 2_000
"""Rows whose grids are scored together, so that memory stays bounded."""

MORE_SCORES = (
    features.PD,
    Column("offered_rate_pct", "float64", "Yearly rate of the best offer.", "percent a year", True, 0, personal="personal"),
    Column("offered_amount", "float64", "Amount of the best offer.", "currency", True, 0, personal="personal"),
    Column("offered_term_months", "float64", "Months to repay of the best offer.", "months", True, 1, personal="personal"),
    Column("offered_instalment_amount", "float64", "Its monthly instalment.", "currency a month", True, 0, personal="personal"),
    Column("expected_profit_amount", "float64", "What it is expected to earn.", "currency", True, personal="personal"),
    Column("no_offer_reason", "string", "Why nothing is offered.", nullable=True, allowed=decide.REASONS[1:]),
)


def _features(source: "Source") -> tuple[Feature, ...]:
    filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
    return features.declared(filled, source.features.get("loan_offers", ()))


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The answered offers at random rates. A rate set by a policy is mixed up with what the policy knew, so its answer teaches nothing."""
    known_by_now = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
    is_random = frame.is_rate_random.astype("boolean").fillna(False).astype(bool)
    known = frame[frame.is_accepted.notna() & is_random & known_by_now].reset_index(drop=True)
    return known.assign(is_accepted=known.is_accepted.astype(bool))


def _with_terms(spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
    """The bundle with the limits and the grid of terms on which it may be asked, its level set by the validation window."""
    from finrisk_assets.modelling.training.candidates import matrix
    from finrisk_assets.scoring.bundle import Bundle

    grid = model.grid(train)
    limits = replace(decide.OfferLimits(), rate_cap_pct=max(grid.rates))
    margins = Bundle(spec, "").margin(matrix(validation, spec.features))
    calibration = model.calibration(margins, validation.is_accepted)
    return replace(spec, thresholds={**limits.thresholds(), **grid.thresholds()}, calibration=calibration)


CLASSIFIER = Classifier(
    domain="loan_offers",
    key="offer_id",
    label="is_accepted",
    moment="offered_at",
    known=_known,
    thresholds=lambda settings: decide.OfferLimits().thresholds(),
    candidates=model.candidates,
    outcome="acceptance",
    refine=_with_terms,
)


def _train(frame: "pd.DataFrame", declared: tuple[Feature, ...], source: "Source", settings: "Settings") -> Trained:
    trained = CLASSIFIER.train(frame, declared, source, settings)
    return replace(trained, params={**trained.params, "calibration": "level"})


def _score(frame: "pd.DataFrame", bundle: "Bundle") -> Mapping[str, Any]:
    """The best offer of each row, and the acceptance of it, or else of the cheapest terms."""
    import numpy as np
    import pyarrow as pa

    from finrisk_assets.modelling.training.candidates import matrix

    grid, limits = decide.Grid.of(bundle.thresholds), decide.OfferLimits.of(bundle.thresholds)
    names = [feature.name for feature in bundle.features]
    state, income, pd = matrix(frame, bundle.features), profit.number(frame, "monthly_income_amount"), profit.number(frame, "pd")
    found: dict[str, list[Any]] = {}
    for start in range(0, len(frame), SCORED_AT_ONCE):
        part = slice(start, start + SCORED_AT_ONCE)
        rows = decide.rows(names, state[part], income[part], grid)
        margin = bundle.margin(rows.reshape(-1, len(names))).reshape(len(rows), len(grid))
        acceptance = bundle.calibration.apply(margin)
        prices = decide.price(acceptance, pd[part], income[part], grid, limits)
        choice = decide.choose_all(prices, income[part], limits)
        none = choice.best < 0
        at = np.where(none, decide.cheapest(grid), choice.best)
        which = np.arange(len(at))
        chunk: dict[str, Any] = {
            "score": margin[which, at],
            "probability": acceptance[which, at],
            "decision": choice.decisions,
            "offered_rate_pct": pa.array(prices.points.rate[at], mask=none),
            "offered_amount": pa.array(prices.points.amount[which, at], mask=none),
            "offered_term_months": pa.array(prices.points.term[at], mask=none),
            "offered_instalment_amount": pa.array(prices.instalment[which, at], mask=none),
            "expected_profit_amount": pa.array(prices.expected_profit[which, at], mask=none),
            "no_offer_reason": pa.array([decide.REASONS[k] or None for k in choice.reason.tolist()], pa.string()),
        }
        for name, values in chunk.items():
            found.setdefault(name, []).append(values)
    return {name: _joined(parts) for name, parts in found.items()}


def _joined(parts: Sequence[Any]) -> Any:
    import numpy as np
    import pyarrow as pa

    if isinstance(parts[0], pa.Array):
        return pa.concat_arrays(list(parts))
    return [value for part in parts for value in part] if isinstance(parts[0], list) else np.concatenate(parts)


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    raise NotImplementedError("an offer is more than a threshold on its acceptance: it is decided by `score`")


def _oracle(frame: "pd.DataFrame", truth: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Sequence[Figure]:
    """The acceptance beside the truth, then the profit captured beside plain policies."""
    acceptance = CLASSIFIER.oracle(("offer_id",), "true_acceptance")(frame, truth, bundle, settings)
    known = _known(frame, settings)
    train = known.iloc[CLASSIFIER.split(known, settings).train]
    test = CLASSIFIER.test(frame, bundle, settings).frame
    return [*acceptance, *profit.captured(train, test, truth, bundle, seed=settings.seed)]


LOAN_OFFERS = Domain(
    name="loan_offers",
    title="Loan offers",
    owner="credit-pricing",
    tables=("offers", "transactions"),
    keys=features.KEYS,
    moment="offered_at",
    months_back=6,
    features=_features,
    build=lambda tables, source: features.build(tables, _features(source)),
    train=_train,
    evaluate=CLASSIFIER.evaluate,
    test=CLASSIFIER.test,
    gate=CLASSIFIER.gate,
    gain=lambda window, bundle: profit.logged(window.frame, window.labels, bundle),
    gain_unit="profit in currency per customer, by the offers whose random rate was the one chosen",
    decide=_decide,
    needs=tuple(f"offers.{name}" for name in ("annual_rate_pct", "loan_amount", "term_months", "is_rate_random", "is_accepted")),
    upstream=("scores_loan_default",),
    watch=MonitoringSpec(
        label="is_accepted",
        matured=_known,
        by_construction=dict.fromkeys(("days_since_offer", "accepted_share_before"), "needs earlier offers, which add up with the ledger"),
        population=lambda rows: rows.filter(rows.is_rate_random.fill_null(False)),
        is_scored_as_it_stands=False,
    ),
    more_scores=MORE_SCORES,
    score=_score,
    truth="truth_offers",
    oracle=_oracle,
)
