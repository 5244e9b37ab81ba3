"""Answers of the look-up routes: the caller, the policy, the models and their figures, a customer's newest scores, and the audit."""

from collections.abc import Mapping, Sequence
from typing import Any

from bento.context import current_caller
from bento.decisions.models import Champions
from bento.decisions.record_tiers import AnswerRebuilder
from bento.decisions.replay import replay_one
from bento.problems import Problem, parse_identifier, unknown_subject
from bento.store import audit_chain, audit_verify
from bento.store.records import FeatureSnapshot
from bento.store.session import Store, map_store_faults, write_transaction
from schemas.api import (
    AuditPage,
    AuditQuery,
    AuditRecord,
    CategoryDescription,
    FeatureDescription,
    ModelDescription,
    ModelFigure,
    ModelFigures,
    ModelList,
    ModelMetrics,
    RiskScores,
    StoredScore,
)
from schemas.features import Feature
from schemas.insight_api import AuditVerification, CallerAnswer, PolicyAnswer, ReplayAnswer
from schemas.timestamps import from_micros, to_micros

AUDIT_SCAN_LIMIT = 2_000
"""Records of the audit that are read for one page. More records find rare actions on fewer pages, and make each page slower."""
_COMMON_SCORE_FIELDS = ("score", "probability", "decision", "model_version")


def describe_caller() -> CallerAnswer:
    """Return the name and the roles of the caller of this request."""
    caller = current_caller.get()
    return CallerAnswer(name=caller.name, roles=sorted(caller.roles))


def read_policy(champions: Champions) -> PolicyAnswer:
    """Return the decision policy in effect."""
    policy = champions.policy
    return PolicyAnswer(name=policy.name, version=policy.version, sha256=policy.sha256, document=policy.model_dump(mode="json"))


def list_models(champions: Champions) -> ModelList:
    """Return the champions, each with its features, and why other domains have no model."""
    return ModelList(
        models=[
            ModelDescription(
                domain=bundle.domain,
                name=bundle.name,
                version=bundle.version,
                source=bundle.source,
                features=[_describe_feature(feature) for feature in bundle.features],
            )
            for bundle in champions.bundles.values()
        ],
        absent=dict(champions.absent),
    )


def _describe_feature(feature: Feature) -> FeatureDescription:
    described = {"name": feature.name, "unit": feature.unit, "description": feature.description}
    return CategoryDescription(**described, levels=list(feature.levels)) if feature.is_category else FeatureDescription(**described)


def list_model_metrics(champions: Champions) -> ModelMetrics:
    """Return the champions' figures on their test windows and against the oracle."""
    return ModelMetrics(
        models=[
            ModelFigures(
                domain=bundle.domain,
                name=bundle.name,
                version=bundle.version,
                source=bundle.source,
                test=_select_figures(champions.figures[domain], "test"),
                oracle=_select_figures(champions.figures[domain], "oracle"),
            )
            for domain, bundle in champions.bundles.items()
        ]
    )


def _select_figures(figures: Sequence[Mapping[str, Any]], window: str) -> list[ModelFigure]:
    return [
        ModelFigure(
            name=figure["metric"],
            value=figure["value"],
            low=figure.get("low"),
            high=figure.get("high"),
            meaning=figure.get("meaning", ""),
        )
        for figure in figures
        if figure["window"] == window
    ]


def read_risk_scores(store: Store, customer_id: str) -> RiskScores:
    """Return a customer's newest stored score in every domain, and record the access in the audit.

    Raises
    ------
    bento.problems.Problem
        404 if nothing is stored of the customer, 422 if the identifier is blank or too long, 503 if the store is not available.
    """
    customer_id = parse_identifier("customer_id", customer_id)
    with write_transaction(store):
        person = store.person(customer_id)
        snapshots = [] if person is None else store.find_snapshots(customer_id=customer_id)
        if person is None or not snapshots:
            raise unknown_subject("customer_id")
        store.audit("read", person=person.person)
    return RiskScores(customer_id=customer_id, scores=[_stored_score(snapshot) for snapshot in snapshots])


def read_audit_page(store: Store, query: AuditQuery) -> AuditPage:
    """Return a page of the audit, the newest record first, and record the access in the audit.

    A search by caller or action reads `AUDIT_SCAN_LIMIT` records at most, so that one for a rare action delays no other request. So its
    page may be short, or empty, and still name a next one.

    Raises
    ------
    bento.problems.Problem
        503 if the store is not available.
    """
    since = None if query.since is None else to_micros(query.since)
    most = query.limit + 1 if query.caller is None and query.action is None else AUDIT_SCAN_LIMIT
    with write_transaction(store) as connection:
        records = audit_verify.find(connection, person=query.person, since=since, older=_parse_cursor(query.before), most=most)
        store.audit("read", person=query.person, domain="audit")
    matches = [
        place for place, record in enumerate(records) if query.caller in (None, record.caller) and query.action in (None, record.action)
    ]
    shown = matches[: query.limit]
    if len(matches) > query.limit:
        last: int | None = shown[-1]
    else:
        last = len(records) - 1 if len(records) == most else None
    cursor = None if last is None else f"{records[last].at}.{records[last].writer}.{records[last].number}"
    return AuditPage(records=[_audit_record(records[place]) for place in shown], next=cursor)


def verify_audit(store: Store) -> AuditVerification:
    """Verify every record of every chain of the audit, and record the verification in the audit. Call this in a thread of its own.

    Raises
    ------
    bento.problems.Problem
        503 if the store is not available.
    """
    with write_transaction(store):
        store.audit("verify", domain="audit")
    with store.reading_apart() as database:
        verdict = audit_verify.verify(database, store.keyring)
    return AuditVerification(
        is_whole=verdict.broken is None and not verdict.replaced,
        writers=verdict.writers,
        records=verdict.records,
        checkpoints=verdict.checkpoints,
        broken=None if verdict.broken is None else str(verdict.broken),
        replacements=[str(replacement) for replacement in verdict.replaced],
    )


def replay_decision(store: Store, rebuilder: AnswerRebuilder, decision_id: str) -> ReplayAnswer:
    """Score one stored decision again and compare, and record the replay in the audit.

    Raises
    ------
    bento.problems.Problem
        404 if there is no such decision, 503 if the store is not available.
    """
    with map_store_faults():
        replayed = replay_one(store, rebuilder, decision_id)
    if replayed is None:
        raise Problem(404, "unknown_decision", "There is no decision under this identifier.")
    decision, outcome, difference = replayed
    with write_transaction(store):
        store.audit("replay", person=decision.person, domain=decision.domain, inputs=decision_id)
    return ReplayAnswer(
        decision_id=decision_id,
        domain=decision.domain,
        decided_at=from_micros(decision.decided_at),
        model_version=decision.model_version,
        policy_version=decision.policy_version,
        probability=decision.probability,
        decision=decision.decision,
        outcome=outcome,
        difference=difference,
    )


def _parse_cursor(cursor: str | None) -> tuple[int, str, int] | None:
    """Return time, writer and number of the last record of the page before."""
    if cursor is None:
        return None
    at, writer, number = cursor.split(".")
    return int(at), writer, int(number)


def _audit_record(record: audit_chain.Record) -> AuditRecord:
    values = record._asdict() | {"at": from_micros(record.at)}
    del values["previous"]
    return AuditRecord(**values)


def _stored_score(snapshot: FeatureSnapshot) -> StoredScore:
    return StoredScore(
        domain=snapshot.domain,
        subject=snapshot.subject,
        account_id=snapshot.account_id,
        as_of=snapshot.as_of,
        **{name: snapshot.score[name] for name in _COMMON_SCORE_FIELDS},
        details={name: value for name, value in snapshot.score.items() if name not in _COMMON_SCORE_FIELDS},
    )
