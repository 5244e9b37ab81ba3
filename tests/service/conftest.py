"""Small real bundles, a model store that holds them, and a client of the service in process."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from finrisk_assets.modelling.bundle import BundleSpec, Calibration, Linear, Trees, write
from finrisk_assets.packaging import _store_model
from schemas.features import Feature

LOAN_FEATURES = (
    Feature("loan_amount", "currency", "Amount lent.", "The amount is large.", "The amount is small.", 1),
    Feature("term_months", "months", "Months to repay.", "The term is long.", "The term is short."),
    Feature("balance_mean_30d", "currency", "Mean balance of the last 30 days.", "Balances were low.", "Balances were high.", -1),
    Feature("is_urban", "yes or no", "Whether the borrower lives in a town.", "", ""),
)


def loan_bundle(folder: Path) -> Path:
    """A logistic regression with a stand-in for a missing balance."""
    rng = np.random.default_rng(1)
    write(
        folder,
        BundleSpec(
            name="finrisk-loan-default",
            domain="loan_default",
            source="simulator",
            features=LOAN_FEATURES,
            components=(
                Linear(
                    coefficients=(1.2, 0.4, -1.5, 0.1),
                    means=(9000.0, 30.0, 8.0, 0.5),
                    scales=(3000.0, 12.0, 2.0, 0.5),
                    fills=(None, None, 3000.0, None),
                    signed_log1p=(False, False, True, False),
                    intercept=-2.0,
                ),
            ),
            golden_rows=rng.uniform(0, 40, (8, 4)).astype(np.float32),
            seed=1,
            data_sha256="0" * 64,
            code_sha256="0" * 64,
            calibration=Calibration("beta", a=1.1, b=0.9, c=0.1),
            thresholds={"refuse": 0.3},
        ),
    )
    return folder
