"""Tests of spending risk on Berka: the rate of trouble, and that the model ranks better than past penalties do."""

from datetime import datetime

import ibis
import numpy as np
import pytest

from finrisk_assets.domains import gate
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK, SPENDING_RISK_EIGHT
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import load
from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.scoring import bundle
from finrisk_assets.settings import Settings

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def berka(data_dir, tmp_path_factory):
    settings = Settings(source="berka", data_dir=data_dir, as_of=datetime(2020, 1, 1), threads=1)
    source, connection, valid = load(settings), ibis.duckdb.connect(), {}
    folder = tmp_path_factory.mktemp("berka")
    for name, raw in source.tables.items():
        raw.land(folder / f"{name}.parquet")
        landed = connection.read_parquet(folder / f"{name}.parquet")
        valid[name] = connection.create_table(name, split(raw.table, raw.columns, landed, valid, settings.now).valid)
    tables = {name: valid[name] for name in SPENDING_RISK.tables}
    return source, settings, SPENDING_RISK.build_features(tables, source).order_by("customer_month").execute()


def test_trouble_is_rare_and_known_for_most_month_ends(berka):
    _, _, frame = berka
    known = frame.is_trouble.dropna().astype(bool)
    assert (len(frame), len(known), known.sum()) == (16_100, 11_442, 128)


def test_the_model_ranks_better_than_the_penalties_of_the_last_three_months(berka, tmp_path):
    source, settings, frame = berka
    domain = SPENDING_RISK
    bundle.write(tmp_path / "bundle", domain.train(frame, domain.select_features(source), source, settings).spec)
    window = domain.score_test_window(frame, bundle.Bundle.load(tmp_path / "bundle", threads=1), settings)
    penalties = window.frame.n_penalties_3m + 0.5 * (window.frame.n_negative_balance_3m > 0)
    better = metrics.compare_auc(window.labels, window.probability, penalties)
    assert metrics.auc(window.labels, window.probability).low > 0.6
    assert better.difference.low > 0
    assert np.unique(window.frame.customer_id).size == 288


def test_the_eight_fields_rank_no_better_than_chance_and_the_gate_serves_no_such_model(berka, tmp_path):
    source, settings, frame = berka
    domain = SPENDING_RISK_EIGHT
    bundle.write(tmp_path / "bundle", domain.train(frame, domain.select_features(source), source, settings).spec)
    challenger = bundle.Bundle.load(tmp_path / "bundle", threads=1)
    window = domain.score_test_window(frame, challenger, settings)
    assert metrics.auc(window.labels, window.probability).low < 0.5
    figures = gate.evaluate(domain, frame, None, challenger, None, settings).figures
    assert "discrimination" in {fault.demand for fault in gate.find_faults(domain, figures)}
