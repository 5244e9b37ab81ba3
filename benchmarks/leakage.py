"""Findings of the leakage linter: on real data as it is, with a known leak, and on the stores of finished demonstrations.

Run it as ``python -m benchmarks.leakage [STORE ...] [--power]``: each STORE is a DuckDB warehouse that `make demo` left, say
``.finrisk/simulator/warehouse.duckdb``; it is opened read-only. Of a store, each model's check is run as the graph runs it, on a sample;
with ``--power`` leaks of several strengths are planted and looked for at that size. Taiwan and Bank Marketing are read from
FINRISK_DATA_DIR.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import ibis
import numpy as np
import pandas as pd
from ibis.expr.types import Table as LazyTable

from benchmarks.planted_leaks import LEAKS, Plant
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import domains_of
from finrisk_assets.graph.stages import leakage as stage
from finrisk_assets.ledger.sources import load
from finrisk_assets.modelling.evaluation import leakage
from finrisk_assets.modelling.evaluation.leakage_evidence import QuickTrees, number_groups, rank
from finrisk_assets.settings import Settings

DRAWS = 10
"""Samples in which each planted leak is looked for."""


@dataclass(frozen=True)
class Panel:
    """Rows with a known outcome, and what to lint them by."""

    name: str
    frame: pd.DataFrame
    features: Sequence[str]
    label: str
    moment: str | None
    group: str | None


class Store:
    """The stored tables of a finished run, opened read-only."""

    def __init__(self, path: Path) -> None:
        self._connection = ibis.duckdb.connect(path, read_only=True)
        self._held = set(self._connection.list_tables(database="analytics"))

    def table(self, name: str) -> LazyTable:
        return self._connection.table(name, database="analytics")

    def has(self, name: str) -> bool:
        return name in self._held


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stores", nargs="*", type=Path, help="warehouses of finished demonstrations")
    parser.add_argument("--power", action="store_true", help="plant leaks into the stores' feature tables and count how many are found")
    given = parser.parse_args()
    for path in given.stores:
        of_store(path)
        if given.power:
            power(path)
    settings = Settings.from_environment()
    show(taiwan(settings.data_dir))
    plain = bank_marketing(settings.data_dir)
    show(plain)
    show(without(plain, "duration"))


def show(panel: Panel) -> list[leakage.LeakageFinding]:
    """Lint one panel and print what is found."""
    started = time.perf_counter()
    found = leakage.lint(panel.frame, panel.features, panel.label, decision_time=panel.moment, group=panel.group)
    report(f"{panel.name}: {len(panel.frame)} rows, {len(panel.features)} features", found, time.perf_counter() - started)
    return found


def report(what: str, found: Sequence[leakage.LeakageFinding], seconds: float) -> None:
    print(f"{what}, {seconds:.1f} s: {len(found) or 'no'} finding{'' if len(found) == 1 else 's'}", flush=True)
    for finding in found:
        print(f"  {finding}")


def domains(path: Path) -> Iterator[tuple[Domain, Store, Settings]]:
    settings, store = Settings(source=path.parent.name), Store(path)
    for domain in domains_of(load(settings)):
        if store.has(f"features_{domain.group}"):
            yield domain, store, settings


def of_store(path: Path) -> None:
    """Run the check of every model of a store, and say what all of them take."""
    total = 0.0
    for domain, store, settings in domains(path):
        started = time.perf_counter()
        found = stage.findings(domain, load(settings), settings, store)  # type: ignore[arg-type]
        total += (seconds := time.perf_counter() - started)
        report(f"{settings.source} {domain.name}", found, seconds)
    print(f"all models of {path.parent.name}: {total:.1f} s")


PLANTED: dict[str, Plant] = {
    "the outcome, 2 % of it wrong": lambda label, risk, draw: np.where(draw.random(len(label)) < 0.02, ~label, label).astype(float),
    "the outcome, 10 % of it wrong": lambda label, risk, draw: np.where(draw.random(len(label)) < 0.10, ~label, label).astype(float),
    "the outcome beside noise, AUC .98": lambda label, risk, draw: label * 2.9 + draw.normal(size=len(label)),
    "the outcome beside noise, AUC .95": lambda label, risk, draw: label * 2.33 + draw.normal(size=len(label)),
    "the number of the row": lambda label, risk, draw: np.arange(len(label), dtype=float),
    **LEAKS,
}


def power(path: Path) -> None:
    """Plant leaks into samples of the size that the graph lints, and count in how many they are found."""
    print(f"planted in {DRAWS} samples, found:")
    for domain, store, settings in domains(path):
        if domain.features_of:
            continue
        label, names = domain.label, [feature.name for feature in domain.select_features(load(settings))]
        found, most = dict.fromkeys(PLANTED, 0), stage.sample_size(names)
        for seed in range(DRAWS):
            frame = stage.sample(domain, load(settings), store, replace(settings, seed=seed))  # type: ignore[arg-type]
            draw, labels = np.random.default_rng(seed), frame[label].to_numpy(bool)
            if not labels.any():
                break
            risk = honest_risk(frame, names, labels)
            for name, plant in PLANTED.items():
                leaking = frame.assign(planted=plant(labels, risk, draw))
                told = leakage.lint(
                    leaking, [*names, "planted"], label, decision_time=domain.decision_time, group="customer_id", most=most, seed=seed
                )
                found[name] += any(one.column == "planted" for one in told)
        print(f"  {domain.name}, {most} rows: " + ", ".join(f"{name} {count}" for name, count in found.items()), flush=True)


def honest_risk(frame: pd.DataFrame, names: Sequence[str], labels: np.ndarray) -> np.ndarray:
    """Return the rank, from 0 to 1, of each row by a model of the other half of the people."""
    rows, people = frame[list(names)].to_numpy(float), number_groups(frame.customer_id.to_numpy())
    margin = np.zeros(len(labels))
    for half in (people % 2 == 0, people % 2 == 1):
        margin[half] = QuickTrees(rows[~half], labels[~half]).margin(rows[half])
    return rank(margin) / len(margin)


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
