"""The stage ``consistency_loan_offers``: whether the decisions on a whole population agree with each other.

Every offer that was made is applied for: the application of the same customer at the same moment gets the offered terms in the ledger, its
features are built from there, and loan default decides. Nothing of the offers' own choosing is used again. Beside it stand the newest
level of spending risk at each offer, and the decisions by payday.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import dagster as dg
import ibis
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.base import Domain, Figure
from finrisk_assets.domains.loan_default import month_end_applications
from finrisk_assets.domains.loan_default.decide import APPROVE
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.loan_offers.decide import OFFER
from finrisk_assets.domains.loan_offers.definition import LOAN_OFFERS
from finrisk_assets.domains.spending_risk.decide import HIGH
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK
from finrisk_assets.engines.engine import BATCH_ROWS
from finrisk_assets.features.arithmetic import instalment
from finrisk_assets.graph import checks
from finrisk_assets.graph.resources import TrackingResource
from finrisk_assets.graph.stages.common import champion_folder, common, figure_table, load_bundle, log_artifact, read_figures
from finrisk_assets.graph.warehouse import Warehouse, WarehouseResource, count, markdown_table
from finrisk_assets.ledger.categories import REGULAR_PAY
from finrisk_assets.ledger.customer_parts import CustomerRange, list_customer_ranges
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.evaluation import consistency
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

ASSET = f"consistency_{LOAN_OFFERS.name}"

ARTIFACT = "consistency.json"
"""The artifact of the run of the offers' champion that holds these figures."""

SPENDING = f"scores_{SPENDING_RISK.name}"


def is_judged(domain: Domain, source: Source) -> bool:
    """Return whether the domain has these figures: loan offers, where the source has applications of the same customers and moments."""
    return (
        domain.name == LOAN_OFFERS.name
        and "transactions" in source.tables
        and all(domain.unavailable_reason(source) is None for domain in (LOAN_OFFERS, LOAN_DEFAULT))
    )


def build_assets(domain: Domain, source: Source, settings: Settings) -> list[Any]:
    """Return the figures of consistency and their check, of the loan offers alone."""
    if not is_judged(domain, source):
        return []
    check = checks.blocking_check(
        ASSET,
        f"{ASSET}_contract",
        "Loan default approves every offer at its terms, and nobody of HIGH spending risk has an offer unless the policy says so.",
        lambda warehouse: find_faults(warehouse, settings),
    )
    return [_consistency(domain, source, settings), check]


def _consistency(domain: Domain, source: Source, settings: Settings) -> dg.AssetsDefinition:
    spending = [SPENDING] if SPENDING_RISK.unavailable_reason(source) is None else []
    scored = [f"scores_{domain.name}", f"scores_{LOAN_DEFAULT.name}", *spending]

    @dg.asset(
        name=ASSET,
        deps=[*scored, "validated_transactions", *LOAN_DEFAULT.list_inputs(source).values()],
        description="Whether decisions agree over the whole population: offers with loans at the same terms, spending risk with offers, "
        "and people of different paydays.",
        io_manager_key="tables",
        **common(domain, {"ibis"}),
    )
    def figures(context: dg.AssetExecutionContext, warehouse: WarehouseResource, tracking: TrackingResource) -> dg.Output[LazyTable]:
        rows = [asdict(figure) for figure in measure_consistency(source, warehouse, settings)]
        client = tracking.client()
        champion = model_registry.find_version(client, domain.name, model_registry.CHAMPION)
        if champion is not None:
            log_artifact(client, champion.run_id, ARTIFACT, json.dumps(rows, indent=1).encode())
        return dg.Output(ibis.memtable(figure_table(rows)), metadata={"figures": dg.MetadataValue.md(markdown_table(rows))})

    return figures


def find_faults(warehouse: Warehouse, settings: Settings) -> list[str]:
    """Return each rule of consistency that does not hold."""
    figures = {figure.metric: figure.value for figure in read_figures(warehouse.table(ASSET))}
    faults = []
    if figures["n_inconsistent_offers"]:
        faults.append(f"loan default would not approve {figures['n_inconsistent_offers']:.0f} of {figures['n_offers']:.0f} offers")
    if figures["n_high_risk_offers"] and not load_policy(settings).loan_offers.offers_to_high_spending_risk:
        faults.append(f"{figures['n_high_risk_offers']:.0f} of {figures['n_offers']:.0f} offers go to people of HIGH spending risk")
    return faults


def measure_consistency(source: Source, warehouse: Warehouse, settings: Settings) -> list[Figure]:
    """Return the figures of the offers that the present champions made under the policy in effect.

    Offers of an earlier champion or policy, which stand in the scores until the next scoring, are left out: they agreed with other models.
    Rows come to this process in parts of customers, or of `BATCH_ROWS` rows.
    """
    offers = select_offers(warehouse, settings)
    n_offers = count(offers)
    decided = decide_offered_loans(offers, source, warehouse, settings)
    # An offer without an application is one that nobody could ask for: it counts as not approved.
    n_refused = n_offers - sum(int((part == APPROVE).sum()) for part in decided)
    n_high = _count_high_risk(offers, warehouse) if warehouse.has(SPENDING) else 0
    return [
        Figure("n_offers", float(n_offers), meaning="offers made to the whole population, at every month-end and whenever one was made"),
        Figure("n_inconsistent_offers", float(n_refused), meaning="of these, loan default refers or refuses at the same terms and moment"),
        Figure("n_high_risk_offers", float(n_high), meaning="of these, to people whose newest spending risk is HIGH"),
        *_pay_figures(add_up_people(offers, warehouse), settings.seed),
    ]


def select_offers(warehouse: Warehouse, settings: Settings) -> LazyTable:
    """Return the offers of the present champions and policy: application, customer, time and terms."""
    champions = {domain.name: load_bundle(champion_folder(domain, settings), domain, settings) for domain in (LOAN_OFFERS, LOAN_DEFAULT)}
    scores, loans = warehouse.table(f"scores_{LOAN_OFFERS.name}"), warehouse.table(f"scores_{LOAN_DEFAULT.name}")
    champion, policy = champions[LOAN_OFFERS.name].version, champions[LOAN_OFFERS.name].policy.version
    made = scores.filter((scores.decision == OFFER) & (scores.model_version == champion) & (scores.policy_version == policy))
    application = made.offer_id.contains("@").ifelse(made.offer_id, made.customer_id + "@" + made.offer_id)
    made = made.mutate(application_id=application)
    present = loans.filter(loans.model_version == champions[LOAN_DEFAULT.name].version).select(application_id=loans.loan_id)
    columns = ("offered_rate_pct", "offered_amount", "offered_term_months")
    return made.semi_join(present, "application_id").select("application_id", "customer_id", "offered_at", *columns)


def decide_offered_loans(offers: LazyTable, source: Source, warehouse: Warehouse, settings: Settings) -> "Iterator[pd.Series]":
    """Yield what loan default decides on an application for each offered loan at the offer's moment, by application.

    The applications are rows of the ledger, and their features are built from it as those of every loan are. An offer without an
    application has no decision.
    """
    import pandas as pd

    tables = {name: warehouse.table(asset) for name, asset in LOAN_DEFAULT.list_inputs(source).items()}
    everyone = month_end_applications.add_month_end_applications(tables)
    wanted = offers.select("application_id", _rate=offers.offered_rate_pct, _amount=offers.offered_amount, _term=offers.offered_term_months)
    asked = everyone.inner_join(wanted, everyone.loan_id == wanted.application_id)
    terms = {
        "loan_amount": asked._amount,
        "annual_rate_pct": asked._rate,
        "term_months": asked._term,
        "instalment_amount": (instalment(asked._amount, asked._rate, asked._term) * 100).round() / 100,
    }
    types = everyone.schema()
    applied = asked.mutate(**{name: value.cast(types[name]) for name, value in terms.items()}).select(*everyone.columns)
    rows = LOAN_DEFAULT.build_application_features({**tables, "loans": applied}, source)
    champion = load_bundle(champion_folder(LOAN_DEFAULT, settings), LOAN_DEFAULT, settings)
    for batch in rows.to_pyarrow_batches(chunk_size=BATCH_ROWS):
        frame = batch.to_pandas()
        yield pd.Series(LOAN_DEFAULT.score(frame, champion)["decision"], index=frame.loan_id, dtype=object)


def _count_high_risk(offers: LazyTable, warehouse: Warehouse) -> int:
    """Return how many offers go to people whose newest spending risk is HIGH."""
    stored, n_high = warehouse.table(SPENDING), 0
    for customers in _list_parts(warehouse):
        levels = customers.select(stored).select("customer_id", "decision", known_at="as_of").to_pandas()
        moments = customers.select(offers).select("customer_id", at="offered_at").to_pandas()
        n_high += int((consistency.find_levels_at(moments, levels) == HIGH).sum())
    return n_high


def add_up_people(offers: LazyTable, warehouse: Warehouse) -> "pd.DataFrame":
    """Return the sums of people with a payday: their applications at typical terms, their loans' outcomes, and their offers."""
    import pandas as pd

    people = pd.concat([_add_up_part(customers.select(offers).to_pandas(), customers, warehouse) for customers in _list_parts(warehouse)])
    return consistency.leave_out_small_groups(people)


def _list_parts(warehouse: Warehouse) -> Sequence[CustomerRange]:
    """Return ranges of the people with an application, and so of all with an offer."""
    return list_customer_ranges(warehouse.table(f"scores_{LOAN_DEFAULT.name}"))


def _add_up_part(offers: "pd.DataFrame", customers: CustomerRange, warehouse: Warehouse) -> "pd.DataFrame":
    """Return the sums of some customers."""
    movements, scores, loans, rows = (
        customers.select(warehouse.table(name))
        for name in ("validated_transactions", f"scores_{LOAN_DEFAULT.name}", "validated_loans", f"features_{LOAN_OFFERS.name}")
    )
    pay = movements.filter((movements.direction == "credit") & movements.category.isin(REGULAR_PAY))
    standing = scores.filter(scores.loan_id.re_search(r"@\d{4}-\d{2}$"))
    known = loans.filter(loans.is_default.notnull())
    income = rows.filter(rows.offer_id.contains("@")).select("offer_id", "monthly_income_amount").to_pandas()
    income = income.set_index("offer_id").monthly_income_amount
    made = offers[offers.application_id.isin(income.index)]
    amounts = made.offered_amount.to_numpy()
    return consistency.add_up_people(
        consistency.find_paydays(pay.select("customer_id", "occurred_at").to_pandas()),
        standing.select("customer_id", is_approved=standing.decision == APPROVE).to_pandas(),
        known.select("customer_id", is_default=known.is_default.cast("boolean")).to_pandas(),
        made.assign(amount=amounts, in_incomes=amounts / income.reindex(made.application_id).to_numpy()),
    )


def _pay_figures(people: "pd.DataFrame", seed: int) -> list[Figure]:
    """Return the decisions on each group of people by payday, and how far the groups lie apart."""
    figures = []
    for name in consistency.list_pay_groups(people):
        group = people[people.group == name]
        sums, days = group.drop(columns="group").sum(), f"people paid on days {name.replace('_to_', ' to ')}"
        figures.append(Figure(f"n_people_paid_{name}", float(len(group)), meaning=days))
        for metric, part, whole, what in (
            ("approved_share", "n_approved", "n_applications", "approved month-end applications"),
            ("default_share", "n_defaults", "n_loans", "loans that defaulted"),
            ("offer_amount", "amount", "n_offers", "mean amount of the month-end offers"),
            ("offer_in_incomes", "in_incomes", "n_offers", "the same in usual incomes"),
        ):
            if sums[whole]:
                figures.append(Figure(f"{metric}_paid_{name}", float(sums[part] / sums[whole]), meaning=f"{what}, {days}"))
    if figures:
        excess = consistency.measure_approval_excess(people, seed)
        meaning = "how much farther the approved shares lie apart than the default rates, by payday"
        figures.append(Figure("payday_approval_excess", excess.value, excess.low, excess.high, meaning))
        meaning = "how far the mean offers in usual incomes lie apart by payday, as a share of their mean"
        figures.append(Figure("payday_offer_gap", consistency.measure_offer_gap(people), meaning=meaning))
    return figures
