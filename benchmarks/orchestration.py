"""The cost of orchestration: the whole graph beside the same computation as plain function calls, in turns, medians.

    python -m benchmarks.orchestration [--repeats 3]

Both sides land, split, check, store, compute features, certify them, train, look for leaks, evaluate, score, write the exports and build
the Bento from the same simulated ledger, each time in a new home and a new process. The graph's side adds Dagster (events, metadata,
previews) and MLflow (runs, registry). Their stores are made before, once per home; what that takes is printed on a line of its own.

Before that, what each process of a run pays: the import of the graph beside that of Dagster alone, in seconds of a processor.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from finrisk_assets.settings import Settings


def bare(settings: Settings) -> None:
    """The computation alone."""
    from finrisk_assets.domains.registry import domains_of, left_out, totals_of
    from finrisk_assets.features.time_span import ALL_TIMES
    from finrisk_assets.graph.packaging import build_bento
    from finrisk_assets.graph.parity_certificate import certify_service
    from finrisk_assets.graph.stages import common, consistency, leakage, scores
    from finrisk_assets.graph.stages.exports.marts import export_marts
    from finrisk_assets.graph.warehouse import Warehouse
    from finrisk_assets.ledger import contract, sources
    from finrisk_assets.ledger.month_totals import MONTH_TOTALS
    from finrisk_assets.marts.mart_files import mart_folder
    from finrisk_assets.scoring import bundle
    from finrisk_assets.scoring.bundle import Bundle

    source = sources.load(settings)
    warehouse = Warehouse(url=settings.warehouse)
    landing = settings.root / "landing"
    landing.mkdir(parents=True)
    lands = {f"raw_{name}": raw.land for name, raw in source.tables.items()} | dict(source.truth)
    for name, land in lands.items():
        land(landing / f"{name}.parquet")
        warehouse.store(name, warehouse.connection.read_parquet(str(landing / f"{name}.parquet")))
    valid = {}
    for name, raw in source.tables.items():
        split = contract.split(raw.table, raw.columns, warehouse.table(f"raw_{name}"), valid, settings.now)
        warehouse.store(f"quarantine_{name}", split.quarantine)
        valid[name] = warehouse.store(f"validated_{name}", split.valid)
        assert not contract.check_stored(raw.table, valid[name])
    for name in totals_of(source):
        valid[name] = warehouse.store(name, MONTH_TOTALS[name][1](valid["transactions"]))
    champions = {}
    for domain in domains_of(source):
        if not domain.features_of:
            tables = valid | {name: warehouse.table(name) for name in domain.upstream if warehouse.has(name)}
            warehouse.store(f"features_{domain.name}", domain.compute_features(tables, source, ALL_TIMES))
            warehouse.drop_scan()
        features = warehouse.table(f"features_{domain.group}")
        assert not contract.check_stored(domain.feature_contract(source), features)
        assert not domain.find_parity_faults(warehouse.table, source)
        if domain.is_computed_in_service:
            certify_service(domain, source, valid["transactions"], features, settings)
        frame = common.load_frame(common.sample_rows(features, domain, settings), domain)
        trained = domain.train(frame, domain.select_features(source), source, settings)
        folder = champions[domain.name] = common.champion_folder(domain, settings)
        bundle.write(folder, trained.spec)
        leakage.findings(domain, source, settings, warehouse)
        figures = domain.evaluate(common.load_evaluation_rows(warehouse, domain, settings), Bundle.load(folder), settings).figures
        assert not domain.find_faults({figure.metric: figure for figure in figures})
        stored = warehouse.store(f"scores_{domain.name}", scores.score_table(features, domain, settings, warehouse.engine))
        assert not contract.check_stored(domain.score_contract(), stored)
        if domain.truth in source.truth:
            rows = domain.evaluation_rows(common.sample_rows(features, domain, settings))
            truth = {name: domain.select_truth(name, warehouse.table(name), rows).to_pandas() for name in domain.truth_tables}
            domain.compare_with_truth(common.load_frame(rows, domain), truth, Bundle.load(folder), settings)
    consistency.measure_consistency(source, warehouse, settings)
    export_marts(mart_folder(settings), domains_of(source), source, warehouse, settings)
    build_bento(settings, champions, left_out(source))


def stores(settings: Settings) -> None:
    """Make the stores of Dagster and MLflow, as the first run in a home does."""
    import dagster as dg

    from finrisk_assets.cli import main as cli
    from finrisk_assets.graph.build import build_resources

    cli.prepare_dagster(settings)
    with dg.DagsterInstance.get():
        build_resources(settings)["tracking"].client()


def graph(settings: Settings) -> None:
    """The same as the demo runs it."""
    from finrisk_assets.cli import demo
    from finrisk_assets.cli import main as cli

    cli.prepare_dagster(settings)
    assert demo.run(settings, serve=False) == 0


SIDES = {"bare": bare, "stores": stores, "graph": graph}


def timed(side: str, home: Path) -> float:
    """Seconds that one side takes in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.orchestration", "--side", side, "--home", str(home)]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"})
    return time.perf_counter() - began


IMPORTS = ("dagster", "finrisk_assets.definitions")
"""Modules whose import is measured: Dagster alone, and the graph with all its assets built."""


def import_s(module: str, home: Path) -> float:
    """Return the seconds of a processor that a new process spends to import a module."""
    program = f"import time, {module}; print(time.process_time())"
    environment = os.environ | {"FINRISK_HOME": str(home), "PYTHONWARNINGS": "ignore"}
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, env=environment).stdout)


def print_imports(repeats: int) -> None:
    """Print the medians of the imports, in turns, and their ratio."""
    with tempfile.TemporaryDirectory() as home:
        for module in IMPORTS:  # compiles and caches
            import_s(module, Path(home))
        seconds = [[import_s(module, Path(home)) for module in IMPORTS] for _ in range(repeats)]
    alone, graph_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"import of the graph: {graph_s:.2f} s of a processor, {graph_s / alone:.1f} times that of Dagster alone ({alone:.2f} s)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)
    parser.add_argument("--home", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        SIDES[given.side](Settings(home=given.home))
        return
    print_imports(max(given.repeats, 5))
    took: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(given.repeats):
        for sides in (("bare",), ("stores", "graph")):
            home = Path(tempfile.mkdtemp())
            for side in sides:
                took[side].append(timed(side, home))
            shutil.rmtree(home)
    middle = {side: statistics.median(seconds) for side, seconds in took.items()}
    for side, seconds in took.items():
        print(f"{side:<6} {middle[side]:6.1f} s   ({', '.join(f'{one:.1f}' for one in seconds)})")
    share = middle["graph"] / middle["bare"] - 1
    print(f"orchestration adds {share:.0%}; allowed are 30 %: {'reached' if share <= 0.3 else 'MISSED'}")


if __name__ == "__main__":
    main()
