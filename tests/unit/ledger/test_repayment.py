"""Tests of the loans' fate: what is played follows what is expected, at any terms, and the cash flows add up."""

from dataclasses import replace

import numpy as np
import pytest

from finrisk_assets.ledger.sources.simulator import Economy, run
from finrisk_assets.ledger.sources.simulator.lending import repayment
from finrisk_assets.ledger.sources.simulator.lending.repayment import MISSED_INSTALMENTS, NEVER, Course, Limits, Outlook

ECONOMY = Economy(1_000, 14, seed=11, loans_per_customer=12, offers_per_customer=2, futures=2, bad_rows=0)


@pytest.fixture(scope="module")
def tables():
    return {name: table.to_pandas() for name, table in run(ECONOMY).items() if name != "transactions"}


@pytest.fixture(scope="module")
def loans(tables):
    return tables["loans"].merge(tables["truth_loans"], on="loan_id", validate="one_to_one")


def play(tables, ids, instalment, rate, term):
    limits = Limits.from_columns(np.asarray(ids), tables["truth_limits"])
    return repayment.play(limits, np.asarray(instalment), np.asarray(rate), np.asarray(term))


def expect(rows, instalment, rate, term):
    outlook = Outlook.from_columns(rows)
    return repayment.expect_course(outlook, np.asarray(instalment), np.asarray(rate), np.asarray(term), ECONOMY.loans, ECONOMY.household)


def test_the_limits_tell_what_happened_at_the_loan_s_own_terms(tables, loans):
    course = play(tables, loans.loan_id, loans.instalment_amount, loans.annual_rate_pct, loans.term_months)
    assert (course.default_month == loans.default_month.fillna(NEVER)).all()
    assert (course.prepaid_month == loans.prepaid_month.fillna(NEVER)).all()
    assert (loans.is_default == (loans.default_month <= 12)).all()
    assert (loans.default_month.dropna() >= MISSED_INSTALMENTS).all()
    assert (loans.default_month.dropna() <= loans.term_months[loans.default_month.notna()]).all()
    assert not (loans.default_month.notna() & loans.prepaid_month.notna()).any()


@pytest.mark.parametrize(("burden", "rate", "term"), [(0.05, 6.0, 12), (0.15, 12.0, 36), (0.3, 20.0, 60)])
def test_what_is_played_is_what_is_expected_at_any_terms(tables, loans, burden, rate, term):
    n = len(loans)
    terms = burden * loans.true_income_amount.to_numpy(), np.full(n, rate), np.full(n, term)
    course, expected = play(tables, loans.loan_id, *terms), expect(loans, *terms)
    for month in (6, 12, 24, 60):
        happened = (course.default_month != NEVER) & (course.default_month <= month)
        probability = expected.default[:, :month].sum(axis=1)
        # Loans of one household share its jobs and mishaps, so they vary more than one by one.
        assert happened.mean() == pytest.approx(probability.mean(), abs=0.004 + 8 * np.sqrt(probability.mean() / n))
    assert (course.prepaid_month != NEVER).mean() == pytest.approx(expected.prepaid.sum(axis=1).mean(), abs=0.02)


def test_the_probability_of_the_first_year_is_the_truth_of_the_outcome(loans):
    expected = expect(loans, loans.instalment_amount, loans.annual_rate_pct, loans.term_months)
    assert np.allclose(expected.default[:, :12].sum(axis=1), loans.true_pd)


def test_a_longer_term_and_a_larger_instalment_default_more(loans):
    n, income = len(loans), loans.true_income_amount.to_numpy()

    def lifetime(burden, term):
        return expect(loans, burden * income, np.full(n, 10.0), np.full(n, term)).default.sum(axis=1)

    by_term = np.array([lifetime(0.15, term) for term in (6, 12, 24, 36, 48, 60)])
    assert (np.diff(by_term, axis=0) >= 0).all()
    assert (np.diff(by_term.mean(axis=1)) > 0.02).all()
    by_burden = np.array([lifetime(burden, 36) for burden in (0.05, 0.1, 0.2, 0.4)])
    assert (np.diff(by_burden, axis=0) >= 0).all()
    assert (np.diff(by_burden.mean(axis=1)) > 0.02).all()


def test_terms_that_bear_less_can_only_end_a_loan_earlier(tables, loans):
    n, income = len(loans), loans.true_income_amount.to_numpy()
    small, large = (play(tables, loans.loan_id, burden * income, np.zeros(n), np.full(n, 60)).default_month for burden in (0.1, 0.3))
    failed = small != NEVER
    assert failed.sum() > 100
    assert ((large[failed] != NEVER) & (large[failed] <= small[failed])).all()


def test_prepayment_is_likelier_at_a_higher_rate(tables, loans):
    n = len(loans)
    shares = [(play(tables, loans.loan_id, np.zeros(n), np.full(n, rate), np.full(n, 48)).prepaid_month > 0).mean() for rate in (4.0, 20.0)]
    assert 0.2 < shares[0] < shares[1] - 0.1


def test_offers_have_limits_too(tables):
    offers = tables["offers"].merge(tables["truth_offers"], on="offer_id")
    instalment = repayment.find_instalment(offers.loan_amount, offers.annual_rate_pct, offers.term_months)
    course = play(tables, offers.offer_id, instalment, offers.annual_rate_pct, offers.term_months)
    expected = expect(offers, instalment, offers.annual_rate_pct, offers.term_months)
    assert (course.default_month != NEVER).mean() == pytest.approx(expected.default.sum(axis=1).mean(), abs=0.03)


def test_cash_flows_of_a_loan_by_hand():
    terms = np.full(4, 1_200.0), np.array([12.0, 12.0, 12.0, 0.0]), np.array([12, 12, 12, 12])
    course = Course(np.array([NEVER, 6, NEVER, NEVER]), np.array([NEVER, NEVER, 4, NEVER]))
    received, owed = repayment.find_cash_flows(*terms, course, np.full(4, 0.5), recovery_months=3)
    instalment = 106.62
    assert (received[:, 0] == -1_200).all()
    assert np.allclose(received[0, 1:12], instalment)
    assert received[0, 12] == pytest.approx(instalment, abs=0.05)  # the last one takes what rounding left
    assert owed[0, 12] == 0
    due = (((1_200 * 1.01 - instalment) * 1.01) - instalment) * 1.01 - instalment
    assert np.allclose(received[1, 1:4], instalment)
    assert (received[1, 4:9] == 0).all()
    assert received[1, 9] == pytest.approx(due / 2)
    assert owed[1, 8] == pytest.approx(due)
    assert (owed[1, 9:] == 0).all()
    assert received[2, 4] == pytest.approx(due * 1.01)
    assert (received[2, 5:] == 0).all()
    assert np.allclose(received[3, 1:13], 100)


def test_the_table_of_cash_flows_is_that_of_the_loans(tables, loans):
    flows = tables["truth_loan_cash_flows"]
    assert set(flows.loan_id) == set(loans.loan_id)
    paid_out = flows[flows.month == 0].set_index("loan_id")
    assert (paid_out.received_amount == -loans.set_index("loan_id").loan_amount[paid_out.index]).all()
    last = flows.groupby("loan_id").last()
    assert (last.owed_amount == 0).all()
    returned = flows[flows.month > 0].groupby("loan_id").received_amount.sum().reindex(loans.loan_id, fill_value=0.0).to_numpy()
    good = loans.default_month.isna().to_numpy()
    assert (returned[good] > loans.loan_amount.to_numpy()[good]).all()
    ratio = (returned / loans.loan_amount.to_numpy())[~good]
    assert 0.5 < ratio.mean() < 0.95


def test_a_shock_makes_loans_default_that_were_granted_before_it():
    calm, shaken = (run(replace(ECONOMY, shock_month=month, shock_size=0.4)) for month in (0, 13))
    early = [table["loans"].to_pandas().merge(table["truth_loans"].to_pandas(), on="loan_id").query("applied_at < '2023-06-01'")
             for table in (calm, shaken)]  # fmt: skip
    assert np.allclose(early[0].true_pd, early[1].true_pd, atol=0.02)  # nobody foresees it
    assert early[1].default_month.notna().mean() > 1.1 * early[0].default_month.notna().mean()
