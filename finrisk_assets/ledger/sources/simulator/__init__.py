"""The simulator: a small economy with known truth, the source of the ledger where nobody has data.

People earn, spend, fall short, borrow and are defrauded; everything follows from one `Economy` (sizes, rates, effects,
seed). What only a simulator can know stands in ``truth_*`` tables that no feature may read. See `docs/simulator.md`.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from .economy import Economy, FraudEffects, LoanEffects
from .source import source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Economy", "FraudEffects", "LoanEffects", "run", "simulate", "source"]


def simulate(
    n_customers: int = Economy.n_customers,
    n_months: int = Economy.n_months,
    seed: int = Economy.seed,
    start: datetime = Economy.start,
    **effects: Any,
) -> "dict[str, pa.Table]":
    """Simulate an economy.

    Parameters
    ----------
    n_customers, n_months, seed, start, **effects
        As in `Economy`.

    Returns
    -------
    dict of pyarrow.Table
        ``customers``, ``accounts``, ``transactions``, ``loans`` as in `schemas.ledger`, and ``truth_loans`` and
        ``truth_transactions``. Transactions are in order of time; the rows that break the contract stand last.
    """
    return run(Economy(n_customers, n_months, seed, start, **effects))


def run(economy: Economy) -> "dict[str, pa.Table]":
    """Simulate the given economy; see `simulate`."""
    from . import balances, fraud, loans, people, spending, tables

    market = people.market(economy)
    population = people.people(economy, market)
    genuine = spending.everyday(economy, market, population)
    made, probability = fraud.defraud(economy, market, population, genuine)
    ledger = balances.settle(economy, population, made, probability)
    lent = loans.lend(economy, population, ledger)
    accounts = tables.accounts(economy, population)
    return {
        "customers": tables.customers(economy, population),
        "accounts": accounts,
        "transactions": tables.spoil(economy, tables.transactions(economy, market, accounts, ledger)),
        "loans": tables.loans(economy, lent),
        "truth_loans": tables.truth_loans(lent),
        "truth_transactions": tables.truth_transactions(ledger),
    }
