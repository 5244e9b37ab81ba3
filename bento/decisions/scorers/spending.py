"""The answer of `POST /v1/spending-risk`: whether spending leads into trouble.

A customer of the ledger is scored by the model of all features, eight behaviour fields by the model of those eight.
"""

from bento.decisions.answers import ScoringInput, load_snapshot, reject_fields, row_from_snapshot, row_of, score
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem
from finrisk_assets.domains.spending_risk.decide import DECISION_RULE, EIGHT, HIGH, LOW, find_field_faults, raise_doubtful
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.ratios import LARGEST_RATIO
from finrisk_assets.scoring.spec import Rows
from schemas.api import FieldError, SpendingAnswer, SpendingRequest
from schemas.insight_api import SpendingWhatIfRequest

_REQUIRED = "This field is required: send all eight, or customer_id alone."


class SpendingScorer(Scorer):
    """The scorer of one bundle of the domain `spending_risk`: all features from the customers' snapshots, or the eight fields."""

    def prepare(self, request: SpendingRequest) -> ScoringInput:
        """Return the row of a customer's newest features, or of the eight behaviour fields."""
        if request.customer_id is None:
            return ScoringInput(request, _behaviour_row(self.bundle, request))
        reject_fields(request, [name for name in request.behaviour_fields()], "customer_id")
        snapshot = load_snapshot(self._store, "spending_risk", customer_id=request.customer_id)
        return ScoringInput(request, row_from_snapshot(self.bundle, snapshot.features), snapshot)

    def answer_what_if(self, request: SpendingWhatIfRequest) -> SpendingAnswer:
        """Answer as if some features of a customer were others, or for eight fields, without recording a decision.

        Raises
        ------
        bento.problems.Problem
            As of `prepare`; 422 where a changed feature is none of the model's, or `changes` come without a customer.
        """
        scoring_input = self.prepare(request)
        changes = request.changes or {}
        if changes:
            if scoring_input.snapshot is None:
                raise Problem.from_status(
                    422, [FieldError(field="changes", reason="It needs customer_id: change the eight fields themselves.")]
                )
            unknown = [name for name in changes if name not in self.bundle.columns]
            if unknown:
                reason = "The model has no such feature; `GET /v1/models` lists them."
                raise Problem.from_status(422, [FieldError(field=f"changes.{name[:64]}", reason=reason) for name in unknown])
            row = row_from_snapshot(self.bundle, {**scoring_input.snapshot.features, **changes})
            scoring_input = scoring_input._replace(row=row)
        return self.build_answer(scoring_input, score(self.bundle, scoring_input.row))

    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> SpendingAnswer:
        """Return the risk level of a customer or of eight fields."""
        row, snapshot = scoring_input.row, scoring_input.snapshot
        probability = float(scores.probability[0])
        level = raise_doubtful(DECISION_RULE.decide(probability, self.bundle.thresholds), scores.doubts[0] is not None)
        return SpendingAnswer(
            customer_id=snapshot and snapshot.customer_id,
            as_of=snapshot and snapshot.as_of,
            risk_probability=probability,
            risk_level=level,
            **self.explainer.fields(row, scores, high=level != LOW, refused=level == HIGH),
        )


def _behaviour_row(bundle: Bundle, request: SpendingRequest) -> Rows:
    """Return the row of the eight fields, refused where they contradict each other."""
    values = request.behaviour()
    fields = {name: value for name in EIGHT if (value := values[name]) is not None}
    missing = [name for name in EIGHT if name not in fields]
    if missing:
        raise Problem.from_status(422, [FieldError(field=name, reason=_REQUIRED) for name in missing])
    faults = find_field_faults(fields)
    if faults:
        raise Problem.from_status(422, [FieldError(field=request.as_sent(name), reason=f"It {reason}.") for name, reason in faults])
    return row_of(bundle, fields | {"Expense_Income_Ratio": min(fields["Expense_Income_Ratio"], LARGEST_RATIO)}, "")
