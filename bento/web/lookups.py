"""What the look-ups answer: which models are here, what they showed, what is stored of a customer, and who did what."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from bento.decisions.models import Champions
from bento.problems import invalid, unknown
from bento.store import audit_chain, audit_verify
from bento.store.records import FeatureSnapshot
from bento.store.session import Store, write_transaction
from finrisk_assets.features.online import micros
from schemas.api import (
    LONGEST_IDENTIFIER,
    AuditPage,
    AuditQuery,
    AuditRecord,
    FeatureDescription,
    ModelDescription,
    ModelFigure,
    ModelFigures,
    ModelList,
    ModelMetrics,
    RiskScores,
    StoredScore,
)

_EPOCH = datetime(1970, 1, 1)
_LOOKED_AT = 2_000
"""Records of the audit that are looked at for one page."""
_IN_EVERY_DOMAIN = ("score", "probability", "decision", "model_version")


def models(champions: Champions) -> ModelList:
    """The models that answer, with every feature they take, and why others are missing."""
    return ModelList(
        models=[
            ModelDescription(
                domain=bundle.domain,
                name=bundle.name,
                version=bundle.version,
                source=bundle.source,
                features=[
                    FeatureDescription(name=feature.name, unit=feature.unit, description=feature.description) for feature in bundle.features
                ],
            )
            for bundle in champions.bundles.values()
        ],
        absent=dict(champions.absent),
    )


def metrics(champions: Champions) -> ModelMetrics:
    """What the champions showed on their test windows and beside the oracle."""
    return ModelMetrics(
        models=[
            ModelFigures(
                domain=bundle.domain,
                name=bundle.name,
                version=bundle.version,
                source=bundle.source,
                test=_figures(champions.figures[domain], "test"),
                oracle=_figures(champions.figures[domain], "oracle"),
            )
            for domain, bundle in champions.bundles.items()
        ]
    )


def _figures(measured: Sequence[Mapping[str, Any]], window: str) -> list[ModelFigure]:
    return [
        ModelFigure(
            name=figure["metric"],
            value=figure["value"],
            low=figure.get("low"),
            high=figure.get("high"),
            meaning=figure.get("meaning", ""),
        )
        for figure in measured
        if figure["window"] == window
    ]


def risk_scores(store: Store, customer_id: str) -> RiskScores:
    """The newest stored score of a customer in every domain; that it was read is recorded.

    Raises
    ------
    bento.problems.Problem
        Where nothing is stored of the customer, or the store cannot be had.
    """
    if len(customer_id) > LONGEST_IDENTIFIER:
        raise invalid("customer_id", f"At most {LONGEST_IDENTIFIER} characters.")
    with write_transaction(store):
        person = store.person(customer_id)
        found = [] if person is None else store.find_snapshots(customer_id=customer_id)
        if person is None or not found:
            raise unknown("customer_id")
        store.audit("read", person=person.person)
    return RiskScores(customer_id=customer_id, scores=[_stored_score(standing) for standing in found])


def audit_page(store: Store, asked: AuditQuery) -> AuditPage:
    """Who did what, the newest first; that it was read is recorded.

    A bounded number of records is looked at for one page, so that nobody waits while a rare action is looked for.

    Raises
    ------
    bento.problems.Problem
        Where the store cannot be had.
    """
    since = None if asked.since is None else micros(asked.since)
    with write_transaction(store) as connection:
        seen = audit_verify.find(connection, person=asked.person, since=since, older=_place(asked.before), most=_LOOKED_AT)
        store.audit("read", person=asked.person, domain="audit")
    wanted = {"caller": asked.caller, "action": asked.action}
    fits = [at for at, one in enumerate(seen) if all(value in (None, getattr(one, name)) for name, value in wanted.items())]
    shown = fits[: asked.limit]
    if len(fits) > asked.limit:
        last: int | None = shown[-1]
    else:
        last = len(seen) - 1 if len(seen) == _LOOKED_AT else None
    following = None if last is None else f"{seen[last].at}.{seen[last].writer}.{seen[last].number}"
    return AuditPage(records=[_audit_record(seen[at]) for at in shown], next=following)


def _place(cursor: str | None) -> tuple[int, str, int] | None:
    """Where the page before ended."""
    if cursor is None:
        return None
    at, writer, number = cursor.split(".")
    return int(at), writer, int(number)


def _audit_record(one: audit_chain.Record) -> AuditRecord:
    values = one._asdict() | {"at": _EPOCH + timedelta(microseconds=one.at)}
    del values["previous"]
    return AuditRecord(**values)


def _stored_score(standing: FeatureSnapshot) -> StoredScore:
    return StoredScore(
        domain=standing.domain,
        subject=standing.subject,
        account_id=standing.account_id,
        as_of=standing.as_of,
        **{name: standing.score[name] for name in _IN_EVERY_DOMAIN},
        details={name: value for name, value in standing.score.items() if name not in _IN_EVERY_DOMAIN},
    )
