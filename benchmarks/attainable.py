"""AUC of each champion beside the best attainable from the ledger and the oracle that knows the hidden state, on the simulator.

    python -m benchmarks.attainable [--customers 600] [--times 20] [--seeds 1] [--domains loan_default ...] [--minutes 20]

The champion learns from a small ledger as the graph trains it. The attainable model learns, in the same way, from another economy with the
same numbers and `--times` as many people. Both are judged on the small ledger's test window. No domain is begun after `--minutes`.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import ibis

from finrisk_assets.domains import registry
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.classifier import ClassifierDomain
from finrisk_assets.ledger import contract, sources
from finrisk_assets.ledger.sources.simulator import economy_from_settings
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.evaluation import oracle
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

OTHER_SEED = 1_000_003
"""Added to the seed for the people that the attainable model learns from."""


@dataclass(frozen=True)
class LoadedLedger:
    """A ledger after its contract, and the folder of its files."""

    settings: Settings
    source: Source
    tables: Mapping[str, ibis.Table]
    folder: Path

    def features(self, domain: Domain) -> "pd.DataFrame":
        """Return the domain's feature table, in the order of its key."""
        names = [*domain.tables, "customers", "accounts", "transactions", "loans", "offers"]
        tables = {name: self.tables[name] for name in dict.fromkeys(names) if name in self.tables}
        return domain.build_features(tables, self.source).order_by([domain.decision_time, domain.keys[0].name]).execute()

    def truth(self, domain: Domain) -> "pd.DataFrame":
        """Return the domain's truth table."""
        import pandas as pd

        path = self.folder / f"{domain.truth}.parquet"
        if not path.exists():
            self.source.truth[domain.truth](path)
        return pd.read_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=600, help="people in the champion's ledger")
    parser.add_argument("--times", type=int, default=20, help="how many times the people the attainable model learns from")
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--domains", nargs="+", default=[domain.name for domain in registry.DOMAINS])
    parser.add_argument("--minutes", type=float, default=20.0, help="no domain is begun later than this")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    print("AUC on the test window; gaps with DeLong's 95 % interval, paired")
    gaps = f"{'to the attainable':24}{'to the oracle':24}"
    print(f"seed {'domain':22}{'champion':>9}{'attainable':>11}{'oracle':>8}  {gaps}    s")
    for seed in given.seeds:
        small = Settings(
            sim_customers=given.customers, sim_months=given.months, seed=seed, threads=given.threads, as_of=datetime(2025, 7, 1)
        )  # fmt: skip
        many = replace(
            small,
            sim_customers=given.customers * given.times,
            seed=seed + OTHER_SEED,
            sim_fraud_rate=economy_from_settings(small).fraud_rate,
        )
        with tempfile.TemporaryDirectory() as folder:
            ledgers = [load(settings, Path(folder) / name) for name, settings in (("small", small), ("many", many))]
            for domain in registry.DOMAINS:
                if domain.name not in given.domains:
                    continue
                if time.monotonic() - began > 60 * given.minutes:
                    print(f"{seed:>4} {domain.name:22}not begun: the {given.minutes:g} minutes are over")
                    continue
                try:
                    print(f"{seed:>4} {compare(domain, *ledgers)}", flush=True)
                except ValueError as error:  # so few people that a window has no outcome
                    print(f"{seed:>4} {domain.name:22}not trained: {error}")


def load(settings: Settings, folder: Path) -> LoadedLedger:
    """Simulate a ledger and bring it through its contract."""
    source, engine = sources.load(settings), ibis.duckdb.connect()
    tables: dict[str, ibis.Table] = {}
    folder.mkdir()
    for name, raw in source.tables.items():
        path = folder / f"{name}.parquet"
        raw.land(path)
        landed = engine.read_parquet(path, table_name=f"raw_{name}")
        tables[name] = engine.create_table(name, contract.split(raw.table, raw.columns, landed, tables, settings.now).valid)
    return LoadedLedger(settings, source, tables, folder)


def compare(domain: Domain, small: LoadedLedger, many: LoadedLedger) -> str:
    """Train both models, judge both on the small ledger's test window, and return the line that says how they do."""
    began = time.monotonic()
    frame = small.features(domain)
    champion, attainable = (train(domain, ledger, ledger.features(domain)) for ledger in (small, many))
    window = domain.score_test_window(frame, champion, small.settings)
    best = domain.score_test_window(frame, attainable, small.settings).probability
    true = find_truth(domain, window.frame, small.truth(domain))
    known = true == true
    figures = oracle.compare_with_attainable(window.labels[known], window.probability[known], best[known], true[known])
    areas = "".join(f"{figures[name].value:>{width}.4f}" for name, width in (("auc", 9), ("attainable_auc", 11), ("oracle_auc", 8)))
    gaps = "".join(f"{figures[name]!s:24}" for name in ("gap_to_attainable", "gap_to_oracle"))
    return f"{domain.name:22}{areas}  {gaps}{time.monotonic() - began:>5.0f}"


def train(domain: Domain, ledger: LoadedLedger, frame: "pd.DataFrame") -> Bundle:
    """Return the bundle that the graph would train on a ledger."""
    features = domain.select_features(ledger.source)
    return Bundle(domain.train(frame, features, ledger.source, ledger.settings).spec, "")


def find_truth(domain: Domain, rows: "pd.DataFrame", truth: "pd.DataFrame") -> "np.ndarray":
    """Return the true probability of each row, NaN where it is not known; a transaction that the truth does not name has 0."""
    if isinstance(domain, ClassifierDomain):
        joined = rows[[*domain.truth_key]].merge(truth, on=[*domain.truth_key], how="left", validate="one_to_one")
        return joined[domain.truth_probability].to_numpy(dtype=float)
    joined = rows[["transaction_id"]].merge(truth, on="transaction_id", how="left", validate="one_to_one")
    return joined.fraud_probability.fillna(0.0).to_numpy(dtype=float)


if __name__ == "__main__":
    main()
