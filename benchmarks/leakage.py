"""What the leakage linter finds: on real data as it is, with a known leak, and on the stores of finished demonstrations.

Run it as ``python -m benchmarks.leakage [STORE ...]`` (about a minute): each STORE is a DuckDB warehouse that `make demo` left, say
``.finrisk/simulator/warehouse.duckdb``; it is opened read-only. Taiwan and Bank Marketing are read from FINRISK_DATA_DIR.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import ibis
import numpy as np
import pandas as pd

from finrisk_assets.build import DOMAINS
from finrisk_assets.domain import Domain
from finrisk_assets.ledger.sources import load
from finrisk_assets.modelling import leakage
from finrisk_assets.settings import Settings

LABELS = {
    "spending_risk": "is_trouble",
    "loan_default": "is_default",
    "cashflow": "is_surplus",
    "loan_offers": "is_accepted",
    "transaction_anomaly": "is_fraud",
}
BEFORE: Mapping[str, tuple[str, ...]] = {"transaction_anomaly": ()}
"""Where a transaction is itself what is decided on, it is known at its own moment."""


@dataclass(frozen=True)
class Panel:
    """Rows with a known outcome, and what to lint them by."""

    name: str
    frame: pd.DataFrame
    features: Sequence[str]
    label: str
    moment: str | None
    group: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", type=Path, help="warehouses of finished demonstrations")
    given = parser.parse_args()
    for store in given.stores:
        of_store(store)
    settings = Settings.from_environment()
    show(taiwan(settings.data_dir))
    plain = bank_marketing(settings.data_dir)
    show(plain)
    show(without(plain, "duration"))


def show(panel: Panel) -> list[leakage.Finding]:
    """Lint one panel and print what is found."""
    started = time.perf_counter()
    found = leakage.lint(panel.frame, panel.features, panel.label, moment=panel.moment, group=panel.group)
    report(f"{panel.name}: {len(panel.frame)} rows, {len(panel.features)} features", found, time.perf_counter() - started)
    return found


def report(what: str, found: Sequence[leakage.Finding], seconds: float) -> None:
    print(f"{what}, {seconds:.1f} s: {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}")
    for finding in found:
        print(f"  {finding}")


def of_store(store: Path) -> None:
    """Lint every feature table of a store, and compute its features from ledgers cut off at the decision."""
    connection = ibis.duckdb.connect(store, read_only=True)
    held = set(connection.list_tables(database="analytics"))
    source = load(Settings(source=store.parent.name))
    for domain in DOMAINS:
        if f"features_{domain.name}" not in held or domain.features_of:
            continue
        stored = connection.table(f"features_{domain.name}", database="analytics")
        names = [feature.name for feature in domain.features(source)]
        label = LABELS[domain.name]
        frame = stored.filter(stored[label].notnull()).order_by(domain.keys[0].name).to_pandas()
        show(Panel(f"{store.parent.name} {domain.name}", frame, names, label, domain.moment, "customer_id"))
        started = time.perf_counter()
        tables = {name: connection.table(f"validated_{name}", database="analytics") for name in _read(domain, held)}
        tables |= {name: connection.table(name, database="analytics") for name in domain.upstream if name in held}
        found = leakage.looks_ahead(
            lambda given, domain=domain: domain.build(given, source),
            tables,
            names,
            key=domain.keys[0].name,
            moment=domain.moment,
            before=BEFORE.get(domain.name, ("transactions",)),
        )
        report("  cut off at the decision", found, time.perf_counter() - started)


def _read(domain: Domain, held: set[str]) -> Iterator[str]:
    return (name for name in domain.tables if f"validated_{name}" in held)


def taiwan(data_dir: Path) -> Panel:
    """The credit card clients of Taiwan: no time, one row a person."""
    source = load(Settings(source="taiwan", data_dir=data_dir))
    columns = source.tables["loans"].columns
    names = [*(feature.name for feature in source.features["loan_default"]), "loan_amount"]
    file = ibis.duckdb.connect().read_csv(data_dir / "taiwan" / "UCI_Credit_Card.csv", all_varchar=True)
    frame = file.select(**{name: columns[name](file).cast("float64") for name in (*names, "is_default")}).to_pandas()
    return Panel("Taiwan", frame, names, "is_default", None, None)


def bank_marketing(data_dir: Path) -> Panel:
    """Bank Marketing with every column of the file; words become numbers in the order of the alphabet, rows are in order of time."""
    raw = pd.read_csv(data_dir / "bank_marketing" / "bank-full.csv", sep=";")
    features = [name for name in raw.columns if name != "y"]
    frame = pd.DataFrame({n: raw[n] if pd.api.types.is_numeric_dtype(raw[n]) else raw[n].astype("category").cat.codes for n in features})
    moments = np.arange(len(raw)).astype("datetime64[s]").astype("datetime64[us]")
    return Panel("Bank Marketing", frame.assign(is_deposit=raw.y == "yes", at=moments), features, "is_deposit", "at", None)


def without(panel: Panel, *names: str) -> Panel:
    kept = [name for name in panel.features if name not in names]
    return Panel(f"{panel.name} without {', '.join(names)}", panel.frame, kept, panel.label, panel.moment, panel.group)


if __name__ == "__main__":
    main()
