"""Whether decisions are right, consistent and truly explained: one page on a finished run, each figure beside an earlier one.

Run it as ``python -m benchmarks.decisions`` after ``make demo`` (some minutes). It reads the tables and champions below FINRISK_HOME, of
every source that was run there. What it measures:

- *payday*: the decisions on people by their payday, and scores after every payday has moved;
- *consistency*: every offer is applied for from the ledger and decided by loan default;
- *truth of reasons*: every sentence is read back and checked against the value (`benchmarks.reason_truth`), and refusals are decided again
  with the named factors changed (`benchmarks.reason_fidelity`);
- *realised profit*: offers by the simulator's own cash flows, beside an oracle that knows the hidden state;
- *review worth*: what reviews of the last four weeks saved, and what those of the highest worth would have.
"""

import argparse
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np

from benchmarks import reason_fidelity, reason_truth, reasons
from finrisk_assets.domains.loan_default.decide import APPROVE
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.domains.transaction_anomaly.decide import compute_savings
from finrisk_assets.graph.stages import consistency as stage
from finrisk_assets.graph.stages.common import champion_folder, load_bundle
from finrisk_assets.graph.stages.relations import measure_relations
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import sources
from finrisk_assets.modelling.evaluation import consistency, metamorphic, metrics
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.scoring.loan_decision import LoanTerms, decide_loans
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

EARLIER_DATE = "2026-11-28"
"""Day on which the earlier figures were measured, on the ledger of 2,000 people over 24 months."""

EARLIER = {
    "approved_1_to_3": "0.2 %",
    "approved_10_to_31": "84 to 86 %",
    "offer_1_to_3": "5,098",
    "offer_10_to_31": "7,179",
    "inconsistent": "42 %",
    "high_risk": "49 %",
    "false_spending": "10 %",
    "false_review": "19 %",
    "profit_captured": "25 %",
    "review_gain": "+6,418 [4,401, 7,920] with a quarter of the reviews",
}
"""Figures of then, before decisions rested on complete months, one valuation and claims with predicates."""

TARGET_FLIPS, TARGET_PROFIT = 0.9, 0.95
"""Demanded shares: of refusals that flip, and of the oracle's profit."""
REVIEW_DAYS = 28
DRAWS = 500
"""Bootstrap draws of an interval."""
STORED = ("simulator", "berka", "karlan_zinman")
"""Sources whose runs are looked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--decisions", type=int, default=25_000, help="decisions of each domain and source whose sentences are checked")
    parser.add_argument("--only", choices=list(SECTIONS), help="one section alone")
    given = parser.parse_args()
    began, environment = time.perf_counter(), Settings.from_environment()
    settings = Settings(home=environment.home, data_dir=environment.data_dir, source="simulator", policy=environment.policy)
    if not champion_folder(LOAN_DEFAULT, settings).is_dir():
        parser.error(f"there is no champion below {settings.root}: run `make demo` first")
    print(f"Each figure beside that of {EARLIER_DATE}, in brackets [ ].")
    for name, report in SECTIONS.items():
        if given.only in (None, name):
            print(f"\n{name}")
            for line in report(settings, given.decisions):
                print(f"  {line}")
    print(f"\n{time.perf_counter() - began:.0f} s in all")


# Payday ------------------------------------------------------------------------------------------------------------------------


def report_payday(settings: Settings, _: int) -> Iterator[str]:
    """Yield the decisions on people by payday, those that the truth gives, and the changes after payday has moved."""
    warehouse, source = Warehouse(url=settings.warehouse), sources.load(settings)
    people = stage.add_up_people(stage.select_offers(warehouse, settings), warehouse)
    newest = people_at_newest_month(warehouse, settings)
    decided = decide_loans_by_truth(warehouse, settings).merge(people[["group"]], left_on="customer_id", right_index=True)
    shares: dict[str, list[float]] = {"said": [], "true": []}
    for name in consistency.list_pay_groups(people):
        sums, now, of = people[people.group == name].sum(numeric_only=True), newest[newest.group == name], decided[decided.group == name]
        shares["said"].append(float(of.is_approved.mean()))
        shares["true"].append(float(of.is_approved_by_truth.mean()))
        then = f" [{EARLIER[f'approved_{name}']}; offer {EARLIER[f'offer_{name}']}]" if f"approved_{name}" in EARLIER else ""
        yield (
            f"paid on days {name.replace('_to_', ' to '):9} {len(now):5} people: {now.is_approved.mean():6.1%} of the newest applications "
            f"approved, {sums.n_approved / sums.n_applications:6.1%} of all; {sums.n_defaults / sums.n_loans:6.1%} of the loans defaulted; "
            f"mean offer {sums.amount / sums.n_offers:,.0f}, {sums.in_incomes / sums.n_offers:.2f} incomes{then}"
        )
        yield (
            f"{'':23} {len(of):5} loans: {of.is_approved.mean():6.1%} approved, {of.is_approved_by_truth.mean():6.1%} by the true "
            f"probability and income; true PD {of.true_pd.mean():.1%}"
        )
    spread = {name: max(values) - min(values) for name, values in shares.items()}
    more = spread["said"] - spread["true"]
    verdict = judge(more, consistency.MAX_APPROVAL_EXCESS, ".1%")
    yield f"approvals of loans lie apart by {spread['said']:.1%}, by the truth {spread['true']:.1%}; the difference is {verdict}"
    excess = consistency.measure_approval_excess(people, settings.seed)
    yield f"approvals of applications lie farther apart than defaults by {excess.value:+.1%} [{excess.low:+.1%}, {excess.high:+.1%}]"
    yield f"offers in usual incomes lie apart by {judge(consistency.measure_offer_gap(people), consistency.MAX_OFFER_GAP, '.1%')}"
    for domain in DOMAINS:
        if champion_folder(domain, settings).is_dir():
            figures = {each.metric: each.value for each in measure_relations(domain, source, warehouse, bundle_of(domain, settings))}
            mean, changed = figures["payday_mean_change"], figures["payday_changed_share"]
            most = metamorphic.MAX_OFFER_MEAN_CHANGE if domain.name == "loan_offers" else metamorphic.MAX_MEAN_CHANGE
            yield (
                f"payday 10 days later, {domain.name:22} mean change {judge(mean, most, '.4f')}, "
                f"other decisions {judge(changed, metamorphic.MAX_CHANGED_SHARE, '.2%')}"
            )


def people_at_newest_month(warehouse: Warehouse, settings: Settings) -> "pd.DataFrame":
    """Return the newest month-end application of each person with a payday: ``group`` and ``is_approved``."""
    scores = warehouse.table("scores_loan_default")
    standing = scores.filter(scores.loan_id.re_search(r"@\d{4}-\d{2}$"))
    newest = standing.filter(standing.applied_at == standing.applied_at.max())
    people = stage.add_up_people(stage.select_offers(warehouse, settings), warehouse)
    frame = newest.select("customer_id", is_approved=newest.decision == APPROVE).to_pandas()
    return frame.merge(people[["group"]], left_on="customer_id", right_index=True)


def decide_loans_by_truth(warehouse: Warehouse, settings: Settings) -> "pd.DataFrame":
    """Return the loans of the ledger with the champion's decision, and the one by the true PD and the true income at their own terms."""
    scores, loans, truth = (warehouse.table(name) for name in ("scores_loan_default", "validated_loans", "truth_loans"))
    joined = scores.select("loan_id", "customer_id", is_approved=scores.decision == APPROVE)
    joined = joined.join(truth.select("loan_id", "true_pd", "true_income_amount"), "loan_id")
    joined = joined.join(loans.select("loan_id", "loan_amount", "annual_rate_pct", "term_months", "instalment_amount"), "loan_id")
    frame = joined.to_pandas()
    of = {name: frame[name].to_numpy(float) for name in frame.columns if name not in ("loan_id", "customer_id")}
    terms = LoanTerms(of["loan_amount"], of["annual_rate_pct"], of["term_months"], of["instalment_amount"], of["true_income_amount"])
    return frame.assign(is_approved_by_truth=decide_loans(of["true_pd"], terms, load_policy(settings)).is_approved)


# Consistency -------------------------------------------------------------------------------------------------------------------


def report_consistency(settings: Settings, _: int) -> Iterator[str]:
    """Yield how many offers loan default would not approve, and how many go to HIGH spending risk."""
    warehouse, source = Warehouse(url=settings.warehouse), sources.load(settings)
    figures = {each.metric: each.value for each in stage.measure_consistency(source, warehouse, settings)}
    n, refused, high = (figures[name] for name in ("n_offers", "n_inconsistent_offers", "n_high_risk_offers"))
    yield f"{refused:.0f} of {n:,.0f} offers would be referred or refused at the same terms and moment [{EARLIER['inconsistent']}]"
    yield f"{high:.0f} of {n:,.0f} offers go to people of HIGH spending risk [{EARLIER['high_risk']}]"


# Reasons -----------------------------------------------------------------------------------------------------------------------


def report_reasons(settings: Settings, limit: int) -> Iterator[str]:
    """Yield how many sentences are false, and how many refusals flip when their reasons change."""
    total = reason_truth.Truth()
    for source in STORED:
        of_source = Settings(home=settings.home, data_dir=settings.data_dir, source=source, policy=settings.policy)
        if (of_source.root / "champions").is_dir():
            yield f"{source}:"
            total.add(reasons.print_truth(of_source, limit))
    yield (
        f"{len(total.false)} of {total.sentences:,} sentences of {total.decisions:,} decisions are false, {total.contradictions} "
        f"contradictions [false: {EARLIER['false_spending']} of the spending decisions, {EARLIER['false_review']} of the reviews]"
    )
    folder = champion_folder(LOAN_DEFAULT, settings)
    bundle, held = bundle_of(LOAN_DEFAULT, settings), reasons.stored(settings, folder, LOAN_DEFAULT)
    found = reasons.compare(bundle, held, "refer_from")
    threshold = bundle.thresholds["refuse_from"]
    for population, rows in reasons.refused(bundle, held, threshold):
        told = reason_fidelity.flips(bundle, rows, found.choices["reasons"], found.ordinary, threshold)
        verdict = "reached" if told.rate.value >= TARGET_FLIPS else "MISSED"
        yield f"{told.n} refused of the {population}: {told.rate} are not refused with the named factors changed; {TARGET_FLIPS}: {verdict}"


# Profit ------------------------------------------------------------------------------------------------------------------------


def report_profit(settings: Settings, _: int) -> Iterator[str]:
    """Yield the profit of the offers on the test window as a share of the oracle's, and what it gains over each plain policy."""
    stored = Warehouse(url=settings.warehouse).table("oracle_loan_offers").to_pyarrow().to_pylist()
    figures = {row["metric"]: row for row in stored}

    def share(metric: str) -> str:
        row = figures[metric]
        return f"{row['value']:6.1%} [{row['low']:.1%}, {row['high']:.1%}]"

    captured = figures["profit_captured"]["value"]
    verdict = "reached" if captured >= TARGET_PROFIT else "MISSED"
    yield f"{'the champion':24} {share('profit_captured')} of the oracle's; {TARGET_PROFIT:.0%}: {verdict} [{EARLIER['profit_captured']}]"
    yield f"{'as played':24} {share('profit_captured_as_played')}, by what happened to each customer"
    for policy in ("one_rate", "tiered_rates", "lowest_rate", "undated_profit"):
        gain = figures[f"profit_gain_over_{policy}"]
        verdict = "significant" if gain["low"] > 0 else "NOT significant"
        words = "the earlier rule" if policy == "undated_profit" else policy.replace("_", " ")
        yield f"{words:24} {share(f'profit_captured_{policy}')}; the champion gains {share(f'profit_gain_over_{policy}')}, {verdict}"
    beyond = figures["offers_beyond_true_limits"]["value"]
    yield f"{beyond:.1%} of the offers would not be approved by the true probability and income"


# Reviews -----------------------------------------------------------------------------------------------------------------------


def report_reviews(settings: Settings, _: int) -> Iterator[str]:
    """Yield what the reviews of the last four weeks saved, and what those of the highest worth would have under the same capacity."""
    rows, rules = read_last_weeks(settings), load_policy(settings).transaction_anomaly
    amount, fraud, decision = rows.amount.to_numpy(float), rows.is_fraud.to_numpy(bool), rows.decision.to_numpy(str)
    is_blocked = decision == "block"
    worth = np.where(is_blocked, -np.inf, rows.probability.to_numpy(float) * amount - rules.review_cost_amount)
    rank = rows.assign(worth=worth).groupby("day").worth.rank(method="first", ascending=False).to_numpy()
    rank_by_score = rows[~is_blocked].groupby("day").probability.rank(method="first", ascending=False).reindex(rows.index).to_numpy()
    is_chosen = (worth > 0) & (rank <= rules.reviews_per_day)
    by_worth = np.select([is_blocked, is_chosen], ["block", "review"], "allow")
    by_score = np.select([is_blocked, rank_by_score <= rules.reviews_per_day], ["block", "review"], "allow")
    saved = {
        name: compute_savings(amount, fraud, each, rules) for name, each in (("made", decision), ("worth", by_worth), ("score", by_score))
    }
    days = rows.day.factorize()[0]
    per_day = {name: np.bincount(days, weights=each) for name, each in saved.items()}

    def gain(name: str, over: str) -> str:
        interval = metrics.bootstrap_interval(
            lambda a, b: float((a - b).sum()), per_day[name], per_day[over], draws=DRAWS, seed=settings.seed
        )
        return f"{interval.value:+,.0f} [{interval.low:+,.0f}, {interval.high:+,.0f}]"

    yield f"{len(rows):,} transactions of {REVIEW_DAYS} days, {int(fraud.sum())} frauds; at most {rules.reviews_per_day} reviews a day"
    for name, each, words in (
        ("score", by_score, "the highest scores"),
        ("made", decision, "as decided"),
        ("worth", by_worth, "the highest worth, known at the day's end"),
    ):
        yield f"{words:42} {(each == 'review').sum():6,} reviews, {saved[name].sum():10,.0f} saved"
    yield f"as decided more than the highest scores: {gain('made', 'score')} [{EARLIER['review_gain']}]"
    yield f"the highest worth more than as decided: {gain('worth', 'made')}"


def read_last_weeks(settings: Settings) -> "pd.DataFrame":
    """Return the scored transactions of the last four weeks whose label is known: probability, decision, amount, ``is_fraud``, ``day``."""
    warehouse = Warehouse(url=settings.warehouse)
    scores, movements = warehouse.table("scores_transaction_anomaly"), warehouse.table("validated_transactions")
    since = movements.occurred_at.max().to_pyarrow().as_py() - timedelta(days=REVIEW_DAYS)
    known = movements.filter((movements.occurred_at > since) & movements.is_fraud.notnull())
    known = known.select("transaction_id", "amount", "is_fraud", day=known.occurred_at.date().cast("string"))
    return scores.select("transaction_id", "probability", "decision").join(known, "transaction_id").order_by("transaction_id").to_pandas()


def bundle_of(domain, settings):  # type: ignore[no-untyped-def]
    """Return the champion of a domain under the policy in effect."""
    return load_bundle(champion_folder(domain, settings), domain, settings)


def judge(value: float, bound: float, form: str) -> str:
    """Return a figure with its bound and whether it is kept; both in a format such as ``.1%``."""
    return f"{value:{form}} (at most {bound:{form}}: {'kept' if value <= bound else 'MISSED'})"


SECTIONS = {
    "payday": report_payday,
    "consistency": report_consistency,
    "truth of reasons": report_reasons,
    "realised profit": report_profit,
    "review worth": report_reviews,
}
"""Section -> the function that yields its lines."""


if __name__ == "__main__":
    main()
