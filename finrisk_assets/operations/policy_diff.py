"""The effect of a change of policy: last month's scored rows, decided under two policies, counted and valued.

No model is trained and nothing is stored. The rows are those of the last month in each domain's feature table, a part of the customers at
a time.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from finrisk_assets.policy.document import Policy

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.domains.base import Domain
    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class GroupChange:
    """The changed decisions of one group of rows.

    Attributes
    ----------
    column, group
        ``decision`` and the change (``refer → approve``), ``grade``, or a protected column with one of its groups.
    n, changed
        Rows of the group, and those of them whose decision changes.
    worth
        By how much the rows' decisions are worth more, in currency; None where the domain's decisions have no worth.
    """

    column: str
    group: str
    n: int
    changed: int
    worth: float | None


@dataclass(frozen=True)
class PolicyDiff:
    """The decisions of one domain under two policies.

    Attributes
    ----------
    domain, month
        The domain, and the month of its rows, as ``2024-06``.
    n, changed
        Rows, and those whose decision changes.
    worth_before, worth_after
        What the decisions are expected to be worth in currency, each by its own policy; None where they have no worth.
    groups
        The same by decision, grade and protected group, only those with a change.
    """

    domain: str
    month: str
    n: int
    changed: int
    worth_before: float | None
    worth_after: float | None
    groups: Sequence[GroupChange]


def list_changed_keys(before: Policy, after: Policy) -> list[tuple[str, Any, Any]]:
    """Return dotted key, value before and value after of every difference; a rule on transactions by its name, None where there is none."""
    old, new = _flatten(before), _flatten(after)
    return [(key, old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]) if old.get(key) != new.get(key)]


def _flatten(policy: Policy) -> dict[str, Any]:
    values = policy.flatten()
    rules = values.pop("transaction_anomaly.rules")
    return values | {f"transaction_anomaly.rules.{rule['name']}": rule for rule in rules}


def compare_policies(settings: "Settings", before: Policy, after: Policy) -> Iterator[PolicyDiff]:
    """Yield the difference of each domain that has a champion and features; domains without are left out."""
    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.graph.stages.common import champion_folder
    from finrisk_assets.graph.warehouse import Warehouse
    from finrisk_assets.ledger import sources

    source, warehouse = sources.load(settings), Warehouse.of(settings)
    for domain in domains_of(source):
        if champion_folder(domain, settings).is_dir() and warehouse.has(f"features_{domain.group}"):
            yield _compare(domain, source, warehouse, settings, before, after)


def _compare(domain: "Domain", source: "Source", warehouse: Any, settings: "Settings", before: Policy, after: Policy) -> PolicyDiff:
    import pandas as pd

    from finrisk_assets.graph.stages.common import champion_folder, join_companions, load_bundle
    from finrisk_assets.graph.stages.evaluation import load_protected_columns
    from finrisk_assets.ledger.customer_parts import split_by_customers

    features = warehouse.table(f"features_{domain.group}")
    # A row of midnight on the first tells about the month that has just ended.
    newest = features[domain.decision_time].max().to_pyarrow().as_py() - timedelta(microseconds=1)
    rows = features.filter(features[domain.decision_time] > datetime(newest.year, newest.month, 1))
    joined = join_companions(rows, domain, warehouse)
    bundle = load_bundle(champion_folder(domain, settings), domain, settings)
    # The rules that fire on the rows are each policy's own; rows without rules are loaded once.
    old_rows, new_rows = (domain.join_rules(joined, warehouse.table, policy) for policy in (before, after))
    of_old, of_new = split_by_customers(old_rows), None if new_rows is old_rows else split_by_customers(new_rows)
    pairs = ((part, part) for part in of_old) if of_new is None else zip(of_old, of_new, strict=True)
    parts = [_decide(domain, pair, bundle, (before, after)) for pair in pairs]
    people = pd.concat([part.people for part in parts], ignore_index=True)
    old, new = (np.concatenate([part.decisions[side] for part in parts]) for side in (0, 1))
    worths = [_concatenate([part.worths[side] for part in parts]) for side in (0, 1)]
    gain = None if worths[0] is None or worths[1] is None else worths[1] - worths[0]
    columns = {"decision": _name_changes(old, new)}
    if parts[0].grade is not None:
        columns["grade"] = np.concatenate([part.grade for part in parts if part.grade is not None])
    columns |= _group_people(people, domain, load_protected_columns(warehouse, source))
    is_changed = old != new
    return PolicyDiff(
        domain.name,
        f"{newest:%Y-%m}",
        len(people),
        int(is_changed.sum()),
        None if worths[0] is None else float(worths[0].sum()),
        None if worths[1] is None else float(worths[1].sum()),
        [change for name, groups in columns.items() for change in _count(name, groups, is_changed, gain)],
    )


class _DecidedPart(NamedTuple):
    """Rows of some customers as two policies decide on them: customer and time, then decision and worth by each policy, and the grade."""

    people: "pd.DataFrame"
    decisions: tuple[np.ndarray, np.ndarray]
    worths: tuple[np.ndarray | None, np.ndarray | None]
    grade: np.ndarray | None


def _decide(domain: "Domain", parts: "tuple[LazyTable, LazyTable]", bundle: "Bundle", policies: tuple[Policy, Policy]) -> _DecidedPart:
    """Decide the rows of some customers, which the first of `parts` has with the rules of the first policy, and so the second."""
    from finrisk_assets.graph.stages.common import load_frame

    frame = load_frame(parts[0], domain)
    frames = frame, frame if parts[1] is parts[0] else load_frame(parts[1], domain)
    old, new = (domain.score(rows, bundle.under(policy)) for rows, policy in zip(frames, policies, strict=True))
    return _DecidedPart(
        frame[["customer_id", domain.decision_time]].copy(),
        (np.asarray(old["decision"], str), np.asarray(new["decision"], str)),
        (domain.value_decisions(frame, old, policies[0]), domain.value_decisions(frame, new, policies[1])),
        _name_grades(domain, old, policies[0]),
    )


def _concatenate(worths: "Sequence[np.ndarray | None]") -> np.ndarray | None:
    """Return the worth of all rows; None where money does not measure the decisions of one part."""
    known = [worth for worth in worths if worth is not None]
    return np.concatenate(known) if len(known) == len(worths) else None


def _name_changes(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.char.add(np.char.add(old, " → "), new)


def _name_grades(domain: "Domain", scored: Mapping[str, Any], policy: Policy) -> np.ndarray | None:
    """Return the grade of each row; None where the domain's probability has no grades."""
    from finrisk_assets.scoring.loan_decision import name_grade

    if domain.name != "loan_default":
        return None
    return np.array([name_grade(float(probability), policy) for probability in scored["probability"]])


def _group_people(people: "pd.DataFrame", domain: "Domain", protected: "pd.DataFrame | None") -> dict[str, np.ndarray]:
    """Return the protected groups of each row's person."""
    from finrisk_assets.modelling.evaluation.fairness import group_protected

    if protected is None:
        return {}
    of_rows = protected.set_index("customer_id").reindex(people.customer_id).reset_index(drop=True)
    return dict(group_protected(of_rows, list(of_rows.columns), people[domain.decision_time].to_numpy()))


def _count(column: str, groups: np.ndarray, is_changed: np.ndarray, gain: np.ndarray | None) -> Iterator[GroupChange]:
    for group in np.unique(groups):
        inside = groups == group
        if is_changed[inside].any():
            worth = None if gain is None else float(gain[inside].sum())
            yield GroupChange(column, str(group), int(inside.sum()), int(is_changed[inside].sum()), worth)
