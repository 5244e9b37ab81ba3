"""The last tables of the demonstration: what the models showed, and whether the decisions on all people agree."""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bento.cli.output import EMPTY, format_table

if TYPE_CHECKING:
    from rich.console import Console

    from finrisk_assets.domains.base import Domain
    from finrisk_assets.graph.warehouse import Warehouse
    from finrisk_assets.settings import Settings


def print_parity(settings: "Settings", console: "Console") -> None:
    """Print the parity certificate of each domain whose features the service computes itself."""
    from rich.markup import escape

    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.graph.parity_certificate import CertificateError, describe_certificate, read_certificate
    from finrisk_assets.ledger import sources

    for domain in domains_of(sources.load(settings)):
        if not domain.is_computed_in_service:
            continue
        try:
            certificate = read_certificate(domain, settings)
        except CertificateError as error:
            console.print(f"  [red]✗[/] parity: {escape(str(error))}")
            continue
        mark = "[green]✓[/]" if certificate["is_equal"] else "[red]✗[/]"
        console.print(f"  {mark} parity of batch and service, {escape(describe_certificate(certificate))}")


def print_quarantine(tables: Iterable[str], warehouse: "Warehouse", console: "Console") -> None:
    """Print the tables with rows in quarantine: how many, and the rules that they broke most often."""
    from finrisk_assets.ledger.contract import count_by_rule

    refused = [name for name in tables if warehouse.has(f"quarantine_{name}") and warehouse.table(f"quarantine_{name}").count().execute()]
    for name in refused:
        rows, n_refused = (int(warehouse.table(f"{layer}_{name}").count().execute()) for layer in ("raw", "quarantine"))
        rules = list(count_by_rule(warehouse.table(f"quarantine_{name}")).items())
        named = ", ".join(f"{rule} ({count:,})" for rule, count in rules[:3]) + (", …" if len(rules) > 3 else "")
        said = f"– {n_refused:,} of {rows:,} rows of {name} are in quarantine: {named}"
        _print(console, textwrap.fill(said, WIDTH, initial_indent="  ", subsequent_indent="    "))
    if refused:
        _print(console, "  `./finrisk quarantine` shows examples and the fix of each rule.")


class DecisionRow(NamedTuple):
    """A decision as the demonstration shows it: the cells of `DECISION_HEADINGS`, and a line for each reason."""

    cells: tuple[str, ...]
    reasons: str


DECISION_HEADINGS = ("domain", "subject", "decision", "prob.", "score", "batch", "ms")
WIDTH = 80
"""Columns of every table: those of the narrowest terminal, and of a pipe."""


def print_decisions(rows: Sequence[DecisionRow], console: "Console") -> None:
    """Print what the service decided on the examples, each with its reasons below."""
    heads, *lines = format_table(DECISION_HEADINGS, [row.cells for row in rows], width=max(WIDTH, console.width))
    _print(console, "Decisions of the served Bento", heads)
    for line, row in zip(lines, rows, strict=True):
        reasons = [textwrap.fill(reason, WIDTH, initial_indent="    ", subsequent_indent="      ") for reason in row.reasons.splitlines()]
        _print(console, line, *reasons)


def _print(console: "Console", *lines: str) -> None:
    """Print lines as they are: rich would read brackets as its own marks."""
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _share(value: float, sign: str = "") -> str:
    """Return a number of at most 1 with three decimals and without its zero: ``.816``."""
    return f"{value:{sign}.3f}".replace("0.", ".", 1)


def print_model_figures(domains: "list[Domain]", warehouse: "Warehouse", console: "Console") -> None:
    """Print what each champion showed on its test window, beside the oracle where the truth is known."""
    rows, more = [], []
    for domain in domains:
        tested = {row["metric"]: row for row in warehouse.table(f"evaluation_{domain.name}").to_pyarrow().to_pylist()}
        has_oracle = warehouse.has(f"oracle_{domain.name}")
        true = {row["metric"]: row for row in warehouse.table(f"oracle_{domain.name}").to_pyarrow().to_pylist()} if has_oracle else {}
        auc = true.get("auc") or tested.get("auc")
        calibration = true.get("calibration_error") or tested.get("expected_calibration_error")
        rows.append(
            (
                domain.title,
                f"{(true.get('n_truth') or tested['n_test'])['value']:,.0f}",
                f"{_share(auc['value'])} [{_share(auc['low'])}, {_share(auc['high'])}]" if auc else EMPTY,
                _share(true["oracle_auc"]["value"]) if "oracle_auc" in true else EMPTY,
                _share(true["auc_gap"]["value"], "+") if "auc_gap" in true else EMPTY,
                _share(calibration["value"]) if calibration else EMPTY,
            )
        )
        figures = "; ".join(f"{words} {row['value']:.{digits}%}" for words, digits, row in _domain_figures(tested | true))
        more += [textwrap.fill(f"{domain.title}: {figures}", WIDTH, subsequent_indent="  ")] if figures else []
    headings = ("domain", "rows", "AUC [95 %]", "oracle", "gap", "calib.")
    title = "\nModels on their test windows, beside an oracle where the truth is known\n(calib.: calibration error)"
    _print(console, *format_table(headings, rows, title, width=WIDTH), *more)


_DOMAIN_FIGURES = {
    "average_precision": ("average precision", 1),
    "interval_coverage": ("80 % interval covers", 1),
    "profit_captured": ("of the oracle's profit", 1),
    "profit_captured_one_rate": ("one rate", 1),
    "profit_captured_tiered_rates": ("tiered rates", 1),
    "profit_captured_lowest_rate": ("lowest rate", 1),
}
"""Figures that one domain alone has: metric -> words and digits."""


def _domain_figures(figures: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, int, Mapping[str, Any]]]:
    for metric, (words, digits) in _DOMAIN_FIGURES.items():
        if metric in figures:
            yield words, digits, figures[metric]


def print_consistency(warehouse: "Warehouse", console: "Console") -> None:
    """Print how many offers contradict another decision, and the decisions by payday; nothing where the source has no such offers."""
    from finrisk_assets.graph.stages.consistency import ASSET
    from finrisk_assets.modelling.evaluation.consistency import MAX_APPROVAL_EXCESS, MAX_OFFER_GAP, PAY_GROUPS

    if not warehouse.has(ASSET):
        return
    stored = {row["metric"]: row for row in warehouse.table(ASSET).to_pyarrow().to_pylist()}
    figures = {metric: row["value"] for metric, row in stored.items()}
    refused = f"{figures['n_inconsistent_offers']:.0f} that loan default would refer or refuse at the same terms and moment (bound 0)"
    lines = [refused, f"{figures['n_high_risk_offers']:.0f} to people of HIGH spending risk (bound 0, by the default policy)"]
    if "payday_approval_excess" in figures:
        excess = stored["payday_approval_excess"]
        told = f"{excess['value']:+.1%} [{excess['low']:+.1%}, {excess['high']:+.1%}]"
        lines.append(f"approvals lie farther apart by payday than defaults, by {told} (bound {MAX_APPROVAL_EXCESS:.0%})")
        lines.append(f"offers lie apart by payday, by {figures['payday_offer_gap']:.1%} of usual incomes (bound {MAX_OFFER_GAP:.0%})")
    title = f"\nConsistency of the decisions on all people, of {figures['n_offers']:,.0f} offers"
    _print(console, title, *(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    ") for line in lines))
    forms = {"n_people": ",.0f", "approved_share": ".1%", "default_share": ".1%", "offer_amount": ",.0f", "offer_in_incomes": ".2f"}
    rows = []
    for name in PAY_GROUPS:
        if f"n_people_paid_{name}" in figures:
            values = ((figures.get(f"{metric}_paid_{name}"), form) for metric, form in forms.items())
            cells = (EMPTY if value is None else format(value, form) for value, form in values)
            rows.append((name.replace("_to_", " to "), *cells))
    if rows:
        headings = ("paid on days", "people", "approved", "defaulted", "mean offer", "in usual incomes")
        _print(console, *format_table(headings, rows, "\nDecisions by payday", width=WIDTH))
