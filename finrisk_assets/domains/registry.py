"""The list of domains. Everything that has to go through all of them starts here."""

from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.cashflow.definition import CASHFLOW
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.loan_offers.definition import LOAN_OFFERS
from finrisk_assets.domains.spending_risk.definition import SPENDING_RISK, SPENDING_RISK_EIGHT
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.ledger.month_totals import MONTH_TOTALS
from finrisk_assets.ledger.sources.source_definition import Source

DOMAINS: tuple[Domain, ...] = (SPENDING_RISK, SPENDING_RISK_EIGHT, LOAN_DEFAULT, CASHFLOW, LOAN_OFFERS, TRANSACTION_ANOMALY)


def domains_of(source: Source) -> list[Domain]:
    """Return the domains that a source has the tables for."""
    return [domain for domain in DOMAINS if domain.unavailable_reason(source) is None]


def totals_of(source: Source) -> list[str]:
    """Return the totals of months that the domains of a source read."""
    read = {table for domain in domains_of(source) for table in domain.list_inputs(source)}
    return [name for name in MONTH_TOTALS if name in read]


def left_out(source: Source) -> dict[str, str]:
    """Return for each domain without a model the reason why the source has none."""
    reasons = {domain.name: domain.unavailable_reason(source) for domain in DOMAINS}
    return {name: reason for name, reason in reasons.items() if reason is not None}
