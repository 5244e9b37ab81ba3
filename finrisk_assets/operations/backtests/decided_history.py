"""The ledger's transactions as the model and the policy's rules decide on them: what back-tests and capacities are counted from."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.policy.payment_rules import PaymentRule

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.settings import Settings


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
    frame
        Rows of the feature table.
    bundle
        The champion.
    ledger
        All validated transactions, which rules read.
    has_labels, is_unseen
        Whether the source has labels, and whether the rows are the test window.
    """

    frame: "pd.DataFrame"
    bundle: "Bundle"
    ledger: "LazyTable"
    has_labels: bool
    is_unseen: bool


def load_decided_history(settings: "Settings", policy: "Policy", since: datetime | None = None) -> DecidedHistory:
    """Score the ledger's transactions with the champion and evaluate every rule of a policy on them; errors as of `load_transactions`."""
    return decide_history(load_transactions(settings, since), policy)


def load_transactions(settings: "Settings", since: datetime | None = None) -> LabelledTransactions:
    """Load the transactions that are counted.

    Parameters
    ----------
    since
        The first transaction's time at the earliest. Default: the test window, of which the model learned nothing.

    Raises
    ------
    NoHistoryError
        Where there is no champion of transaction anomaly, or no transaction with a known label.
    """
    from finrisk_assets.domains.transaction_anomaly import time_split
    from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY as DOMAIN
    from finrisk_assets.graph.stages.common import champion_folder, load_bundle, load_frame
    from finrisk_assets.graph.warehouse import Warehouse

    warehouse, folder = Warehouse.of(settings), champion_folder(DOMAIN, settings)
    name = f"features_{DOMAIN.group}"
    if not folder.is_dir() or not warehouse.has(name):
        raise NoHistoryError("there is no champion of transaction anomaly: `finrisk demo` makes one")
    table = warehouse.table(name)
    begins = time_split.begin_test(table) if since is None else since
    frame = load_frame(table.filter(table.occurred_at >= begins), DOMAIN)
    has_labels = bool(frame.is_fraud.notna().any())
    frame = DOMAIN.labelled_rows(frame, settings) if has_labels else frame
    if not len(frame):
        raise NoHistoryError(f"there is no transaction with a known label from {begins:%Y-%m-%d} on: name an earlier --since")
    ledger = warehouse.table("validated_transactions")
    return LabelledTransactions(frame, load_bundle(folder, DOMAIN, settings), ledger, has_labels, since is None)


def decide_history(transactions: LabelledTransactions, policy: "Policy") -> DecidedHistory:
    """Return the transactions as the champion decides under a policy, and where each rule of the policy fires."""
    from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY as DOMAIN
    from finrisk_assets.domains.transaction_anomaly.ledger_rules import evaluate_rules

    frame, rules = transactions.frame, policy.transaction_anomaly.rules
    bundle = transactions.bundle.under(policy)
    scored = DOMAIN.score(frame, bundle)
    first, last = frame.occurred_at.min().to_pydatetime(), frame.occurred_at.max().to_pydatetime()
    fired = {}
    if rules:
        evaluated = evaluate_rules(transactions.ledger, rules, first, last)
        place_of = {identifier: place for place, identifier in enumerate(evaluated.transaction_id.tolist())}
        places = np.array([place_of[identifier] for identifier in frame.transaction_id.tolist()])
        fired = {rule: is_fired[places] for rule, is_fired in evaluated.fired.items()}
    return DecidedHistory(
        bundle,
        first,
        last,
        len(np.unique(frame.occurred_at.to_numpy().astype("datetime64[D]"))),
        transactions.is_unseen,
        np.expm1(frame.log_amount.to_numpy(np.float64)) if "log_amount" in frame else np.full(len(frame), np.nan),
        frame.is_fraud.to_numpy(bool) if transactions.has_labels else None,
        np.asarray(scored["probability"], np.float64),
        np.asarray(scored["decision"], str),
        fired,
    )
