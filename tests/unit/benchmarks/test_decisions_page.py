"""Tests of the page of decisions: a bound that is not kept says so, and a ledger without champions says what to run."""

import pytest

from benchmarks import decisions


def test_a_figure_stands_beside_its_bound_and_says_whether_it_is_kept():
    assert decisions.judge(0.0312, 0.05, ".1%") == "3.1% (at most 5.0%: kept)"
    assert decisions.judge(0.0512, 0.05, ".1%") == "5.1% (at most 5.0%: MISSED)"


def test_a_home_without_champions_says_what_to_run(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    monkeypatch.setattr("sys.argv", ["benchmarks.decisions"])
    with pytest.raises(SystemExit):
        decisions.main()
    assert "run `make demo` first" in capsys.readouterr().err
