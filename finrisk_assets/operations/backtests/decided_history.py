"""The ledger's transactions as the model and the policy's rules decide on them: what back-tests and capacities are counted from."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.policy.payment_rules import PaymentRule

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.settings import Settings


_FIRED = "fired by "
"""Begin of the names of the columns that say where a rule fired, while a history is put together."""


class NoHistoryError(RuntimeError):
    """A ledger of which nothing can be counted; the message says why and what to do."""


@dataclass(frozen=True)
class HistorySummary:
    """The transactions that a report counts.

    Attributes
    ----------
    first, last, n_days
        Date of the first and the last one as ISO text, and the number of days with transactions.
    is_unseen
        Whether they are the test window, of which the model learned nothing.
    transactions, frauds
        Their number, and that of the frauds among them; None without labels.
    """

    first: str
    last: str
    n_days: int
    is_unseen: bool
    transactions: int
    frauds: int | None


@dataclass(frozen=True)
class DecidedHistory:
    """Transactions with known labels, the model's decision on each, and the rules that fired.

    Attributes
    ----------
    bundle
        The champion, under the policy.
    first, last, n_days
        Time of the first and the last transaction, and the number of days with transactions.
    is_unseen
        Whether they are the test window, of which the model learned nothing.
    amount
        In currency, shape (n,); NaN where the source has no amounts.
    is_fraud
        Shape (n,); None where the source has no labels.
    probability, decision
        By the model alone, each of shape (n,).
    fired
        Name of a rule -> on which transactions it fired, shape (n,), of enabled and of disabled rules.
    """

    bundle: "Bundle"
    first: datetime
    last: datetime
    n_days: int
    is_unseen: bool
    amount: NDArray[np.float64]
    is_fraud: NDArray[np.bool_] | None
    probability: NDArray[np.float64]
    decision: NDArray[np.str_]
    fired: dict[str, NDArray[np.bool_]]

    @property
    def rules(self) -> tuple[PaymentRule, ...]:
        """All rules of the policy."""
        return self.bundle.policy.transaction_anomaly.rules

    @property
    def summary(self) -> HistorySummary:
        """The figures of the history that a report begins with."""
        frauds = None if self.is_fraud is None else int(self.is_fraud.sum())
        dates = f"{self.first:%Y-%m-%d}", f"{self.last:%Y-%m-%d}"
        return HistorySummary(*dates, self.n_days, self.is_unseen, len(self.decision), frauds)

    def decide(self, rules: "tuple[PaymentRule, ...]", decision: NDArray[np.str_] | None = None) -> NDArray[np.str_]:
        """Return the decisions with these rules beside others, by default those of the model."""
        decided = (self.decision if decision is None else decision).copy()
        for rule in rules:
            stricter = self.fired[rule.name] & (decided != "block")
            decided[stricter] = rule.action
        return decided

    def sum_worth(self, decision: NDArray[np.str_]) -> float | None:
        """Return what decisions saved against allowing everything, in currency by the policy's costs; None without labels or amounts."""
        from finrisk_assets.domains.transaction_anomaly.decide import compute_savings

        if self.is_fraud is None or np.isnan(self.amount).all():
            return None
        return float(compute_savings(self.amount, self.is_fraud, decision, self.bundle.policy.transaction_anomaly).sum())


@dataclass(frozen=True)
class LabelledTransactions:
    """Transactions of the ledger with known labels, before any policy decides on them.

    Attributes
    ----------
    rows
        Rows of the feature table, lazy; those whose label is not known yet are among them.
    begins
        From when on they are counted.
    settings
        When the ledger is read is among them.
    bundle
        The champion.
    ledger
        All validated transactions, which rules read.
    has_labels, is_unseen
        Whether the source has labels, and whether the rows are the test window.
    """

    rows: "LazyTable"
    begins: datetime
    settings: "Settings"
    bundle: "Bundle"
    ledger: "LazyTable"
    has_labels: bool
    is_unseen: bool


def load_decided_history(settings: "Settings", policy: "Policy", since: datetime | None = None) -> DecidedHistory:
    """Score the ledger's transactions with the champion and evaluate every rule of a policy on them.

    Parameters and errors are those of `load_transactions` and `decide_history`.
    """
    return decide_history(load_transactions(settings, since), policy)


def load_transactions(settings: "Settings", since: datetime | None = None) -> LabelledTransactions:
    """Find the transactions that are counted.

    Parameters
    ----------
    since
        The first transaction's time at the earliest. Default: the test window, of which the model learned nothing.

    Raises
    ------
    NoHistoryError
        Where there is no champion of transaction anomaly.
    """
    from finrisk_assets.domains.transaction_anomaly import time_split
    from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY as DOMAIN
    from finrisk_assets.graph.stages.common import champion_folder, load_bundle
    from finrisk_assets.graph.warehouse import Warehouse

    warehouse, folder = Warehouse.of(settings), champion_folder(DOMAIN, settings)
    name = f"features_{DOMAIN.group}"
    if not folder.is_dir() or not warehouse.has(name):
        raise NoHistoryError("there is no champion of transaction anomaly: `make demo` makes one")
    table = warehouse.table(name)
    begins = time_split.begin_test(table) if since is None else since
    rows = table.filter(table.occurred_at >= begins)
    has_labels = bool(rows.is_fraud.notnull().any().to_pyarrow().as_py())
    ledger, bundle = warehouse.table("validated_transactions"), load_bundle(folder, DOMAIN, settings)
    return LabelledTransactions(rows, begins, settings, bundle, ledger, has_labels, since is None)


def decide_history(transactions: LabelledTransactions, policy: "Policy") -> DecidedHistory:
    """Return the transactions as the champion decides under a policy, and where each rule of the policy fires.

    Raises
    ------
    NoHistoryError
        Where there is no transaction with a known label.
    """
    from finrisk_assets.ledger.customer_parts import split_by_customers

    bundle = transactions.bundle.under(policy)
    decided = [_decide(transactions, part, bundle) for part in split_by_customers(transactions.rows)]
    columns = {name: np.concatenate([part[name] for part in decided]) for name in decided[0]}
    times = columns["occurred_at"]
    if not len(times):
        raise NoHistoryError(f"there is no transaction with a known label from {transactions.begins:%Y-%m-%d} on: name an earlier --since")
    return DecidedHistory(
        bundle,
        times.min().item(),
        times.max().item(),
        len(np.unique(times.astype("datetime64[D]"))),
        transactions.is_unseen,
        columns["amount"],
        columns["is_fraud"] if transactions.has_labels else None,
        columns["probability"],
        columns["decision"],
        {rule.name: columns[f"{_FIRED}{rule.name}"] for rule in policy.transaction_anomaly.rules},
    )


def _decide(transactions: LabelledTransactions, part: "LazyTable", bundle: "Bundle") -> dict[str, NDArray[Any]]:
    """Return the columns of a history for a part of the customers."""
    from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY as DOMAIN
    from finrisk_assets.graph.stages.common import load_frame

    frame = load_frame(part, DOMAIN)
    frame = DOMAIN.labelled_rows(frame, transactions.settings) if transactions.has_labels else frame
    scored = DOMAIN.score(frame, bundle)
    columns = {
        "occurred_at": frame.occurred_at.to_numpy().astype("datetime64[us]"),
        "amount": np.expm1(frame.log_amount.to_numpy(np.float64)) if "log_amount" in frame else np.full(len(frame), np.nan),
        "is_fraud": frame.is_fraud.to_numpy(bool) if transactions.has_labels else np.zeros(len(frame), bool),
        "probability": np.asarray(scored["probability"], np.float64),
        "decision": np.asarray(scored["decision"], str),
    }
    return columns | {f"{_FIRED}{name}": fired for name, fired in _find_fired(transactions, part, frame, bundle).items()}


def _find_fired(
    transactions: LabelledTransactions, part: "LazyTable", frame: "pd.DataFrame", bundle: "Bundle"
) -> dict[str, NDArray[np.bool_]]:
    """Return on which rows of a part of the customers each rule of the policy fires."""
    from finrisk_assets.domains.transaction_anomaly.ledger_rules import evaluate_rules

    rules, ledger = bundle.policy.transaction_anomaly.rules, transactions.ledger
    if not rules or not len(frame):
        return {rule.name: np.zeros(len(frame), bool) for rule in rules}
    first, last = frame.occurred_at.min().to_pydatetime(), frame.occurred_at.max().to_pydatetime()
    evaluated = evaluate_rules(ledger.semi_join(part, "customer_id"), rules, first, last)
    place_of = {identifier: place for place, identifier in enumerate(evaluated.transaction_id.tolist())}
    places = np.array([place_of[identifier] for identifier in frame.transaction_id.tolist()])
    return {rule: is_fired[places] for rule, is_fired in evaluated.fired.items()}
