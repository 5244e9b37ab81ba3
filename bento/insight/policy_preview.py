"""The effect of another policy: the newest decisions of the service's store, decided again under it and under the policy in effect.

As `finrisk policy diff` does it with the scored rows of the ledger, but of what the service decided, with the code that answers requests.
Nothing is stored, and no person is named. It is bounded: at most `MAX_DECISIONS`, the newest, and about `BUDGET_S` seconds.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sqlalchemy import bindparam, func, select

from bento.decisions.domains import outcome_of
from bento.decisions.record_tiers import AnswerRebuilder, Rescored, rescore
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem, invalid_field
from bento.store.records import StoredDecision
from bento.store.session import Store, map_store_faults, write_transaction
from bento.store.tables import decisions
from finrisk_assets.domains.loan_default.decide import REFER, decide_applications
from finrisk_assets.domains.transaction_anomaly.decide import compute_savings
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import PolicyError, parse_policy
from finrisk_assets.scoring.loan_decision import name_grade
from schemas.insight_api import DomainPreview, LendingWorth, PolicyPreview, PreviewGroup
from schemas.timestamps import DAY_US, from_micros

DAYS = 30
"""Days whose decisions are decided again."""
MAX_DECISIONS = 1_000
BUDGET_S = 3.0
"""Seconds after which no more decisions are decided again: a client waits for ten."""
CHUNK = 50
"""Decisions of one model that are scored as one matrix, and between which scoring has its turn."""
MAX_EXAMPLES = 10
"""Decisions of each domain that are named as examples."""

_BOUNDS = select(func.min(decisions.c.position), func.max(decisions.c.position)).where(decisions.c.decided_at >= bindparam("since"))


@dataclass
class _Tally:
    """The counts of one domain."""

    decisions: int = 0
    left_out: int = 0
    changed: int = 0
    worths: list[tuple[float, float]] = field(default_factory=list)
    groups: dict[tuple[str, str], list[tuple[bool, float | None]]] = field(default_factory=lambda: defaultdict(list))
    examples: list[str] = field(default_factory=list)


def preview_policy(store: Store, answers: AnswerRebuilder, now: Policy, text: str, clock: Callable[[], float]) -> PolicyPreview:
    """Return what would be decided otherwise under another policy, and record the question in the audit. Call this in a thread of its own.

    Parameters
    ----------
    answers
        Finds the bundles of all versions that decided.
    now
        The policy in effect.
    text
        The other policy, as YAML.
    clock
        Returns seconds, for the budget.

    Raises
    ------
    bento.problems.Problem
        422 for a text that is no policy; 503 where the store is not available.
    """
    try:
        other = parse_policy(text, "the policy")
    except PolicyError as error:
        raise invalid_field("policy", f"{error}.") from None
    with write_transaction(store):
        store.audit("advise", domain="policy")
    since, began = store.clock() - DAYS * DAY_US, clock()
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    is_complete = True
    with map_store_faults():
        newest, has_older = _read_newest(store, since)
        for chunk in _split_by_model(newest):
            if clock() - began > BUDGET_S:
                is_complete = False
                break
            _decide_again(answers, chunk, now, other, tallies[chunk[0].domain])
            time.sleep(0)  # whoever waits for the interpreter has a turn
    return PolicyPreview(
        name=other.name,
        version=other.version,
        since=from_micros(since),
        decisions=sum(tally.decisions for tally in tallies.values()),
        is_complete=is_complete and not has_older,
        domains=[_summarise(domain, tally) for domain, tally in sorted(tallies.items())],
    )


def measure_lending(store: Store, answers: AnswerRebuilder, policy: Policy, days: int, clock: Callable[[], float]) -> LendingWorth:
    """Return what the newest loans and offers of the last days are expected to be worth. Call this in a thread of its own.

    Parameters
    ----------
    policy
        The policy in effect.
    clock
        Returns seconds, for the budget.

    Raises
    ------
    bento.problems.Problem
        503 where the store is not available.
    """
    with write_transaction(store):
        store.audit("read", domain="worth")
    since, began, is_complete = store.clock() - days * DAY_US, clock(), True
    worths: dict[str, list[float]] = {"loan_default": [], "loan_offers": []}
    with map_store_faults():
        newest, has_older = _read_newest(store, since, worths)
        for chunk in _split_by_model(newest):
            if clock() - began > BUDGET_S / 3:
                is_complete = False
                break
            scorer = answers.build_scorer(chunk[0].domain, chunk[0].model_version, policy)
            if scorer is None:
                continue
            for decision, rescored in zip(chunk, _rescore_each(chunk[0].domain, scorer, chunk), strict=True):
                worth = None if rescored is None else value_decision(decision, scorer, rescored.answer)
                worths[decision.domain] += [] if worth is None else [worth]
            time.sleep(0)
    loans, offers = worths["loan_default"], worths["loan_offers"]
    return LendingWorth(
        since=from_micros(since),
        applications=len(loans),
        loans_amount=sum(loans) if loans else None,
        offers=len(offers),
        offers_amount=sum(offers) if offers else None,
        is_complete=is_complete and not has_older,
    )


def _read_newest(store: Store, since: int, domains: Collection[str] = ()) -> tuple[list[StoredDecision], bool]:
    """Return the newest decisions since a time, of some domains or all, the newest first, and whether there are older ones not read."""
    with store.reading_apart() as database, database.reading() as connection:
        first, last = connection.execute(_BOUNDS, {"since": since}).one()
    if first is None:
        return [], False
    after = max(first - 1, last - MAX_DECISIONS)
    read = [decision for decision in store.decisions(after=after, domains=domains) if decision.decided_at >= since]
    return read[::-1], after >= first


def _split_by_model(newest: Sequence[StoredDecision]) -> Iterator[list[StoredDecision]]:
    """Yield the readable decisions in chunks of one domain and model version, each chunk as soon as it is full."""
    chunks: dict[tuple[str, str], list[StoredDecision]] = defaultdict(list)
    for decision in newest:
        if decision.content is None:
            continue
        key = decision.domain, decision.model_version
        chunks[key].append(decision)
        if len(chunks[key]) == CHUNK:
            yield chunks.pop(key)
    yield from chunks.values()


def _decide_again(answers: AnswerRebuilder, chunk: list[StoredDecision], now: Policy, other: Policy, tally: _Tally) -> None:
    """Decide a chunk under both policies, and count."""
    domain = chunk[0].domain
    before, after = (answers.build_scorer(domain, chunk[0].model_version, policy) for policy in (now, other))
    if before is None or after is None:
        tally.left_out += len(chunk)
        return
    for decision, olds, news in zip(chunk, _rescore_each(domain, before, chunk), _rescore_each(domain, after, chunk), strict=True):
        if olds is None or news is None:
            tally.left_out += 1
            continue
        _count(decision, (before, olds), (after, news), tally)


def _rescore_each(domain: str, scorer: Scorer, chunk: Sequence[StoredDecision]) -> list[Rescored | None]:
    """Return each decision under the scorer's policy; None where it cannot be decided from what was recorded."""
    payloads = [scorer.renew(decision.content) for decision in chunk if decision.content is not None]
    try:
        return list(rescore(domain, scorer, payloads))
    except (KeyError, TypeError, ValueError, Problem):  # one of them cannot be scored: find which
        return [None] if len(chunk) == 1 else [_rescore_each(domain, scorer, [decision])[0] for decision in chunk]


def _count(decision: StoredDecision, before: tuple[Scorer, Rescored], after: tuple[Scorer, Rescored], tally: _Tally) -> None:
    domain = decision.domain
    probability, old = outcome_of(domain, before[1].answer)
    new = outcome_of(domain, after[1].answer)[1]
    worths = [value_decision(decision, scorer, rescored.answer) for scorer, rescored in (before, after)]
    gain = None if worths[0] is None or worths[1] is None else worths[1] - worths[0]
    is_changed = old != new
    tally.decisions += 1
    tally.changed += is_changed
    if worths[0] is not None and worths[1] is not None:
        tally.worths.append((worths[0], worths[1]))
    tally.groups["decision", f"{old} → {new}"].append((is_changed, gain))
    if domain == "loan_default":
        tally.groups["grade", name_grade(probability, before[0].bundle.policy)].append((is_changed, gain))
    if is_changed and len(tally.examples) < MAX_EXAMPLES:
        tally.examples.append(decision.id)


def value_decision(decision: StoredDecision, scorer: Scorer, answer: Any) -> float | None:
    """Return what a decision is expected to be worth under the scorer's policy, in currency; None where money does not measure it.

    A loan is worth its value where it is approved, its value after a review where it is referred, an offer its expected profit, and a
    transaction what a review or a block is expected to save less what it costs.
    """
    domain, policy = decision.domain, scorer.bundle.policy
    if domain == "loan_offers":
        return 0.0 if answer.offer is None else float(answer.offer.expected_profit)
    if domain == "loan_default":
        if answer.decision != REFER:
            return float(answer.value_amount) if answer.decision == "approve" else 0.0
        context = {} if decision.content is None else decision.content.decision_context
        columns = {name: np.array([np.nan if value is None else value]) for name, value in context.items()}
        return float(decide_applications(columns, np.array([answer.pd]), policy).reviewed_value[0])
    if domain == "transaction_anomaly" and scorer.bundle.calibration.kind != "exp2" and decision.content is not None:
        amount = [float(decision.content.request["amount"])]
        stopped, passed = (
            float(compute_savings(amount, [is_fraud], [answer.decision], policy.transaction_anomaly)[0]) for is_fraud in (True, False)
        )
        return answer.risk_score * stopped + (1 - answer.risk_score) * passed
    return None


def _summarise(domain: str, tally: _Tally) -> DomainPreview:
    return DomainPreview(
        domain=domain,
        decisions=tally.decisions,
        changed=tally.changed,
        left_out=tally.left_out,
        worth_before_amount=sum(before for before, _ in tally.worths) if tally.worths else None,
        worth_after_amount=sum(after for _, after in tally.worths) if tally.worths else None,
        groups=[
            PreviewGroup(
                column=column,
                group=group,
                decisions=len(rows),
                changed=sum(is_changed for is_changed, _ in rows),
                worth_amount=None if any(gain is None for _, gain in rows) else sum(gain or 0.0 for _, gain in rows),
            )
            for (column, group), rows in sorted(tally.groups.items())
            if any(is_changed for is_changed, _ in rows)
        ],
        examples=tally.examples,
    )
