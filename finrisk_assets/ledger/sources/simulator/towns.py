"""The simulation, town by town: its stages in their order."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from finrisk_assets.ledger.sources.simulator.population.economy import Economy

if TYPE_CHECKING:
    import pyarrow as pa

TRUTH_TABLES = (
    "truth_loans", "truth_loan_cash_flows", "truth_offers", "truth_limits", "truth_transactions", "truth_spending_risk", "truth_cashflow",
)  # fmt: skip


def simulate_towns(economy: Economy) -> "Iterator[dict[str, pa.Table]]":
    """Yield each town's tables, so that no more than one town is in memory.

    The first town determines the intercepts (`intercepts`) for all. Identifiers continue from town to town; the rows that break the
    contract follow the last town.
    """
    from finrisk_assets.ledger.sources.simulator import arrow_tables, futures, movements
    from finrisk_assets.ledger.sources.simulator.episodes import draw_episodes
    from finrisk_assets.ledger.sources.simulator.fraud import settle_fraud
    from finrisk_assets.ledger.sources.simulator.lending import loans, offers
    from finrisk_assets.ledger.sources.simulator.lending.intercepts import Intercepts
    from finrisk_assets.ledger.sources.simulator.population import people
    from finrisk_assets.ledger.sources.simulator.population.calendar import simulate_months
    from finrisk_assets.ledger.sources.simulator.population.people import Town

    intercepts, before = Intercepts(), arrow_tables.RowCounts()
    for number in range(economy.n_towns):
        town = Town(economy, number)
        market = people.draw_market(town)
        population = people.draw_people(town, market)
        months = simulate_months(town, population)
        episodes, of_episodes = draw_episodes(town, market, population)
        all_movements = movements.split_into_movements(town, market, population, months, of_episodes)
        ledger = settle_fraud(town, population, all_movements, episodes)
        lent, default_intercept = loans.simulate_loans(town, population, months, intercepts.default)
        offered, take_up_intercept = offers.simulate_offers(town, population, months, default_intercept, intercepts.acceptance)
        truths = futures.compute_truths(town, population, months)
        intercepts = Intercepts(default_intercept, take_up_intercept)

        moves = arrow_tables.transactions(economy, market, ledger, before)
        if number == economy.n_towns - 1:
            moves = arrow_tables.append_bad_rows(economy, moves, town.rng("bad rows"), before)
        yield {
            "customers": arrow_tables.customers(economy, population, before),
            "accounts": arrow_tables.accounts(economy, population, before),
            "transactions": moves,
            "loans": arrow_tables.loans(economy, lent, before),
            "offers": arrow_tables.offers(economy, offered, before),
            "truth_loans": arrow_tables.truth_loans(lent, before),
            "truth_loan_cash_flows": arrow_tables.truth_loan_cash_flows(economy, lent, before),
            "truth_limits": arrow_tables.truth_limits(lent, offered, before),
            "truth_transactions": arrow_tables.truth_transactions(ledger, before),
            "truth_spending_risk": arrow_tables.truth_spending_risk(economy, truths, before),
            "truth_cashflow": arrow_tables.truth_cashflow(economy, truths, before),
            "truth_offers": arrow_tables.truth_offers(economy, offered, before),
        }
        before = arrow_tables.RowCounts(
            before.customers + len(population),
            before.transactions + len(ledger.events),
            before.loans + len(lent.applied),
            before.offers + len(offered.offered),
        )
