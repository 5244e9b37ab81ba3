"""Tests of the monitoring report: one file, verdict first, no external resource, no personal data."""

import re
from datetime import datetime
from html.parser import HTMLParser

import pytest

from finrisk_assets.modelling.monitoring import report
from tests.unit.modelling.monitored import observed, rows

ABOUT = report.ReportSubject(
    domain="Loan default",
    source="simulator",
    champion="0123456789ab",
    registered="finrisk-loan-default version 3",
    training_window=("2022-08-01", "2023-09-30"),
    as_of=datetime(2024, 7, 1),
    run_id="run-1",
    descriptions={"income": "Income <in> currency."},
    left_out={"month_sin": "the month of the year"},
)
VOID = {"meta", "br", "rect", "circle", "line", "link", "img"}


class Balanced(HTMLParser):
    """Raises where a tag is closed that is not open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return report.render_report(ABOUT, observed(rows(shift=0.4, riskier=1.0)))


def test_the_verdict_comes_first_and_says_what_follows(page: str) -> None:
    assert page.index("Drift is confirmed") < page.index("What is watched") < page.index("What has moved")
    assert "Nothing is promoted by this finding" in page


def test_it_names_what_moved_in_plain_words(page: str) -> None:
    line = next(line for line in re.findall(r"<tr>.*?</tr>", page) if "<code>income</code>" in line)
    assert "moved" in line and "Income &lt;in&gt; currency." in line and "higher: median" in line


def test_it_says_what_is_left_out_and_why(page: str) -> None:
    assert "<code>month_sin</code> the month of the year." in page


def test_it_loads_nothing_and_runs_nothing(page: str) -> None:
    assert not re.search(r"<script|<link|<img|<iframe|https?:|url\(|@import|\son\w+=", page)


def test_its_markup_is_whole(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert not parser.open


def test_it_names_no_customer(page: str) -> None:
    assert not re.search(r"\bc\d+\b", re.sub(r"<style>.*?</style>|<svg.*?</svg>", "", page, flags=re.DOTALL))


def test_the_same_findings_give_the_same_bytes(page: str) -> None:
    assert page == report.render_report(ABOUT, observed(rows(shift=0.4, riskier=1.0)))


def test_a_window_that_stands_still_reads_so() -> None:
    quiet = report.render_report(ABOUT, observed(rows(seed=3)))
    assert 'class="verdict good"' in quiet and "None of 3 features moved; the score did not." in quiet
    assert "3 features that did not move" in quiet
