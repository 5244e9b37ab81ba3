"""The policy's rules over the ledger: which of them fire on which transactions, by the code that decides requests."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.domains.transaction_anomaly.decide import Decision, escalate
from finrisk_assets.domains.transaction_anomaly.rules import (
    Movements,
    Payments,
    encode_country,
    find_fired,
    find_reach_us,
    measure_rules,
    select_enabled,
)
from finrisk_assets.ledger.customer_parts import split_by_customers
from finrisk_assets.policy.payment_rules import PaymentRule

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

FIRED = "fired_rules"
"""Column of the names of the rules that fired, with spaces between them; null where none did."""


class LedgerRules(NamedTuple):
    """The rules that fired on transactions of the ledger.

    Attributes
    ----------
    transaction_id
        Of each transaction, shape (n,).
    fired
        Name of a rule -> on which of them it fired, shape (n,).
    """

    transaction_id: NDArray[Any]
    fired: dict[str, NDArray[np.bool_]]


def evaluate_rules(transactions: "LazyTable", rules: Sequence[PaymentRule], first: datetime, last: datetime) -> LedgerRules:
    """Evaluate rules on the transactions between two moments, both included.

    Parameters
    ----------
    transactions
        The ledger's validated transactions. Columns that the source lacks are not known of any transaction.
    """
    begin = first - timedelta(microseconds=find_reach_us(rules))
    within = transactions.filter((transactions.occurred_at >= begin) & (transactions.occurred_at <= last))
    names = ("transaction_id", "customer_id", "occurred_at", "amount", "direction", "merchant", "country")
    frame = within.select(*(name for name in names if name in transactions.columns)).to_pandas()
    movements = Movements(
        np.unique(frame.customer_id.to_numpy(str), return_inverse=True)[1].astype(np.int64),
        frame.occurred_at.to_numpy().astype("datetime64[us]").astype(np.int64),
        np.floor(frame.amount.to_numpy(np.float64) * 100.0 + 0.5).astype(np.int64),
        _encode_countries(frame),
    )
    is_asked = frame.occurred_at.to_numpy() >= np.datetime64(first)
    asked = movements.take(is_asked)
    texts = {name: _texts(frame, name)[is_asked] for name in ("direction", "merchant")}
    payments = Payments(asked, frame.amount.to_numpy(np.float64)[is_asked], **texts)
    fired = find_fired(rules, payments, measure_rules(rules, asked, movements))
    return LedgerRules(frame.transaction_id.to_numpy(object)[is_asked], fired)


def join_fired(rows: "LazyTable", transactions: "LazyTable", rules: Sequence[PaymentRule]) -> "LazyTable":
    """Return rows of the feature table with the column `FIRED`; as they are where no rule is enabled."""
    import ibis

    enabled = select_enabled(rules)
    first, last = (rows.aggregate(first=rows.occurred_at.min(), last=rows.occurred_at.max()).to_pyarrow().to_pylist()[0]).values()
    if not enabled or first is None:
        return rows
    columns: dict[str, list[Any]] = {"_transaction": [], FIRED: []}
    for part in split_by_customers(transactions.filter(transactions.occurred_at <= last)):
        evaluated = evaluate_rules(part, enabled, first, last)
        names = name_fired(evaluated.fired, len(evaluated.transaction_id))
        places = [place for place, name in enumerate(names) if name is not None]
        columns["_transaction"] += [evaluated.transaction_id[place] for place in places]
        columns[FIRED] += [names[place] for place in places]
    table = ibis.memtable(columns, schema={"_transaction": "string", FIRED: "string"})
    return rows.left_join(table, rows.transaction_id == table["_transaction"]).drop("_transaction")


def name_fired(fired: dict[str, NDArray[np.bool_]], n: int) -> list[str | None]:
    """Return the names of the rules that fired on each of n transactions, as the column `FIRED` has them."""
    names: list[str | None] = [None] * n
    for name, is_fired in fired.items():
        for place in np.flatnonzero(is_fired).tolist():
            before = names[place]
            names[place] = name if before is None else f"{before} {name}"
    return names


def escalate_all(decisions: Sequence[Decision], fired: Sequence[Any], rules: Sequence[PaymentRule]) -> list[Decision]:
    """Return the strictest of each model's decision and the actions of the rules that fired, given as the column `FIRED` has them."""
    action_of = {rule.name: rule.action for rule in rules}
    return [
        escalate(decision, (action_of[name] for name in names.split())) if isinstance(names, str) else decision
        for decision, names in zip(decisions, fired, strict=True)
    ]


def _texts(frame: "pd.DataFrame", name: str) -> NDArray[Any]:
    """Return a column of text, None where not known; a source without directions has money out alone, as a request does."""
    if name not in frame:
        return np.full(len(frame), "debit" if name == "direction" else None, object)
    column = frame[name].astype(object)
    return column.where(column.notna(), None).to_numpy(object)


def _encode_countries(frame: "pd.DataFrame") -> NDArray[np.int64]:
    countries = _texts(frame, "country")
    code_of = {country: encode_country(country) for country in set(countries.tolist())}
    return np.fromiter((code_of[country] for country in countries.tolist()), np.int64, len(countries))
