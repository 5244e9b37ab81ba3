"""Loan default as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Evaluation, Figure, MonitoringSpec, ScoredWindow
from finrisk_assets.domains.classifier import ClassifierDomain
from finrisk_assets.domains.loan_default import decide, features, model, month_end_applications
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import ACCOUNT_TOTALS
from schemas.features import Feature
from schemas.ledger import Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.modelling.training.candidates import Candidate
    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings


class LoanDefault(ClassifierDomain):
    """The risk that a loan that is applied for will default."""

    name = "loan_default"
    title = "Loan default"
    owner = "credit-risk"
    tables = ("customers", "accounts", "transactions", "loans", "offers")
    totals = (ACCOUNT_TOTALS.name,)
    reads_movements = False
    needs = ("loans.is_default",)
    keys = features.KEYS
    reference_group = "safer applicants"
    is_reference_safer = True
    decision_time = "applied_at"
    months_back = 7
    label = "is_default"
    outcome = "default"
    cutoffs = ("refer_from", "refuse_from")
    utility_unit = "profit in currency per loan, by what happened within a year"
    truth = "truth_loans"
    truth_key = ("loan_id",)
    truth_probability = "true_pd"
    more_scores = (
        Column("value_amount", "float64", "What the loan is worth at its terms, defaults counted.", "currency", True, personal="personal"),
        Column("reviewed_value_amount", "float64", "The same where a person reviews it first.", "currency", True, personal="personal"),
    )
    monitoring = MonitoringSpec(
        decision_thresholds=("refer_from", "refuse_from"),
        by_construction={"customer_months": "grows with every month that a customer stays"},
    )

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
        return features.select_features(filled, source.features.get("loan_default", ()))

    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan = ALL_TIMES) -> "LazyTable":
        loans = month_end_applications.add_month_end_applications(tables, span)
        return features.build({**tables, "loans": loans}, self.select_features(source), span)

    def build_application_features(self, tables: "Mapping[str, LazyTable]", source: "Source") -> "LazyTable":
        """Return the feature table of the loans in `tables` alone, month-end applications among them where they stand there."""
        return features.build(tables, self.select_features(source))

    def training_population(self, table: "LazyTable") -> "LazyTable":
        """Return the loans that were applied for, without the month-end applications."""
        return month_end_applications.exclude_month_end_applications(table)

    def labelled_rows(self, frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
        """Return the loans that had their time to default and whose outcome is known when the ledger is read; no month-end applications."""
        is_known = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
        labelled = frame[frame.is_default.notna() & is_known]
        labelled = labelled[model.is_mature(labelled.applied_at, labelled.outcome_known_at)].reset_index(drop=True)
        return labelled.assign(is_default=labelled.is_default.astype(bool))

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        return model.candidates(features, seed, threads, n_rows)

    def find_unlearned(self, features: Sequence[Feature]) -> Collection[str]:
        return model.find_unlearned(features)

    def complete_spec(self, spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
        """Return the bundle with the references of a refusal's reasons, and with the safer applicants' values of changeable features.

        The safer half stands for the approved: a policy approves whom it likes without a training.
        """
        import numpy as np

        from finrisk_assets.domains.loan_default import actionability
        from finrisk_assets.modelling.evaluation.explain import with_references
        from finrisk_assets.modelling.training.candidates import to_matrix
        from finrisk_assets.scoring import recourse
        from finrisk_assets.scoring.bundle import Bundle

        rows = to_matrix(validation, spec.features)
        probability = Bundle(spec, "").probability(rows)
        safer = rows[probability <= np.median(probability)]
        quantiles = recourse.approved_quantiles(spec.features, safer, actionability.CHANGEABLE)
        return replace(with_references(spec, rows), approved=quantiles)

    def export_files(self, candidates: "Sequence[Candidate]", spec: "BundleSpec") -> Mapping[str, bytes]:
        """Return the scorecard as a page, a table and a query, whichever candidate was chosen."""
        from finrisk_assets.modelling.training import scorecard

        (card,) = (candidate.estimator.card_ for candidate in candidates if candidate.name == model.SCORECARD)
        card = card.with_levels(spec.features, spec.categories)
        return scorecard.render_files(card, "analytics.features_loan_default", "loan_id")

    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> Mapping[str, Any]:
        """Return margin, PD and decision of each application, and its value at its own terms."""
        import numpy as np

        from finrisk_assets.modelling.training.candidates import to_matrix

        rows = to_matrix(frame, champion.features)
        margin = champion.margin(rows)
        probability = champion.calibration.apply(margin)
        decided = decide.decide_applications(_term_columns(frame), probability, champion.policy)
        return {
            "score": margin,
            "probability": probability,
            "decision": np.where(champion.is_doubtful(rows), decide.REFER, decided.words).tolist(),
            "value_amount": decided.value.value,
            "reviewed_value_amount": decided.reviewed_value,
        }

    def evaluate(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
        """Return the classifier's figures, the default rate of each grade, and the expected maximum profit."""
        from finrisk_assets.modelling.evaluation import metrics
        from finrisk_assets.modelling.evaluation.expected_max_profit import expected_max_profit
        from finrisk_assets.scoring.loan_decision import name_grade

        window = self.score_test_window(frame, bundle, settings)
        graded = [name_grade(float(p), bundle.policy) for p in window.probability]
        grades = metrics.jeffreys_test(window.labels, window.probability, graded)
        evaluation = super().evaluate(frame, bundle, settings)
        figures = [Figure(f"grade_{g.grade}_default_rate", g.defaults / g.n, g.low, g.high, f"mean PD {g.mean_pd:.4f}") for g in grades]
        profit = expected_max_profit(window.labels, window.probability).profit
        figures.append(Figure("emp", profit, meaning="expected maximum profit per unit lent (Verbraken et al. 2014)"))
        return replace(evaluation, figures=[*evaluation.figures, *figures])

    def value_decisions(self, frame: "pd.DataFrame", scored: Mapping[str, Any], policy: "Policy") -> "np.ndarray":
        """Return the value of each loan that is approved, its value after a review where it is referred, and 0 where it is refused."""
        import numpy as np

        decision = np.asarray(scored["decision"], str)
        return np.select(
            [decision == decide.APPROVE, decision == decide.REFER],
            [np.asarray(scored["value_amount"], float), np.asarray(scored["reviewed_value_amount"], float)],
            default=0.0,
        )

    def find_favourable(self, window: ScoredWindow, bundle: "Bundle") -> "Mapping[str, np.ndarray]":
        """Return whether each application is approved, and whether it is not refused; where too little is known it is referred."""
        decided = decide.decide_applications(_term_columns(window.frame), window.probability, bundle.policy)
        is_doubtful, is_refused = bundle.is_doubtful(window.rows), decided.decision == decide.DECISIONS.index(decide.REFUSE)
        return {"refer_from": decided.is_approved & ~is_doubtful, "refuse_from": is_doubtful | ~is_refused}

    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        columns = _term_columns(window.frame)
        decided = decide.decide_applications(columns, window.probability, bundle.policy)
        return decide.realised_profit(window.labels, decided, decide.read_terms(columns, bundle.policy), bundle.policy)


def _term_columns(frame: "pd.DataFrame") -> "dict[str, np.ndarray]":
    """Return the columns of the feature table that a decision reads beside the PD."""
    return {name: frame[name].to_numpy(dtype="float64", na_value=float("nan")) for name in decide.TERM_COLUMNS if name in frame}


LOAN_DEFAULT = LoanDefault()
