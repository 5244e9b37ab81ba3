"""The last tables of the demonstration: what the models showed, and whether the decisions on all people agree."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

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
    from rich.markup import escape

    from finrisk_assets.ledger.contract import count_by_rule

    refused = [name for name in tables if warehouse.has(f"quarantine_{name}") and warehouse.table(f"quarantine_{name}").count().execute()]
    for name in refused:
        rows, n_refused = (int(warehouse.table(f"{layer}_{name}").count().execute()) for layer in ("raw", "quarantine"))
        rules = list(count_by_rule(warehouse.table(f"quarantine_{name}")).items())
        named = ", ".join(f"{rule} ({count:,})" for rule, count in rules[:3]) + (", …" if len(rules) > 3 else "")
        console.print(f"  [yellow]–[/] {n_refused:,} of {rows:,} rows of {name} are in quarantine: {escape(named)}")
    if refused:
        console.print("  `finrisk quarantine` shows examples and the fix of each rule.")


def print_model_figures(domains: "list[Domain]", warehouse: "Warehouse", console: "Console") -> None:
    """Print what each champion showed on its test window, beside the oracle where the truth is known."""
    from rich.table import Table

    table = Table(title="Models on their test windows, beside an oracle where the truth is known", title_justify="left")
    for heading in ("domain", "rows", "AUC [95 %]", "oracle AUC", "gap", "calibration error", "more"):
        table.add_column(heading, justify="left" if heading in ("domain", "more") else "right")
    for domain in domains:
        tested = {row["metric"]: row for row in warehouse.table(f"evaluation_{domain.name}").to_pyarrow().to_pylist()}
        has_oracle = warehouse.has(f"oracle_{domain.name}")
        true = {row["metric"]: row for row in warehouse.table(f"oracle_{domain.name}").to_pyarrow().to_pylist()} if has_oracle else {}
        auc = true.get("auc") or tested.get("auc")
        calibration = true.get("calibration_error") or tested.get("expected_calibration_error")
        table.add_row(
            domain.title,
            f"{(true.get('n_truth') or tested['n_test'])['value']:,.0f}",
            f"{auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" if auc else "–",
            f"{true['oracle_auc']['value']:.3f}" if true else "–",
            f"{true['auc_gap']['value']:+.3f}" if true else "–",
            f"{calibration['value']:.3f}" if calibration else "–",
            "; ".join(f"{words} {row['value']:.{digits}%}" for words, digits, row in _domain_figures(tested | true)) or "–",
        )
    console.print(table)


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
    from rich.table import Table

    from finrisk_assets.graph.stages.consistency import ASSET
    from finrisk_assets.modelling.evaluation.consistency import MAX_APPROVAL_EXCESS, MAX_OFFER_GAP, PAY_GROUPS

    if not warehouse.has(ASSET):
        return
    stored = {row["metric"]: row for row in warehouse.table(ASSET).to_pyarrow().to_pylist()}
    figures = {metric: row["value"] for metric, row in stored.items()}
    table = Table(title="Consistency of the decisions on all people", title_justify="left")
    for heading in ("question", "figure", "of", "bound"):
        table.add_column(heading, justify="left" if heading == "question" else "right")
    n_offers = f"{figures['n_offers']:,.0f} offers"
    refused = "offers that loan default would refer or refuse at the same terms and moment"
    table.add_row(refused, f"{figures['n_inconsistent_offers']:.0f}", n_offers, "0")
    table.add_row("offers to people of HIGH spending risk", f"{figures['n_high_risk_offers']:.0f}", n_offers, "0, by the default policy")
    if "payday_approval_excess" in figures:
        excess = stored["payday_approval_excess"]
        told = f"{excess['value']:+.1%} [{excess['low']:+.1%}, {excess['high']:+.1%}]"
        table.add_row("approvals lie farther apart by payday than defaults, by", told, "applications", f"{MAX_APPROVAL_EXCESS:.0%}")
        table.add_row("offers lie apart by payday, by", f"{figures['payday_offer_gap']:.1%}", "usual incomes", f"{MAX_OFFER_GAP:.0%}")
    console.print(table)
    by_payday = Table(title="Decisions by payday", title_justify="left")
    for heading in ("paid on days", "people", "applications approved", "loans defaulted", "mean offer", "in usual incomes"):
        by_payday.add_column(heading, justify="left" if heading == "paid on days" else "right")
    forms = {"n_people": ",.0f", "approved_share": ".1%", "default_share": ".1%", "offer_amount": ",.0f", "offer_in_incomes": ".2f"}
    for name in PAY_GROUPS:
        if f"n_people_paid_{name}" in figures:
            values = ((figures.get(f"{metric}_paid_{name}"), form) for metric, form in forms.items())
            by_payday.add_row(name.replace("_to_", " to "), *("–" if value is None else format(value, form) for value, form in values))
    if by_payday.row_count:
        console.print(by_payday)
