"""The policy's rules on one transaction, from its own fields and the stored history of its customer.

What the history says is measured once, before the decision, and recorded with it as the decision context: a replay decides from there.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import cached_property

import numpy as np

from bento.context import span
from bento.store.records import Transaction
from bento.store.session import Store
from finrisk_assets.domains.transaction_anomaly.country_distances import COUNTRIES
from finrisk_assets.domains.transaction_anomaly.rules import (
    UNKNOWN,
    Movements,
    Payments,
    encode_country,
    find_fired,
    find_reach_us,
    measure_rules,
    select_enabled,
    word_rule,
)
from finrisk_assets.features.online import to_cents
from finrisk_assets.features.recent_events import shorten_token
from finrisk_assets.policy.payment_rules import PaymentRule
from schemas.api import FiredRule
from schemas.timestamps import to_micros

MeasuredRules = Mapping[str, Mapping[str, float]]
"""Name of a rule -> what was measured for it -> the number, as JSON has it."""


class OnlineRules:
    """The enabled rules of a policy, evaluated on one transaction at a time.

    Parameters
    ----------
    rules
        All rules of the policy.
    store
        The store that holds the histories.
    """

    def __init__(self, rules: Sequence[PaymentRule], store: Store) -> None:
        self._rules = select_enabled(rules)
        self._reach = timedelta(microseconds=find_reach_us(self._rules))
        self._store = store

    def measure(self, transaction: Transaction) -> MeasuredRules | None:
        """Return what the customer's history says, by rule; None where no rule reads history."""
        if not self._reach:
            return None
        with span("history"):
            times, cents, countries = self._store.read_movements(transaction.customer_id, self._reach, transaction.occurred_at)
        codes = [self._code_of_token.get(country, UNKNOWN) for country in countries]
        history = Movements(np.zeros(len(times), np.int64), *(np.array(column, np.int64) for column in (times, cents, codes)))
        measured = measure_rules(self._rules, _movement(transaction), history)
        return {name: {key: values[0].item() for key, values in figures.items()} for name, figures in measured.items()}

    def find_fired(self, transaction: Transaction, measured: MeasuredRules | None) -> list[FiredRule] | None:
        """Return the rules that fire, in the policy's order; None where the policy has no enabled rule.

        Raises
        ------
        KeyError
            Where `measured` is not that of these rules.
        """
        if not self._rules:
            return None
        payment = Payments(
            _movement(transaction),
            np.array([transaction.amount]),
            np.array([transaction.direction], object),
            np.array([transaction.merchant], object),
        )
        figures = measured or {}
        arrays = {name: {key: np.array([value]) for key, value in of_rule.items()} for name, of_rule in figures.items()}
        fired = find_fired(self._rules, payment, arrays)
        return [
            FiredRule(
                name=rule.name,
                action=rule.action,
                text=word_rule(rule, transaction.amount, transaction.country, figures.get(rule.name, {})),
            )
            for rule in self._rules
            if fired[rule.name][0]
        ]

    @cached_property
    def _code_of_token(self) -> Mapping[int, int]:
        return {shorten_token(self._store.token("country", country)): code for code, country in enumerate(COUNTRIES)}


def _movement(transaction: Transaction) -> Movements:
    values = to_micros(transaction.occurred_at), to_cents(transaction.amount), encode_country(transaction.country)
    return Movements(np.zeros(1, np.int64), *(np.array([value], np.int64) for value in values))
