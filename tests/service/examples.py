"""Small linear bundles of four domains, and feature snapshots of a few customers."""

from datetime import datetime
from pathlib import Path

import numpy as np

from bento.store.records import FeatureSnapshot
from finrisk_assets.domains.loan_offers.decide import Grid
from finrisk_assets.domains.spending_risk.decide import EIGHT
from finrisk_assets.scoring.bundle import write
from finrisk_assets.scoring.spec import Amount, BundleSpec, Calibration, Linear
from schemas.features import Feature

ORIGIN = {"source": "simulator", "seed": 1, "data_sha256": "0" * 64, "code_sha256": "0" * 64}
MONTH_END = datetime(2024, 7, 1)

LOAN_THRESHOLDS = {"refer_from": 0.1, "refuse_from": 0.3}
SPENDING_THRESHOLDS = {"medium_from": 0.4, "high_from": 0.7}
GRID = Grid(rates=(6.0, 9.0, 12.0, 18.0), multiples=(1.0, 3.0), terms=(12, 24))

LOAN_FEATURES = (
    Feature("loan_amount", "currency", "Amount lent.", "the amount is small", "the amount is large", 1),
    Feature("term_months", "months", "Months to repay.", "the term is short", "the term is long"),
    Feature("balance_mean_30d", "currency", "Mean balance of 30 days.", "balances were low", "balances were high", -1),
    Feature(
        "is_urban",
        "0 or 1",
        "Whether the borrower lives in a town.",
        zero="the borrower lives in the country",
        one="the borrower lives in a town",
    ),
    Feature("instalment_to_usual_income", "ratio", "Instalment over income.", "the instalment is light", "the instalment weighs", 1),
)


def _features(*names: str) -> tuple[Feature, ...]:
    return tuple(Feature(name, "", f"{name} of 90 days.", f"{name} is low", f"{name} is high") for name in names)


def linear(coefficients: tuple[float, ...], means: tuple[float, ...], scales: tuple[float, ...], intercept: float, **more) -> Linear:
    n = len(coefficients)
    settings = {"fills": tuple(means), "signed_log1p": (False,) * n} | more
    return Linear(coefficients=coefficients, means=means, scales=scales, intercept=intercept, **settings)


def _write(folder: Path, domain: str, features: tuple[Feature, ...], component: Linear, thresholds: dict[str, float], **more) -> Path:
    golden = np.random.default_rng(1).uniform(0.5, 1.5, (9, len(features))).astype(np.float32)
    name = "finrisk-" + domain.replace("_", "-")
    spec = BundleSpec(
        **ORIGIN, name=name, domain=domain, features=features, components=(component,), thresholds=thresholds,
        golden_rows=golden * np.array(component.means, np.float32), **more,
    )  # fmt: skip
    write(folder, spec)
    return folder


def write_loan_bundle(folder: Path) -> Path:
    """Write a logistic regression that fills in a missing balance only."""
    component = linear(
        (1.2, 0.4, -1.5, 0.1, 0.3), (9000.0, 30.0, 8.0, 0.5, 0.2), (3000.0, 12.0, 2.0, 0.5, 0.1), -2.0,
        fills=(None, None, 3000.0, None, None), signed_log1p=(False, False, True, False, False),
    )  # fmt: skip
    return _write(folder, "loan_default", LOAN_FEATURES, component, LOAN_THRESHOLDS, calibration=Calibration("beta", a=1.1, b=0.9, c=0.1))


def write_spending_bundle(folder: Path) -> Path:
    features = _features("Expense_Income_Ratio", "Low_Balance_Freq", "penalty_n_90d")
    component = linear((1.0, 0.5, 0.8), (0.9, 5.0, 0.3), (0.2, 5.0, 0.6), -0.8)
    return _write(folder, "spending_risk", features, component, SPENDING_THRESHOLDS)


def write_eight_bundle(folder: Path) -> Path:
    component = linear(
        (-0.3, 0.3, 0.1, 0.1, 0.1, 0.7, 1.4, 0.1), (9.1, 9.0, 4.7, 4.4, 6.8, 6.0, 0.9, 7.8), (1.0, 1.0, 1.0, 1.0, 1.0, 9.0, 0.2, 1.0), -0.9,
        signed_log1p=(True, True, True, True, True, False, False, True),
    )  # fmt: skip
    return _write(folder, "spending_risk_eight", _features(*EIGHT), component, SPENDING_THRESHOLDS)


def write_cashflow_bundle(folder: Path, *, with_amount: bool = True) -> Path:
    features = _features("net_flow_30d", "income_90d", "typical_movement_amount")
    amount = Amount(linear((0.3, 0.1, 0.0), (200.0, 8000.0, 900.0), (400.0, 900.0, 400.0), 0.1), "typical_movement_amount", -0.6, 0.7)
    component = linear((1.0, 0.2, 0.1), (200.0, 8000.0, 900.0), (400.0, 900.0, 400.0), 0.2)
    return _write(folder, "cashflow", features, component, {"surplus_from": 0.5}, amount=amount if with_amount else None)


def write_offer_bundle(folder: Path) -> Path:
    features = _features("annual_rate_pct", "log_loan_to_income", "log_term_months", "instalment_to_income", "expense_ratio_90d")
    component = linear((-1.0, -0.2, 0.3, -0.1, 0.6), (12.0, 0.7, 3.2, 0.15, 0.9), (6.0, 0.5, 0.5, 0.1, 0.2), -1.2)
    return _write(folder, "loan_offers", features, component, GRID.thresholds())


def write_linear_bundles(folder: Path) -> dict[str, Path]:
    """Write one bundle of every domain but transaction anomaly; return their folders by domain."""
    writers = {
        "loan_default": write_loan_bundle,
        "spending_risk": write_spending_bundle,
        "spending_risk_eight": write_eight_bundle,
        "cashflow": write_cashflow_bundle,
        "loan_offers": write_offer_bundle,
    }
    return {domain: writer(folder / domain) for domain, writer in writers.items()}


EIGHT_FIELDS = {
    "Total_Income": 60000,
    "Total_Expense": 42000,
    "Num_Transactions": 120,
    "Avg_Expense": 350,
    "Max_Expense": 2500,
    "Low_Balance_Freq": 3,
    "Expense_Income_Ratio": 0.7,
    "Top_Category_Spend": 15000,
}
"""The eight behaviour fields of a spending request."""
LOAN_ROW = {
    "loan_amount": 10000.0, "term_months": 36.0, "annual_rate_pct": 9.0, "instalment_amount": 318.0, "usual_income_amount": 3000.0,
    "instalment_to_usual_income": 0.106, "balance_mean_30d": 2500.0, "is_urban": 1.0,
}  # fmt: skip
SPENDING_ROW = {"Expense_Income_Ratio": 1.1, "Low_Balance_Freq": 12.0, "penalty_n_90d": 1.0}
CASHFLOW_ROW = {"net_flow_30d": -350.0, "income_90d": 8600.0, "typical_movement_amount": 820.0}
OFFER_ROW = {
    "annual_rate_pct": None, "log_loan_to_income": None, "log_term_months": None, "instalment_to_income": None, "expense_ratio_90d": 1.02,
    "pd": 0.03, "monthly_income_amount": 3000.0,
}  # fmt: skip


def snapshot_of(domain: str, customer: str, features: dict[str, float | None], account: str | None = None, **details) -> FeatureSnapshot:
    score = {"score": -1.5, "probability": 0.18, "decision": "told", "model_version": "0" * 12} | details
    return FeatureSnapshot(domain, f"{account or customer}@2024-06", customer, account, MONTH_END, features, score)


SNAPSHOTS = (
    snapshot_of("loan_default", "123", LOAN_ROW),
    snapshot_of("spending_risk", "123", SPENDING_ROW),
    snapshot_of("spending_risk_eight", "123", {}),
    snapshot_of("cashflow", "123", CASHFLOW_ROW, "A123", expected_change_amount=-80.5, low_change_amount=-600.0, high_change_amount=None),
    snapshot_of("loan_offers", "123", OFFER_ROW, expected_profit=12.5),
    snapshot_of("cashflow", "7", CASHFLOW_ROW, "A7"),
    snapshot_of("cashflow", "7", CASHFLOW_ROW, "A8"),
    snapshot_of("loan_offers", "7", OFFER_ROW | {"pd": None}),
    snapshot_of("loan_offers", "8", OFFER_ROW | {"monthly_income_amount": None}),
    snapshot_of("spending_risk", "9", {"Expense_Income_Ratio": 1.1}),  # stored before the model had its other features
)
"""123 is known in every domain, 7 has two accounts and no PD, 8 has no known income."""
