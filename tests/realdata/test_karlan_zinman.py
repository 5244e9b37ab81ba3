"""Tests of the published estimates of Karlan & Zinman (2008), and of our model's slope, on the source's file."""

from datetime import datetime

import ibis
import numpy as np
import pytest

from benchmarks.offers import estimates
from finrisk_assets.domains.loan_offers.definition import LOAN_OFFERS
from finrisk_assets.ledger.contract import check_stored, count_by_rule, split
from finrisk_assets.ledger.sources import karlan_zinman
from finrisk_assets.modelling.training.candidates import to_matrix
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings

pytestmark = pytest.mark.realdata


def test_the_published_estimates_are_reproduced(data_dir):
    clients = karlan_zinman.read(data_dir / "karlan_zinman" / karlan_zinman.FILE)
    for one in estimates(clients):
        unit = 10.0**-one.digits if one.published_n else 10.0**-3
        assert one.value == pytest.approx(one.published, abs=0.51 * unit), one.name
        assert one.published_n in (None, one.n), one.name


def test_every_row_is_valid_and_the_model_falls_as_steeply_as_published(data_dir, tmp_path):
    settings = Settings(source="karlan_zinman", data_dir=data_dir, as_of=datetime(2026, 1, 1))
    source, connection, valid = karlan_zinman.source(settings), ibis.duckdb.connect(), {}
    for name, raw in source.tables.items():
        raw.land(tmp_path / f"{name}.parquet")
        done = split(raw.table, raw.columns, connection.read_parquet(tmp_path / f"{name}.parquet"), valid, settings.now)
        valid[name] = connection.create_table(name, done.valid)
        assert count_by_rule(connection.create_table(f"quarantine_{name}", done.quarantine)) == {}
        assert check_stored(raw.table, valid[name]) == []
        assert valid[name].count().execute() == 53_810
    assert valid["offers"].is_accepted.mean().execute() == pytest.approx(0.0844, abs=5e-5)
    assert valid["loans"].is_default.count().execute() == 3_887

    assert LOAN_OFFERS.unavailable_reason(source) is None
    frame = LOAN_OFFERS.build_features(valid, source).execute().sort_values("offer_id", ignore_index=True)
    declared = LOAN_OFFERS.select_features(source)
    bundle = Bundle(LOAN_OFFERS.train(frame, declared, source, settings).spec, "")
    figures = {figure.metric: figure for figure in LOAN_OFFERS.evaluate(frame, bundle, settings).figures}
    assert LOAN_OFFERS.find_faults(figures) == []
    assert figures["auc"].value > 0.66
    rows = to_matrix(LOAN_OFFERS.score_test_window(frame, bundle, settings).frame, declared)
    at = [feature.name for feature in declared].index("annual_rate_pct")
    above, below = rows.copy(), rows.copy()
    above[:, at] += 6  # half a point a month on either side
    below[:, at] -= 6
    slope = float(np.mean(bundle.probability(above) - bundle.probability(below)))
    assert slope == pytest.approx(-0.0029, abs=0.0005)
