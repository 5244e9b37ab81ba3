"""The simulator: a small economy with known truth, the default source of a ledger.

People earn, spend, fall short, borrow and are defrauded; everything follows from one `Economy` (sizes, rates, effects,
seed). Values that only a simulator can know are in ``truth_*`` tables, which no feature may read. See `docs/simulator.md`.
"""

from typing import TYPE_CHECKING, Any

from finrisk_assets.ledger.sources.simulator.economy_source import economy_from_settings, source
from finrisk_assets.ledger.sources.simulator.population.economy import Economy, FraudEffects, HouseholdEffects, LoanEffects, OfferEffects
from finrisk_assets.ledger.sources.simulator.towns import simulate_towns

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "Economy",
    "FraudEffects",
    "HouseholdEffects",
    "LoanEffects",
    "OfferEffects",
    "economy_from_settings",
    "run",
    "simulate",
    "simulate_towns",
    "source",
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

    parts = list(simulate_towns(economy))
    return {name: pa.concat_tables([part[name] for part in parts]).combine_chunks() for name in parts[0]}
