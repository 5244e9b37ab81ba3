"""Tests of the rows whose profit is compared with the simulator's truth."""

import numpy as np
import pandas as pd

from finrisk_assets.domains.loan_offers import profit


def test_a_window_up_to_the_bound_is_compared_whole():
    frame = pd.DataFrame({"offer_id": np.arange(profit.MAX_ROWS)})
    assert profit.draw_rows(frame, seed=1) is frame


def test_of_a_larger_window_the_seed_draws_rows_in_their_order():
    frame = pd.DataFrame({"offer_id": np.arange(3 * profit.MAX_ROWS)})
    drawn = profit.draw_rows(frame, seed=1)
    assert len(drawn) == drawn.offer_id.nunique() == profit.MAX_ROWS
    assert drawn.offer_id.is_monotonic_increasing and drawn.equals(profit.draw_rows(frame, seed=1))
    assert not drawn.equals(profit.draw_rows(frame, seed=2))
