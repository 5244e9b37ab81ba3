"""One month of the validated transactions, their totals, the feature tables and the scores made again, beside its share of the ledger.

    FINRISK_HOME=… python -m benchmarks.months [--rounds 3] [--warehouse postgres://…]

The home holds a finished ledger; its tables are read, and what is computed is stored under other names, which are dropped. The share of a
month is the time of all months over their number. A query is planned in Python before it runs, in a time that does not depend on the rows:
the ratio is also shown without it, which is what the ratio of a larger ledger comes to.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ibis.expr.types as ir

from benchmarks.postgres import server_cpu_s
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import domains_of, totals_of
from finrisk_assets.features.compiled import steps_apart
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.graph.partitions import MonthRange, monthly_partitions
from finrisk_assets.graph.stages.common import join_companions
from finrisk_assets.graph.stages.ledger import MONTHLY_TABLES
from finrisk_assets.graph.stages.scores import score_table
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import contract, sources
from finrisk_assets.ledger.month_totals import MONTH_TOTALS
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings

ROUNDS = 3
MONTHS_BEFORE_THE_END = (2, 6, 12)
"""Months that are made again, counted back from the ledger's last."""
COPY = "benchmark_month"


@dataclass(frozen=True)
class MonthCost:
    """The cost of a month of one asset, CPU time in s, medians over the rounds.

    Attributes
    ----------
    whole, month
        Of the whole table, and of one month, planning included.
    planning
        Of planning the query of a month in Python; the engine's own planning is part of its rows.
    n_months
        Months of the ledger.
    """

    asset: str
    whole: float
    month: float
    planning: float
    n_months: int

    @property
    def ratio(self) -> float:
        """The cost of a month over its share of the whole."""
        return self.month / (self.whole / self.n_months)

    @property
    def ratio_unplanned(self) -> float:
        """The same without planning."""
        return max(self.month - self.planning, 0.0) / (max(self.whole - self.planning, 1e-9) / self.n_months)


def measure_months(settings: Settings, rounds: int = ROUNDS) -> list[MonthCost]:
    """Return the cost of a month of every asset that is kept by months."""
    source, warehouse = sources.load(settings), Warehouse.of(settings)
    keys = monthly_partitions(source.begins, source.ends).get_partition_keys()
    spans = [MonthRange(keys[-back], keys[-back], False, False).span for back in MONTHS_BEFORE_THE_END]
    is_postgres = warehouse.engine.connection.name == "postgres"
    server = _find_server(warehouse) if is_postgres else None

    def cpu_s() -> float:
        return time.process_time() + (0.0 if server is None else server_cpu_s(server))

    costs = []
    for asset, rows_of in _builders(source, warehouse, settings).items():
        measured: dict[str, list[float]] = {"whole": [], "month": [], "planning": []}
        for _ in range(rounds):
            measured["whole"].append(_time(cpu_s, _store, warehouse, rows_of, ALL_TIMES))
            measured["month"] += [_time(cpu_s, _store, warehouse, rows_of, span) for span in spans]
            measured["planning"].append(_time(cpu_s, _plan, warehouse, rows_of, TimeSpan(spans[0].begins, spans[0].begins)))
        costs.append(MonthCost(asset, **{name: statistics.median(times) for name, times in measured.items()}, n_months=len(keys)))
    warehouse.engine.connection.drop_table(COPY, database="analytics", force=True)
    return costs


def _find_server(warehouse: Warehouse) -> int:
    import psutil

    return int(psutil.Process(warehouse.connection.con.info.backend_pid).ppid())


def _builders(source: Source, warehouse: Warehouse, settings: Settings) -> dict[str, Callable[[TimeSpan], ir.Table]]:
    """Return what makes the rows of a span, by asset."""
    builders: dict[str, Callable[[TimeSpan], ir.Table]] = {}

    def validated(name: str) -> Callable[[TimeSpan], ir.Table]:
        raw = source.tables[name]
        layers = warehouse.table(f"raw_{name}"), warehouse.table(f"quarantine_{name}")
        return lambda span: span.filter_rows(contract.valid_rows(raw.table, raw.columns, *layers), str(raw.table.event_time))

    def totals(name: str) -> Callable[[TimeSpan], ir.Table]:
        add_up, transactions = MONTH_TOTALS[name][1], warehouse.table("validated_transactions")
        return lambda span: add_up(span.filter_rows(transactions, "occurred_at"))

    def features(domain: Domain) -> Callable[[TimeSpan], ir.Table]:
        tables = {name: warehouse.table(asset) for name, asset in domain.list_inputs(source).items()}
        tables |= {name: warehouse.table(name) for name in domain.upstream if warehouse.has(name)}
        return lambda span: domain.compute_features(tables, source, span)

    def scores(domain: Domain) -> Callable[[TimeSpan], ir.Table]:
        def rows_of(span: TimeSpan) -> ir.Table:
            rows = span.filter_rows(warehouse.table(f"features_{domain.group}"), domain.decision_time)
            rows = domain.join_rules(join_companions(rows, domain, warehouse), warehouse.table, load_policy(settings))
            return score_table(rows, domain, settings, warehouse.engine)

        return rows_of

    builders |= {f"validated_{name}": validated(name) for name in MONTHLY_TABLES}
    builders |= {name: totals(name) for name in totals_of(source)}
    builders |= {f"features_{domain.name}": features(domain) for domain in domains_of(source) if not domain.features_of}
    builders |= {f"scores_{domain.name}": scores(domain) for domain in domains_of(source)}
    return builders


def _store(warehouse: Warehouse, rows_of: Callable[[TimeSpan], ir.Table], span: TimeSpan) -> None:
    warehouse.store(COPY, rows_of(span))
    warehouse.drop_scan()


def _plan(warehouse: Warehouse, rows_of: Callable[[TimeSpan], ir.Table], span: TimeSpan) -> None:
    with steps_apart():  # as the engines compile what they store
        warehouse.connection.compile(rows_of(span))
    warehouse.drop_scan()


def _time(cpu_s: Callable[[], float], action: Callable[..., None], *arguments: Any) -> float:
    start = cpu_s()
    action(*arguments)
    return cpu_s() - start


def report(costs: Sequence[MonthCost]) -> None:
    """Print the costs and their ratios."""
    print(f"\n{'':34}{'whole, CPU s':>14}{'a month':>10}{'planning':>10}{'ratio':>9}{'rows alone':>12}")
    for cost in costs:
        figures = f"{cost.whole:14.2f}{cost.month:10.2f}{cost.planning:10.2f}{cost.ratio:8.1f}x{cost.ratio_unplanned:11.1f}x"
        print(f"{cost.asset:34}{figures}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time one month made again beside its share of the whole ledger.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--warehouse", default="", help="URL of the warehouse; by default that of the settings")
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    print(f"{os.cpu_count()} cores, {arguments.rounds} rounds")
    report(measure_months(replace(settings, warehouse_url=arguments.warehouse or settings.warehouse_url), arguments.rounds))


if __name__ == "__main__":
    main()
