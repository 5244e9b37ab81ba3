"""Rows a second by the number of rows that are scored together: margins alone, and margins with SHAP values.

    python -m benchmarks.row_counts [--rounds 7] [--champions .finrisk/simulator/champions]

A row among many should never take longer than a row among few. Models are the champions, where there are any, and boosted trees of the
sizes that the candidates have, fitted on noise. Times are of the processor, medians over the rounds; every size of every model has its turn
in each round.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import Rows
from finrisk_assets.scoring.tree_shap import TreeShap
from finrisk_assets.settings import Settings

ROW_COUNTS = (1, 16, 64, 128, 256, 512, 1024, 4096)
TREES = {86: 3, 200: 3, 700: 4}
"""Number of trees -> their depth."""
N_FEATURES = 50
LEAST_S = 0.05
"""Seconds that one measurement lasts at least: few rows are scored several times."""
TOLERANCE = 0.05
"""Share by which a row among more rows may seem slower, for the noise of the measurement."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--champions", type=Path, default=Settings.from_environment().root / "champions")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    contenders = champions(given.champions, rng) | boosted(rng)
    seconds: dict[tuple[str, int], list[float]] = {}
    for _ in range(given.rounds):
        for name, (score, rows) in contenders.items():
            for n in ROW_COUNTS:
                seconds.setdefault((name, n), []).append(seconds_per_row(score, rows[:n]))
    print(f"rows a second of one thread, medians of {given.rounds} rounds")
    print(f"  {'':44}" + "".join(f"{n:>10,}" for n in ROW_COUNTS))
    for name in contenders:
        rates = [1 / statistics.median(seconds[name, n]) for n in ROW_COUNTS]
        slower = [n for place, n in enumerate(ROW_COUNTS) if rates[place] < max(rates[: place + 1]) * (1 - TOLERANCE)]
        verdict = f"slower a row at {', '.join(map(str, slower))}" if slower else "never slower a row"
        print(f"  {name:44}" + "".join(f"{rate:10,.0f}" for rate in rates) + f"   {verdict}")


def champions(folder: Path, rng: np.random.Generator) -> dict[str, tuple[Callable[[Rows], object], Rows]]:
    """Return the champions' functions, by name, each with rows drawn from its golden rows."""
    found: dict[str, tuple[Callable[[Rows], object], Rows]] = {}
    for path in sorted(folder.glob("*/bundle")):
        bundle, golden = Bundle.load(path), json.loads((path / "golden.json").read_text())["rows"]
        rows = np.array(golden, np.float64).astype(np.float32)[rng.integers(len(golden), size=ROW_COUNTS[-1])]
        bundle.score(rows[:1])  # the tables are computed here
        found[f"{bundle.domain}, margin"] = bundle.margin, rows
        found[f"{bundle.domain}, margin and SHAP values"] = bundle.score, rows
    return found


def boosted(rng: np.random.Generator) -> dict[str, tuple[Callable[[Rows], object], Rows]]:
    """Return functions of boosted trees that were fitted on noise."""
    import xgboost

    rows = rng.normal(size=(ROW_COUNTS[-1], N_FEATURES)).astype(np.float32)
    labels = rows[:, 0] + rows[:, 1] * rows[:, 2] + rng.normal(size=len(rows)) > 0.5
    found: dict[str, tuple[Callable[[Rows], object], Rows]] = {}
    for n_trees, depth in TREES.items():
        options = {"max_depth": depth, "objective": "binary:logistic", "nthread": 1}
        trained = xgboost.train(options, xgboost.DMatrix(rows, labels), n_trees)
        tables = TreeShap(bytes(trained.save_raw("json")), N_FEATURES)
        tables.explain(rows[:1])  # the tables are computed here
        found[f"{n_trees} trees of depth {depth}, margin"] = tables.margin, rows
        found[f"{n_trees} trees of depth {depth}, margin and SHAP values"] = tables.explain, rows
    return found


def seconds_per_row(score: Callable[[Rows], object], rows: Rows) -> float:
    """Return the processor's seconds for a row, from as many calls as `LEAST_S` takes."""
    calls, began = 0, time.process_time()
    while (taken := time.process_time() - began) < LEAST_S or not calls:
        score(rows)
        calls += 1
    return taken / (calls * len(rows))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
