"""Spending risk as the graph knows it: two models on one feature table, one of all features and one of the eight that a client may send."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import MonitoringSpec, ScoredWindow
from finrisk_assets.domains.classifier import ClassifierDomain, net_benefit, score_by_threshold
from finrisk_assets.domains.spending_risk import catalogue, decide, features, model, target
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.ledger.month_totals import ACCOUNT_TOTALS
from schemas.features import Feature, feature_table
from schemas.ledger import Table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.modelling.training.split import Split
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

WITHOUT = {"berka": catalogue.SEASON}
"""Source -> features that it leaves out. Berka's labelled rows span one year, in which each month comes once: no season shows."""


class SpendingRisk(ClassifierDomain):
    """The risk that a person's spending leads to trouble."""

    name = "spending_risk"
    title = "Spending risk"
    owner = "personal-finance"
    tables = ("customers", "transactions")
    totals = (ACCOUNT_TOTALS.name,)
    needs = ("transactions.customer_id", "transactions.category", "transactions.balance_amount")
    keys = features.KEYS
    reference_group = "people at lower risk"
    is_reference_safer = True
    decision_time = "as_of"
    months_back = 7
    months_ahead = 3
    label = "is_trouble"
    outcome = "trouble"
    cutoffs = ("medium_from", "high_from")
    utility_unit = "troubles found, less false alarms at the odds of the threshold, per person and month"
    truth = "truth_spending_risk"
    truth_key = ("customer_id", "as_of")
    monitoring = MonitoringSpec(
        decision_thresholds=("medium_from", "high_from"),
        by_construction=dict.fromkeys(catalogue.SEASON, "the month of the year"),
    )

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        """Return the features of whole calendar months: the eight fields' window of 90 days holds two or three paydays by chance."""
        return tuple(feature for feature in _table_features(source) if feature.name not in decide.EIGHT)

    def feature_contract(self, source: "Source") -> Table:
        """Return the contract of the one feature table that both models read."""
        return feature_table(self.group, self.keys, _table_features(source))

    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan = ALL_TIMES) -> "LazyTable":
        return features.build(tables, _table_features(source), target.find_rule(source.name), span)

    def labelled_rows(self, frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
        """Return the month-ends whose outcome is known when the ledger is read."""
        labelled = frame[frame.is_trouble.notna() & (frame.outcome_known_at <= settings.now)].reset_index(drop=True)
        return labelled.assign(is_trouble=labelled.is_trouble.astype(bool))

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        return model.candidates(features, seed, threads, n_rows)

    def split(self, labelled: "pd.DataFrame", settings: "Settings") -> "Split":
        """Split month-ends as `model.split_month_ends` does."""
        keys, customers = labelled.customer_month.tolist(), labelled.customer_id.tolist()
        return model.split_month_ends(keys, labelled.is_trouble, labelled.as_of, customers, labelled.outcome_known_at, settings.seed)

    def complete_spec(self, spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
        """Return the bundle with the references of a HIGH risk's reasons: those just below it, wherever the policy has it begin."""
        from finrisk_assets.modelling.evaluation.explain import with_references
        from finrisk_assets.modelling.training.candidates import to_matrix

        return with_references(spec, to_matrix(validation, spec.features))

    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> Mapping[str, Any]:
        from finrisk_assets.modelling.training.candidates import to_matrix

        scored = score_by_threshold(frame, champion, decide.DECISION_RULE.decide_all)
        doubtful = champion.is_doubtful(to_matrix(frame, champion.features)).tolist()
        return scored | {"decision": [decide.raise_doubtful(*pair) for pair in zip(scored["decision"], doubtful, strict=True)]}

    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        return net_benefit(window, [bundle.thresholds[name] for name in ("medium_from", "high_from")])


class SpendingRiskEight(SpendingRisk):
    """Spending risk of the eight fields that a client may send itself."""

    name = "spending_risk_eight"
    title = "Spending risk, eight fields"
    features_of = "spending_risk"

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        return catalogue.EIGHT_FEATURES

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        return model.candidates_of_eight(features, seed, threads, n_rows)


def _table_features(source: "Source") -> tuple[Feature, ...]:
    """Return the features of the one feature table that both models read."""
    columns = {name: raw.columns for name, raw in source.tables.items()}
    return features.select_features(columns, WITHOUT.get(source.name, ()))


SPENDING_RISK = SpendingRisk()
SPENDING_RISK_EIGHT = SpendingRiskEight()
