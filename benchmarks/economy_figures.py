"""Figures of the simulated economy that a banker knows by heart: fraud, defaults by term, medians by month, and how well anyone can tell.

    python -m benchmarks.economy_figures [--customers 2000] [--seeds 1 2 3]

About ten seconds a seed. `tests/unit/ledger/test_economy_figures.py` holds the same figures within wide bounds.
"""

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from finrisk_assets.ledger.sources.simulator import Economy, run
from finrisk_assets.ledger.sources.simulator.lending.applicants import TERMS
from finrisk_assets.modelling.evaluation import metrics

INCOME = ("salary", "self_employment", "benefits")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=Economy.n_customers, help="people")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    for seed in given.seeds:
        economy = Economy(given.customers, seed=seed)
        print(f"\nseed {seed}, {economy.n_customers:,} people, {economy.n_months} months")
        for name, figure in find_figures(run(economy), economy).items():
            print(f"  {name:44} {_words(figure)}")


def find_figures(tables: Mapping[str, pa.Table], economy: Economy) -> dict[str, Any]:
    """Return the figures of a simulated economy by name: numbers, or arrays over the terms or the months."""
    moves = tables["transactions"].slice(0, tables["transactions"].num_rows - economy.bad_rows).to_pandas()
    frames = {name: table.to_pandas() for name, table in tables.items() if name != "transactions"}
    return {**_fraud(moves, economy), **_medians(moves), **_defaults(frames), **_oracles(moves, frames)}


def _fraud(moves: pd.DataFrame, economy: Economy) -> dict[str, float]:
    fraud, debit = moves[moves.is_fraud], moves.direction == "debit"
    years = economy.n_months / 12
    return {
        "people hit by fraud a year": fraud.customer_id.nunique() / moves.customer_id.nunique() / years,
        "fraud, share of payments": len(fraud) / debit.sum(),
        "fraud, share of the amount": fraud.amount.sum() / moves.amount[debit].sum(),
        "fraud at night": float((fraud.occurred_at.dt.hour < 6).mean()) if len(fraud) else float("nan"),
    }


def _medians(moves: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return medians over the people by month, the partial ones of new accounts left out."""
    month = moves.occurred_at.dt.to_period("M").rename("month")
    keys = [moves.customer_id, month]
    table = pd.DataFrame(
        {
            "income": moves.amount.where(moves.category.isin(INCOME), 0.0).groupby(keys).sum(),
            "spending": moves.amount.where(moves.direction == "debit", 0.0).groupby(keys).sum(),
            "balance": moves.balance_amount.groupby(keys).last(),
        }
    )
    return {f"median {name} by month": table[name].groupby("month").median().to_numpy() for name in table}


def _defaults(frames: Mapping[str, pd.DataFrame]) -> dict[str, Any]:
    loans = frames["loans"].merge(frames["truth_loans"], on="loan_id")
    burden = loans.instalment_amount / loans.true_income_amount
    by_term = loans.groupby("term_months")
    fifths = pd.qcut(burden, 5, labels=False)
    return {
        "loans by term (6, 12, 24, 36, 48, 60)": by_term.size().reindex(TERMS).to_numpy(),
        "default within a year by term": by_term.is_default.mean().reindex(TERMS).to_numpy(),
        "default over the whole term by term": loans.default_month.notna().groupby(loans.term_months).mean().reindex(TERMS).to_numpy(),
        "default within a year by fifth of burden": loans.is_default.groupby(fifths).mean().to_numpy(),
        "prepaid, share of the loans": float(loans.prepaid_month.notna().mean()),
        "rate, deciles 1, 5 and 9": loans.annual_rate_pct.quantile([0.1, 0.5, 0.9]).to_numpy(),
        "offers accepted at a random rate": float(frames["offers"].query("is_rate_random").is_accepted.mean()),
    }


def _oracles(moves: pd.DataFrame, frames: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    loans = frames["loans"].merge(frames["truth_loans"], on="loan_id")
    offers = frames["offers"].merge(frames["truth_offers"], on="offer_id").query("is_rate_random")
    suspects = moves[["transaction_id", "is_fraud"]].merge(frames["truth_transactions"], on="transaction_id", how="left")
    month, penalty = moves.occurred_at.dt.to_period("M").rename("month"), moves.occurred_at.where(moves.category == "penalty")
    months = pd.DataFrame(
        {
            "closing": moves.balance_amount.groupby([moves.customer_id, month]).last(),
            "penalty": penalty.groupby([moves.customer_id, month]).max(),
            "returned": moves.category.eq("returned_payment").groupby([moves.customer_id, month]).any(),
        }
    ).reset_index()
    months["as_of"] = (months.month + 1).dt.to_timestamp()
    people, until = months.groupby("customer_id"), months.as_of + pd.Timedelta(days=90)
    trouble = people.closing.shift(-3) < months.closing
    for ahead in (1, 2, 3):
        trouble |= (people.penalty.shift(-ahead) <= until) | people.returned.shift(-ahead, fill_value=False)
    months = months.assign(trouble=trouble, surplus=people.closing.shift(-1) > months.closing)
    cashflow = months.assign(account_id="A" + months.customer_id).merge(frames["truth_cashflow"], on=["account_id", "as_of"])
    spending = months.merge(frames["truth_spending_risk"], on=["customer_id", "as_of"])
    figures = {}
    for name, happened, true in (
        ("spending_risk", spending.trouble, spending.true_probability),
        ("cashflow", cashflow.surplus, cashflow.true_probability),
        ("loan_default", loans.is_default, loans.true_pd),
        ("loan_offers", offers.is_accepted, offers.true_acceptance),
        ("transaction_anomaly", suspects.is_fraud, suspects.fraud_probability.fillna(0.0)),
    ):
        if 0 < happened.mean() < 1:
            figures[f"rate, {name}"] = float(happened.mean())
            figures[f"AUC of the oracle, {name}"] = metrics.auc(happened, true).value
    return figures


def _words(figure: Any) -> str:
    """Return a figure, or a list of them, with three digits that count."""
    return " ".join(f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}" for value in np.atleast_1d(figure))


if __name__ == "__main__":
    main()
