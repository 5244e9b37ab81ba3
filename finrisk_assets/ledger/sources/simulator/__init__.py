"""The simulator: a small economy with known truth, the source of the ledger where nobody has data.

People earn, spend, fall short, borrow and are defrauded; everything follows from one `Economy` (sizes, rates, effects,
seed). What only a simulator can know stands in ``truth_*`` tables that no feature may read. See `docs/simulator.md`.
"""

from typing import TYPE_CHECKING, Any

from finrisk_assets.ledger.sources.simulator.population.economy import Economy, FraudEffects, HouseholdEffects, LoanEffects, OfferEffects
from finrisk_assets.ledger.sources.simulator.population.towns import towns
from finrisk_assets.ledger.sources.simulator.source import economy_of, source

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Economy", "FraudEffects", "HouseholdEffects", "LoanEffects", "OfferEffects", "economy_of", "run", "simulate", "source", "towns",
]  # fmt: skip


def simulate(n_customers: int = Economy.n_customers, n_months: int = Economy.n_months, **numbers: Any) -> "dict[str, pa.Table]":
    """Simulate an economy.

    Parameters
    ----------
    n_customers, n_months, **numbers
        As in `Economy`.

    Returns
    -------
    dict of pyarrow.Table
        ``customers``, ``accounts``, ``transactions``, ``loans`` and ``offers`` as in `schemas.ledger`, and the ``truth_*`` tables.
        Transactions are in order of town and time; the rows that break the contract stand last.
    """
    return run(Economy(n_customers, n_months, **numbers))


def run(economy: Economy) -> "dict[str, pa.Table]":
    """Simulate the given economy, all of it in memory; see `simulate`."""
    import pyarrow as pa

    parts = list(towns(economy))
    return {name: pa.concat_tables([part[name] for part in parts]).combine_chunks() for name in parts[0]}
