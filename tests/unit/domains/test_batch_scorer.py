"""Tests of the batch scorer: it travels with the files of bundles, and loads them as the service does, with their hashes."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from finrisk_assets.domains.batch_scorer import BatchScorer
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleError
from tests.service.conftest import write_transaction_bundle


@pytest.fixture
def scorer(tmp_path: Path) -> BatchScorer:
    domain = TRANSACTION_ANOMALY
    folders = {domain.name: write_transaction_bundle(tmp_path / "bundle"), "companion": write_transaction_bundle(tmp_path / "other")}
    read = BatchScorer.read(domain, default_policy(), domain.score_contract().names, folders)
    assert read.champion.version == Bundle.load(tmp_path / "bundle").version
    return read


def test_it_travels_with_the_files_of_the_bundle_and_of_its_companions(scorer: BatchScorer, tmp_path: Path) -> None:
    packed = pickle.dumps(scorer)
    (tmp_path / "bundle").rename(tmp_path / "gone")
    arrived = pickle.loads(packed)  # noqa: S301 - made two lines above
    assert arrived.bundles.keys() == {"transaction_anomaly", "companion"} and "champion" not in arrived.__dict__
    assert (arrived.champion.version, arrived.champion.policy) == (scorer.champion.version, scorer.policy)


def test_files_that_changed_on_the_way_are_refused(scorer: BatchScorer) -> None:
    files = scorer.bundles["transaction_anomaly"]
    for name, content in files.items():
        changed = replace(scorer, bundles={"transaction_anomaly": {**files, name: content.replace(b"1", b"2")}})
        with pytest.raises(BundleError):
            _ = changed.champion
