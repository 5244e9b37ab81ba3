"""Tests of the first days of the Handbook's September 2018 through the stream; `benchmarks.stream_handbook` has the whole month."""

from datetime import timedelta

import numpy as np
import pytest

from benchmarks import stream_handbook
from bento.decisions import feedback
from finrisk_assets.settings import Settings

pytestmark = [pytest.mark.realdata, pytest.mark.slow]


def test_scores_and_figures_of_the_stream_equal_those_of_the_batch_evaluation(broker, data_dir, tmp_path, monkeypatch):
    known, record = [], feedback.record
    monkeypatch.setattr(feedback, "record", lambda store, request: (known.append(request.known_at), record(store, request))[1])

    outcome = stream_handbook.compare_paths(Settings(data_dir=data_dir), broker, tmp_path, days=4, every=10)

    assert len(outcome.batch) > 3_000 and outcome.batch.is_fraud.sum() > 20
    np.testing.assert_array_equal(outcome.stream.score.to_numpy(), outcome.batch.score.to_numpy())
    assert outcome.stream.decision.tolist() == outcome.batch.decision.tolist()
    for batch, stream in stream_handbook.judge(outcome).values():
        assert stream == batch > 0
    # The labels came as feedback. From the second day on, the shortest window has no others, and frauds are among them.
    assert len(known) > 3_000 and min(known) >= stream_handbook.SEPTEMBER
    later = outcome.batch[outcome.batch.occurred_at >= stream_handbook.SEPTEMBER + timedelta(days=1)]
    assert (later.merchant_risk_1d > 0).any()
