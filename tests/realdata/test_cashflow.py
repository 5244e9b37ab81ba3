"""Tests of cashflow on Berka and on the Bank Marketing example: better than plain rules, with intervals that hold."""

from pathlib import Path

import pytest

from benchmarks import cashflow
from finrisk_assets.domains.cashflow.definition import CASHFLOW

pytestmark = pytest.mark.realdata


@pytest.fixture(autouse=True)
def environment(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_DATA_DIR", str(data_dir))


@pytest.fixture(scope="module")
def berka(data_dir: Path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINRISK_DATA_DIR", str(data_dir))
        return cashflow.load("berka")


@pytest.mark.parametrize("slices", ["both", "first", "second"])
def test_berka_out_of_time(berka, slices):
    early = berka.frame.as_of < cashflow.GAP
    rows = {"both": early | True, "first": early, "second": ~early}[slices]
    _, figures = cashflow.judge(berka, berka.frame[rows].reset_index(drop=True))
    for rule in ("persistence", "persistence_amount", "seasonal_naive", "seasonal_naive_amount"):
        assert figures[f"auc_above_{rule}"].low > 0
    assert figures["interval_coverage"].value == pytest.approx(0.8, abs=0.04)
    assert figures["mae_expected"].value < figures["mae_no_change"].value


def test_berka_has_a_row_for_every_month_end(berka):
    frame = berka.frame
    assert (len(frame), int(frame.is_surplus.notna().sum())) == (16_100, 14_497)
    early = frame.as_of < cashflow.GAP
    assert [float(frame.is_surplus[one].mean()) for one in (early, ~early)] == pytest.approx([0.696, 0.578], abs=0.001)


def test_the_bank_marketing_example_passes_at_random_and_its_gate_refuses_it_in_order():
    panel = cashflow.load("mapped", mapping=cashflow.ROOT / "docs" / "bank-marketing.yaml")
    assert len(panel.frame) == 45_211
    _, flattered = cashflow.judge(panel, panel.frame)
    assert CASHFLOW.find_faults(flattered) == []
    assert "interval_coverage" not in flattered
    _, figures = cashflow.judge(panel, cashflow.in_order(panel.frame))
    assert 0.6 < figures["auc"].low < figures["auc"].high < flattered["auc"].low
    assert any("far from the rate" in fault.reason for fault in CASHFLOW.find_faults(figures))
