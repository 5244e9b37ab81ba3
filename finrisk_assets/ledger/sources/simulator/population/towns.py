"""Town after town: the stages of the simulation in their order, and the tables of one town at a time."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from finrisk_assets.ledger.sources.simulator.population.economy import Economy

if TYPE_CHECKING:
    import pyarrow as pa

LEDGER = ("customers", "accounts", "transactions", "loans", "offers")
TRUTH = ("truth_loans", "truth_transactions", "truth_spending_risk", "truth_cashflow", "truth_offers")


def towns(economy: Economy) -> "Iterator[dict[str, pa.Table]]":
    """Yield each town's tables, so that no more than one town is in memory.

    The first town settles the intercepts (`intercepts`) for all. Identifiers go on from town to town; the rows that break the
    contract stand behind the last.
    """
    from finrisk_assets.ledger.sources.simulator import fraud, futures, history, loans, movements, offers, tables
    from finrisk_assets.ledger.sources.simulator.intercepts import Intercepts
    from finrisk_assets.ledger.sources.simulator.population import people
    from finrisk_assets.ledger.sources.simulator.population.calendar import live
    from finrisk_assets.ledger.sources.simulator.population.people import Town

    known, before = Intercepts(), tables.Counted()
    for number in range(economy.n_towns):
        town = Town(economy, number)
        market = people.market(town)
        population = people.people(town, market)
        months = live(town, population)
        made = movements.take_apart(town, market, population, months)
        ledger, fraud_intercept = fraud.defraud(town, market, population, made, known.fraud)
        seen = history.History(ledger)
        lent, default_intercept = loans.lend(town, population, months, seen, known.default)
        offered, take_up_intercept = offers.offer(town, population, months, seen, default_intercept, known.acceptance)
        truths = futures.foresee(town, population, months)
        known = Intercepts(fraud_intercept, default_intercept, take_up_intercept)

        moves = tables.transactions(economy, market, ledger, before)
        if number == economy.n_towns - 1:
            moves = tables.spoil(economy, moves, town.rng("bad rows"), before)
        yield {
            "customers": tables.customers(economy, population, before),
            "accounts": tables.accounts(economy, population, before),
            "transactions": moves,
            "loans": tables.loans(economy, lent, before),
            "offers": tables.offers(economy, offered, before),
            "truth_loans": tables.truth_loans(lent, before),
            "truth_transactions": tables.truth_transactions(ledger, before),
            "truth_spending_risk": tables.truth_spending_risk(economy, truths, before),
            "truth_cashflow": tables.truth_cashflow(economy, truths, before),
            "truth_offers": tables.truth_offers(economy, offered, before),
        }
        before = tables.Counted(
            before.customers + len(population),
            before.transactions + len(ledger.events),
            before.loans + len(lent.applied),
            before.offers + len(offered.offered),
        )
