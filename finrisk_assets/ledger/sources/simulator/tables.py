"""The ledger as Arrow tables, in the vocabulary of `schemas.ledger`, and the few rows that are spoiled on purpose."""

from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .balances import Ledger
from .economy import COUNTRIES, DAY, NAMES, REGIONS, Economy
from .events import SCENARIOS
from .loans import Loans
from .people import Market, People

_GENDERS = ("F", "M", "X")


def customers(economy: Economy, people: People) -> pa.Table:
    return pa.table(
        {
            "customer_id": identifiers("C", np.arange(len(people)), 7),
            "birth_year": people.birth_year,
            "gender": words(people.gender, _GENDERS),
            "region": words(people.region, REGIONS),
            "country": words(people.home, COUNTRIES),
            "joined_at": moments(economy, people.opened),
            "income_amount": np.rint(people.income / 10) * 10,
        }
    )


def accounts(economy: Economy, people: People) -> pa.Table:
    number = np.arange(len(people))
    return pa.table(
        {
            "account_id": identifiers("A", number, 7),
            "customer_id": identifiers("C", number, 7),
            "opened_at": moments(economy, people.opened),
            "overdraft_limit_amount": people.limit,
        }
    )


def transactions(economy: Economy, market: Market, people: pa.Table, ledger: Ledger) -> pa.Table:
    """Every movement; `people` is the table of accounts, in the order of the people."""
    made = ledger.events
    fraud = made.scenario > 0
    settled = made.second + int(economy.fraud.label_delay_days[1] * DAY)
    return pa.table(
        {
            "transaction_id": identifiers("T", np.arange(len(made)), 9),
            "customer_id": people["customer_id"].take(pa.array(made.customer)),
            "account_id": people["account_id"].take(pa.array(made.customer)),
            "occurred_at": moments(economy, made.second),
            "amount": made.cents / 100,
            "direction": words((made.sign > 0).astype(np.int8), ("debit", "credit")),
            "category": words(made.category, NAMES),
            "merchant": words(made.merchant, market.names),
            "country": words(made.country, COUNTRIES),
            "balance_amount": ledger.balance / 100,
            "is_fraud": fraud,
            "label_known_at": moments(economy, np.where(fraud, made.reported, settled)),
        }
    )


def loans(economy: Economy, lent: Loans) -> pa.Table:
    return pa.table(
        {
            "loan_id": _loan_ids(lent),
            "customer_id": identifiers("C", lent.customer, 7),
            "account_id": identifiers("A", lent.customer, 7),
            "applied_at": moments(economy, lent.applied),
            "loan_amount": lent.amount,
            "term_months": lent.term_months.astype(np.int64),
            "instalment_amount": lent.instalment,
            "annual_rate_pct": lent.annual_rate_pct,
            "is_default": lent.is_default,
            "outcome_known_at": moments(economy, lent.known),
            "stated_income_amount": lent.stated_income,
            "employed_months": lent.employed_months.astype(np.int64),
        }
    )


def truth_loans(lent: Loans) -> pa.Table:
    return pa.table({"loan_id": _loan_ids(lent), "true_pd": lent.true_pd, "ledger_pd": lent.ledger_pd})


def truth_transactions(ledger: Ledger) -> pa.Table:
    """Every transaction that might have been fraud; the probability of all others is 0."""
    suspect = np.flatnonzero(ledger.fraud_probability)
    return pa.table(
        {
            "transaction_id": identifiers("T", suspect, 9),
            "scenario": words(ledger.events.scenario[suspect], SCENARIOS),
            "fraud_probability": ledger.fraud_probability[suspect],
        }
    )


def spoil(economy: Economy, table: pa.Table) -> pa.Table:
    """Append `economy.bad_rows` copies of transactions, each broken in one way, so that the quarantine has something to show.

    In turn: a key that is there already, a customer nobody knows, a moment in the far future, an amount below zero, an
    amount that is not a number. The rows of the ledger itself stay as they are.
    """
    n = min(economy.bad_rows, table.num_rows)
    if n == 0:
        return table
    rng = economy.rng("bad rows")
    rows = table.take(np.sort(rng.choice(table.num_rows, n, replace=False)))
    kind = np.arange(n) % 5
    fresh = identifiers("T", table.num_rows + np.arange(n), 9)
    amount = rows["amount"].to_numpy()
    amount = np.where(kind == 3, -amount, np.where(kind == 4, np.nan, amount))
    future = pa.scalar(economy.as_of + timedelta(days=27_393), pa.timestamp("us"))
    spoiled = {
        "transaction_id": pc.if_else(pa.array(kind == 0), rows["transaction_id"], fresh),
        "customer_id": pc.if_else(pa.array(kind == 1), "C-unknown", rows["customer_id"]),
        "occurred_at": pc.if_else(pa.array(kind == 2), future, rows["occurred_at"]),
        "amount": pa.array(amount, from_pandas=False),
    }
    for name, values in spoiled.items():
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return pa.concat_tables([table, rows.cast(table.schema)]).combine_chunks()


def identifiers(prefix: str, numbers: np.ndarray, width: int) -> pa.Array:
    """``T000000042`` from 42."""
    digits = pc.utf8_lpad(pc.cast(pa.array(numbers), pa.string()), width, "0")
    return pc.binary_join_element_wise(prefix, digits, "")


def words(codes: np.ndarray, vocabulary: tuple[str, ...]) -> pa.Array:
    """The words that the codes stand for; null below 0."""
    indices = pa.array(codes, mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(vocabulary)).cast(pa.string())


def moments(economy: Economy, seconds: np.ndarray) -> pa.Array:
    """Naive UTC timestamps, in microseconds, from seconds since the start."""
    return pa.array(np.datetime64(economy.start, "us") + seconds.astype("timedelta64[s]").astype("timedelta64[us]"))


def _loan_ids(lent: Loans) -> pa.Array:
    return identifiers("L", np.arange(len(lent.applied)), 7)
