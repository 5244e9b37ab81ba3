"""Tests of a transaction's features in the service: computed as the bundle declares them, or refused."""

import pytest

from bento.decisions.scorers.transaction_features import TransactionFeatures, read_definitions
from finrisk_assets.features.windows import to_json
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleError
from tests.service.conftest import DECLARED, write_transaction_bundle


def changed(**parts):
    """Return the declarations, with parts of the one that counts the last hour changed."""
    return [value | parts if value["feature"]["name"] == "customer_n_1h" else value for value in to_json(DECLARED)]


def features_of(folder):
    return TransactionFeatures(read_definitions(Bundle.load(folder)))


def test_a_bundle_declares_how_its_features_are_computed(tmp_path):
    features_of(write_transaction_bundle(tmp_path / "bundle"))


@pytest.mark.parametrize(
    ("windows", "reason"),
    [
        ([], "has no `windows`"),
        (changed(kind="guess"), "'customer_n_1h' is of kind 'guess'"),
        (changed(aggregate="median"), "aggregate 'median' is none of"),
        (changed(entity=["device_id"]), "reads device_id, which"),
    ],
    ids=["none", "unknown kind", "unknown aggregate", "unknown column"],
)
def test_a_bundle_that_declares_them_otherwise_is_refused_by_name(tmp_path, windows, reason):
    folder = write_transaction_bundle(tmp_path / "bundle", windows)

    with pytest.raises(BundleError, match=rf"finrisk-transaction-anomaly [0-9a-f]{{12}}: .*{reason}"):
        features_of(folder)


def test_another_window_gives_another_value(serving, bundles, tmp_path, transaction):
    for length_s, seen in ((3600, 1), (60, 0)):
        folder = write_transaction_bundle(tmp_path / str(length_s), changed(length_s=length_s))
        serving.home = tmp_path / f"home-{length_s}"
        with serving({"transaction_anomaly": folder}) as client:
            client.post("/v1/transactions", json=transaction(0))
            answer = client.post("/v1/transactions", json=transaction(30)).json()
        values = {item["feature"]: item["value"] for item in answer["explanation"]["contributions"]}
        assert values["customer_n_1h"] == seen
