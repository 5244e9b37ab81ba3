"""The simulated ledger and truths as Arrow tables in the vocabulary of `schemas.ledger`, with a few rows broken on purpose."""

from dataclasses import dataclass, fields
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finrisk_assets.ledger.sources.simulator.episodes import SCENARIOS
from finrisk_assets.ledger.sources.simulator.fraud import Ledger
from finrisk_assets.ledger.sources.simulator.futures import MonthEndTruths
from finrisk_assets.ledger.sources.simulator.lending import repayment
from finrisk_assets.ledger.sources.simulator.lending.loans import Loans
from finrisk_assets.ledger.sources.simulator.lending.offers import Offers
from finrisk_assets.ledger.sources.simulator.lending.repayment import Limits, Outlook
from finrisk_assets.ledger.sources.simulator.population.economy import COUNTRIES, DAY, NAMES, REGIONS, Economy
from finrisk_assets.ledger.sources.simulator.population.people import Market, People

_GENDERS = ("F", "M", "X")


@dataclass(frozen=True)
class RowCounts:
    """Numbers of rows of the earlier towns, so that identifiers continue."""

    customers: int = 0
    transactions: int = 0
    loans: int = 0
    offers: int = 0


def customers(economy: Economy, people: People, before: RowCounts) -> pa.Table:
    return pa.table(
        {
            "customer_id": _customer_ids(np.arange(len(people)), before),
            "birth_year": people.birth_year,
            "gender": words(people.gender, _GENDERS),
            "region": words(people.region, REGIONS),
            "country": words(people.home, COUNTRIES),
            "joined_at": moments(economy, people.opened),
            "income_amount": people.income,
        }
    )


def accounts(economy: Economy, people: People, before: RowCounts) -> pa.Table:
    number = np.arange(len(people))
    return pa.table(
        {
            "account_id": _account_ids(number, before),
            "customer_id": _customer_ids(number, before),
            "opened_at": moments(economy, people.opened),
            "overdraft_limit_amount": people.limit,
        }
    )


def transactions(economy: Economy, market: Market, ledger: Ledger, before: RowCounts) -> pa.Table:
    movements = ledger.events
    fraud = ledger.scenario > 0
    settled = movements.second + int(economy.fraud.label_delay_days[1] * DAY)
    n_people = int(movements.customer.max(initial=-1)) + 1
    number = np.arange(n_people)
    customers = pa.array(movements.customer)
    return pa.table(
        {
            "transaction_id": identifiers("T", before.transactions + np.arange(len(movements)), 9),
            "customer_id": _customer_ids(number, before).take(customers),
            "account_id": _account_ids(number, before).take(customers),
            "occurred_at": moments(economy, movements.second),
            "amount": movements.cents / 100,
            "direction": words((movements.sign > 0).astype(np.int8), ("debit", "credit")),
            "category": words(movements.category, NAMES),
            "merchant": words(movements.merchant, market.names),
            "country": words(movements.country, COUNTRIES),
            "balance_amount": ledger.balance / 100,
            "is_fraud": fraud,
            "label_known_at": moments(economy, np.where(fraud, ledger.reported, settled)),
        }
    )


def loans(economy: Economy, lent: Loans, before: RowCounts) -> pa.Table:
    return pa.table(
        {
            "loan_id": _loan_ids(lent, before),
            "customer_id": _customer_ids(lent.customer, before),
            "account_id": _account_ids(lent.customer, before),
            "applied_at": moments(economy, lent.applied),
            "loan_amount": lent.amount,
            "term_months": lent.term_months.astype(np.int64),
            "instalment_amount": lent.instalment,
            "annual_rate_pct": lent.annual_rate_pct,
            "is_default": lent.is_default,
            "outcome_known_at": moments(economy, lent.known),
            "stated_income_amount": pa.array(lent.stated_income, mask=~lent.has_form),
            "employed_months": pa.array(lent.employed_months.astype(np.int64), mask=~lent.has_form),
        }
    )


def offers(economy: Economy, loan_offers: Offers, before: RowCounts) -> pa.Table:
    return pa.table(
        {
            "offer_id": _offer_ids(loan_offers, before),
            "customer_id": _customer_ids(loan_offers.customer, before),
            "offered_at": moments(economy, loan_offers.offered),
            "loan_amount": loan_offers.amount,
            "term_months": loan_offers.term_months.astype(np.int64),
            "annual_rate_pct": loan_offers.annual_rate_pct,
            "is_rate_random": loan_offers.is_rate_random,
            "is_accepted": loan_offers.is_accepted,
            "outcome_known_at": moments(economy, loan_offers.known),
        }
    )


def truth_loans(lent: Loans, before: RowCounts) -> pa.Table:
    """Return the true probability of each loan's outcome, what is hidden about the borrower, and what becomes of the loan."""
    months = {"default_month": lent.course.default_month, "prepaid_month": lent.course.prepaid_month}
    return pa.table(
        {
            "loan_id": _loan_ids(lent, before),
            "true_pd": lent.true_pd,
            **{name: pa.array(month, mask=month == repayment.NEVER) for name, month in months.items()},
            **_hidden(lent.outlook, lent.recovery_share),
        }
    )


def truth_loan_cash_flows(economy: Economy, lent: Loans, before: RowCounts) -> pa.Table:
    """Return what the lender receives of each loan month by month, and what is still owed then; months without either are left out."""
    received, owed = repayment.find_cash_flows(
        lent.amount, lent.annual_rate_pct, lent.term_months, lent.course, lent.recovery_share, economy.loans.recovery_months
    )
    loan, month = np.nonzero((received != 0) | (owed != 0))
    return pa.table(
        {
            "loan_id": _loan_ids(lent, before).take(pa.array(loan)),
            "month": month,
            "received_amount": received[loan, month],
            "owed_amount": owed[loan, month],
        }
    )


def truth_limits(lent: Loans, loan_offers: Offers, before: RowCounts) -> pa.Table:
    """Return the months in which a loan or an offer would end earlier than in any month before, and at which terms; see `repayment`.

    Only such months are listed: a month that bears more than an earlier one ends nothing.
    """
    parts = []
    for contracts, limits in ((_loan_ids(lent, before), lent.limits), (_offer_ids(loan_offers, before), loan_offers.limits)):
        for event, values in (("default", _from_first_default(limits)), ("prepayment", limits.rate)):
            lowest = np.minimum.accumulate(values, axis=1)
            before_it = np.concatenate([np.full((len(lowest), 1), np.inf), lowest[:, :-1]], axis=1)
            row, month = np.nonzero(lowest < before_it)
            parts.append(
                pa.table(
                    {
                        "contract_id": contracts.take(pa.array(row)),
                        "event": pa.array([event]).take(pa.array(np.zeros(len(row), dtype=np.int64))),
                        "month": month + 1,
                        "limit": lowest[row, month],
                    }
                )
            )
    return pa.concat_tables(parts).combine_chunks()


def truth_transactions(ledger: Ledger, before: RowCounts) -> pa.Table:
    """Return the transactions with a fraud probability above 0."""
    suspect = np.flatnonzero(ledger.probability)
    return pa.table(
        {
            "transaction_id": identifiers("T", before.transactions + suspect, 9),
            "scenario": words(ledger.scenario[suspect], SCENARIOS),
            "fraud_probability": ledger.probability[suspect],
        }
    )


def truth_spending_risk(economy: Economy, truths: MonthEndTruths, before: RowCounts) -> pa.Table:
    """Return the truth of every month-end that three months of the ledger follow."""
    whole = np.flatnonzero(~np.isnan(truths.trouble))
    return pa.table(
        {
            "customer_id": _customer_ids(truths.customer[whole], before),
            "as_of": moments(economy, truths.day[whole] * DAY),
            "true_probability": truths.trouble[whole],
        }
    )


def truth_cashflow(economy: Economy, truths: MonthEndTruths, before: RowCounts) -> pa.Table:
    """Return the truth of every month-end that a month of the ledger follows."""
    return pa.table(
        {
            "account_id": _account_ids(truths.customer, before),
            "as_of": moments(economy, truths.day * DAY),
            "true_probability": truths.surplus,
            "mean_change_amount": truths.mean_change,
            "sd_change_amount": truths.sd_change,
        }
    )


def truth_offers(economy: Economy, loan_offers: Offers, before: RowCounts) -> pa.Table:
    """Return the terms of the acceptance and default logits for any rate, amount and term, and what is hidden about the customer."""
    effects, n = economy.offers, len(loan_offers.base)
    return pa.table(
        {
            "offer_id": _offer_ids(loan_offers, before),
            "true_acceptance": loan_offers.acceptance,
            "accept_base": loan_offers.base,
            "accept_rate_slope": np.full(n, effects.rate),
            "accept_amount_slope": np.full(n, effects.amount),
            "accept_term_slope": np.full(n, effects.term),
            "monthly_income_amount": loan_offers.outlook.true_income_amount,
            "pd_base": loan_offers.pd_base,
            "pd_burden_slope": loan_offers.pd_burden_slope,
            **_hidden(loan_offers.outlook, loan_offers.recovery_share),
        }
    )


def append_bad_rows(economy: Economy, table: pa.Table, rng: np.random.Generator, before: RowCounts) -> pa.Table:
    """Append `economy.bad_rows` copies of transactions, each broken in one way, so that the quarantine is not empty.

    In turn: a duplicate key, an unknown customer, a time in the far future, an amount below zero, an
    amount that is not a number. The rows of the ledger itself stay unchanged.
    """
    n = min(economy.bad_rows, table.num_rows)
    if n == 0:
        return table
    rows = table.take(np.sort(rng.choice(table.num_rows, n, replace=False)))
    kind = np.arange(n) % 5
    fresh = identifiers("T", before.transactions + table.num_rows + np.arange(n), 9)
    amount = rows["amount"].to_numpy()
    amount = np.where(kind == 3, -amount, np.where(kind == 4, np.nan, amount))
    future = pa.scalar(economy.as_of + timedelta(days=27_393), pa.timestamp("us"))
    spoiled = {
        "transaction_id": pc.if_else(pa.array(kind == 0), rows["transaction_id"], fresh),
        "customer_id": pc.if_else(pa.array(kind == 1), "unknown", rows["customer_id"]),
        "occurred_at": pc.if_else(pa.array(kind == 2), future, rows["occurred_at"]),
        "amount": pa.array(amount, from_pandas=False),
    }
    for name, values in spoiled.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return pa.concat_tables([table, rows.cast(table.schema)]).combine_chunks()


def identifiers(prefix: str, numbers: np.ndarray, width: int = 0) -> pa.Array:
    """Return identifiers: ``T000000042`` from 42."""
    digits = pc.cast(pa.array(numbers), pa.string())
    if width:
        digits = pc.utf8_lpad(digits, width, "0")
    return pc.binary_join_element_wise(prefix, digits, "") if prefix else digits


def words(codes: np.ndarray, vocabulary: tuple[str, ...]) -> pa.Array:
    """Return the words of the codes; null for a code below 0."""
    indices = pa.array(codes, mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(vocabulary)).cast(pa.string())


def moments(economy: Economy, seconds: np.ndarray) -> pa.Array:
    """Return naive UTC timestamps, in microseconds, from seconds since the start."""
    return pa.array(np.datetime64(economy.start, "us") + seconds.astype("timedelta64[s]").astype("timedelta64[us]"))


def _hidden(outlook: Outlook, recovery_share: np.ndarray) -> dict[str, np.ndarray]:
    return {**{field.name: getattr(outlook, field.name) for field in fields(outlook)}, "recovery_share": recovery_share}


def _from_first_default(limits: Limits) -> np.ndarray:
    """Return the largest instalments; in the first months, in which no default can happen, every instalment is borne."""
    instalment = limits.instalment.copy()
    instalment[:, : repayment.MISSED_INSTALMENTS - 1] = np.inf
    return instalment


def _customer_ids(number: np.ndarray, before: RowCounts) -> pa.Array:
    return identifiers("", before.customers + number.astype(np.int64) + 1)


def _account_ids(number: np.ndarray, before: RowCounts) -> pa.Array:
    return identifiers("A", before.customers + number.astype(np.int64) + 1)


def _loan_ids(lent: Loans, before: RowCounts) -> pa.Array:
    return identifiers("L", before.loans + np.arange(len(lent.applied)), 7)


def _offer_ids(loan_offers: Offers, before: RowCounts) -> pa.Array:
    return identifiers("O", before.offers + np.arange(len(loan_offers.offered)), 7)
