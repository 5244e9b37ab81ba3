"""The effect of a change of policy: last month's scored rows, decided under two policies, counted and valued.

No model is trained and nothing is stored. The rows are those of the last month in each domain's feature table.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from finrisk_assets.policy.document import Policy

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.domains.base import Domain
    from finrisk_assets.ledger.sources.source_definition import Source
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
    from finrisk_assets.graph.stages.common import champion_folder, join_companions, load_bundle, load_frame
    from finrisk_assets.graph.stages.evaluation import load_protected_columns

    features = warehouse.table(f"features_{domain.group}")
    # A row of midnight on the first tells about the month that has just ended.
    newest = features[domain.decision_time].max().to_pyarrow().as_py() - timedelta(microseconds=1)
    rows = features.filter(features[domain.decision_time] > datetime(newest.year, newest.month, 1))
    joined = join_companions(rows, domain, warehouse)
    bundle = load_bundle(champion_folder(domain, settings), domain, settings)
    # The rules that fire on the rows are each policy's own; rows without rules are loaded once.
    ruled = [domain.join_rules(joined, warehouse.table, policy) for policy in (before, after)]
    frame = load_frame(ruled[0], domain)
    frames = frame, frame if ruled[1] is ruled[0] else load_frame(ruled[1], domain)
    scored = [domain.score(rows, bundle.under(policy)) for rows, policy in zip(frames, (before, after), strict=True)]
    old, new = (np.asarray(one["decision"], str) for one in scored)
    worths = [domain.value_decisions(frame, one, policy) for one, policy in zip(scored, (before, after), strict=True)]
    gain = None if worths[0] is None or worths[1] is None else worths[1] - worths[0]
    columns = {"decision": _name_changes(old, new)} | _group_rows(domain, frame, scored[0], before)
    columns |= _group_people(frame, domain, load_protected_columns(warehouse, source))
    is_changed = old != new
    return PolicyDiff(
        domain.name,
        f"{newest:%Y-%m}",
        len(frame),
        int(is_changed.sum()),
        None if worths[0] is None else float(worths[0].sum()),
        None if worths[1] is None else float(worths[1].sum()),
        [change for name, groups in columns.items() for change in _count(name, groups, is_changed, gain)],
    )


def _name_changes(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.char.add(np.char.add(old, " → "), new)


def _group_rows(domain: "Domain", frame: "pd.DataFrame", scored: Mapping[str, Any], policy: Policy) -> dict[str, np.ndarray]:
    """Return the grade of each row, where the domain's probability has grades."""
    from finrisk_assets.scoring.loan_decision import name_grade

    if domain.name != "loan_default":
        return {}
    return {"grade": np.array([name_grade(float(probability), policy) for probability in scored["probability"]])}


def _group_people(frame: "pd.DataFrame", domain: "Domain", protected: "pd.DataFrame | None") -> dict[str, np.ndarray]:
    """Return the protected groups of each row's person."""
    from finrisk_assets.modelling.evaluation.fairness import group_protected

    if protected is None:
        return {}
    of_rows = protected.set_index("customer_id").reindex(frame.customer_id).reset_index(drop=True)
    return dict(group_protected(of_rows, list(of_rows.columns), frame[domain.decision_time].to_numpy()))


def _count(column: str, groups: np.ndarray, is_changed: np.ndarray, gain: np.ndarray | None) -> Iterator[GroupChange]:
    for group in np.unique(groups):
        inside = groups == group
        if is_changed[inside].any():
            worth = None if gain is None else float(gain[inside].sum())
            yield GroupChange(column, str(group), int(inside.sum()), int(is_changed[inside].sum()), worth)
