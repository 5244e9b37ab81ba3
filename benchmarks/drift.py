"""Rate of the drift test's alarms where nothing moved, and where something did, on real feature columns.

Run it as ``python -m benchmarks.drift`` (about a minute on two free cores). The columns are spending-risk features of the simulator (or of
Berka, with FINRISK_DATA_DIR): ties, point masses and missing values as they come. Windows are drawn with replacement from all rows, so
that nothing has moved and rows are independent; the last table draws whole customers, whose rows are not.
"""

import argparse
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from functools import partial
from itertools import product

import numpy as np
from numpy.typing import NDArray

from benchmarks.spending import load, timed
from finrisk_assets.ledger import sources
from finrisk_assets.modelling.monitoring import drift
from finrisk_assets.settings import Settings

COLUMNS = (
    "Total_Income",
    "Expense_Income_Ratio",
    "balance_change_to_income_3m",
    "earned_to_usual_income_1m",
    "regular_pay_share_6m",
    "Low_Balance_Freq",
    "n_penalties_3m",
    "closing_balance_to_expense_3m",
)
NORMAL = "a normal column"
SHIFTED = ("Total_Income", "Expense_Income_Ratio", "balance_change_to_income_3m", NORMAL)
ROWS = (200, 2_000, 20_000)
DRAWS = 59
SEED = 7
Floats = NDArray[np.float64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default="simulator", choices=["simulator", "berka"])
    parser.add_argument("--windows", type=int, default=1_000, help="windows without drift, for each number of rows")
    parser.add_argument("--customers", type=int, default=600, help="people in the simulator")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    given = parser.parse_args()
    environment = Settings.from_environment()
    settings = Settings(
        source=given.source,
        data_dir=environment.data_dir,
        as_of=datetime(2025, 12, 1),
        sim_customers=given.customers,
        sim_months=24,
        threads=given.workers,
    )
    frame, _ = load(sources.load(settings), settings)
    names = tuple(name for name in COLUMNS if name in frame)
    pool, customers = frame[list(names)].to_numpy(dtype=np.float64), frame.customer_id.to_numpy(dtype=str)
    print(f"{len(frame)} month-ends of {len(np.unique(customers))} people")
    with ProcessPoolExecutor(given.workers) as workers:
        run = partial(workers.map, chunksize=10)
        timed("false alarms", lambda: false_alarms(run, names, pool, given.windows))
        timed("power", lambda: power(run, names, pool, given.windows))
        timed("customers", lambda: by_customer(run, names, pool, customers, given.windows))


def false_alarms(run: Callable[..., Iterable[drift.Drift]], names: tuple[str, ...], pool: Floats, windows: int) -> None:
    """Print how often windows without drift alarm: any column at all, each column alone, and the index."""
    found = {n: list(run(partial(null_window, names, pool, n), range(windows))) for n in ROWS}
    noise = 1.96 * np.sqrt(drift.SIGNIFICANCE_LEVEL * (1 - drift.SIGNIFICANCE_LEVEL) / windows)
    print(f"\nFalse alarms in {windows} windows without drift, per cent; stated {drift.SIGNIFICANCE_LEVEL:.0%}, noise +- {noise:.1%}")
    print(f"  {'rows in each window':66}" + "".join(f"{n:>9,}" for n in ROWS))
    print(f"  {f'any of {len(names)} columns (the check)':66}" + rates(found[n] for n in ROWS))
    for k, name in enumerate(names):
        values = pool[:, k]
        present = values[~np.isnan(values)]
        _, counts = np.unique(present, return_counts=True)
        kind = f"{name} ({counts.max() / len(values):.0%} one value, {1 - len(present) / len(values):.0%} missing)"
        print(f"  {kind:66}" + "".join(f"{np.mean([d.columns[k].p_value <= d.level for d in found[n]]):>9.1%}" for n in ROWS))
    for text, rule in (
        ("PSI above its limit, mean over columns", lambda column: column.psi > column.psi_limit),
        ("PSI above 0.1, mean over columns", lambda column: column.psi > 0.1),
    ):
        print(f"  {text:66}" + "".join(f"{np.mean([rule(c) for d in found[n] for c in d.columns]):>9.1%}" for n in ROWS))


def power(run: Callable[..., Iterable[drift.Drift]], names: tuple[str, ...], pool: Floats, windows: int) -> None:
    """Print how often a shift of one column is found, among all columns at the same false-alarm rate."""
    rng = np.random.default_rng(SEED)
    wide = np.column_stack([pool, rng.standard_normal(len(pool))])
    everything = (*names, NORMAL)
    print("\nShifts of one column found, adjusted for all columns, per cent (PSI above 0.1 in brackets)")
    print(f"  {'rows in each window':66}" + "".join(f"{n:>17,}" for n in ROWS))
    for size, name in product((0.1, 0.2), SHIFTED):
        k = everything.index(name)
        line = f"  {f'{name}, {size} standard deviations':66}"
        for n in ROWS:
            runs = range(max(2, windows // (10 if n < ROWS[-1] else 100)))
            columns = [found.columns[k] for found in run(partial(shifted_window, everything, wide, n, k, size), runs)]
            cell = f"{np.mean([column.is_drift for column in columns]):.0%} ({np.mean([column.psi > 0.1 for column in columns]):.0%})"
            line += f"{cell:>17}"
        print(line)


def by_customer(
    run: Callable[..., Iterable[drift.Drift]], names: tuple[str, ...], pool: Floats, customers: NDArray[np.str_], windows: int
) -> None:
    """Print what happens where a customer has several rows: taken for independent, and with the customer as the unit."""
    order = np.argsort(customers, kind="stable")
    pool, customers = pool[order], customers[order]
    print("\nFalse alarms where customers have several rows, per cent (any column)")
    for text, same in (
        ("other customers in each window, six months of each", False),
        ("the same customers in both, six months each", True),
    ):
        for unit in ("row", "customer"):
            found = list(run(partial(panel_window, names, pool, customers, same, unit == "customer"), range(windows // 5)))
            print(f"  {text}: a {unit} is the unit".ljust(75) + rates([found]))


def null_window(names: tuple[str, ...], pool: Floats, n: int, seed: int) -> drift.Drift:
    rng = np.random.default_rng([SEED, n, seed])
    return drift.compare(names, draw(rng, pool, n), draw(rng, pool, n), draws=DRAWS, seed=seed)


def shifted_window(names: tuple[str, ...], pool: Floats, n: int, k: int, size: float, seed: int) -> drift.Drift:
    rng = np.random.default_rng([SEED, n, k, seed])
    current = draw(rng, pool, n)
    current[:, k] += size * np.nanstd(pool[:, k])
    return drift.compare(names, draw(rng, pool, n), current, draws=DRAWS, seed=seed)


def panel_window(names: tuple[str, ...], pool: Floats, customers: NDArray[np.str_], same: bool, clustered: bool, seed: int) -> drift.Drift:
    """Compare windows of 150 customers each; the same ones have their months dealt to the windows at random, so that none is earlier."""
    rng = np.random.default_rng([SEED, same, seed])
    _, first, months = np.unique(customers, return_index=True, return_counts=True)
    chosen = rng.choice(np.flatnonzero(months >= 12), 150 if same else 300, replace=False)
    rows = np.array([rng.permutation(months[one])[:12] + first[one] for one in chosen])
    before, now = (rows[:, :6], rows[:, 6:]) if same else (rows[:150, :6], rows[150:, :6])
    owners = {"reference_customers": customers[before.ravel()], "current_customers": customers[now.ravel()]} if clustered else {}
    return drift.compare(names, pool[before.ravel()], pool[now.ravel()], **owners, draws=DRAWS, seed=seed)


def draw(rng: np.random.Generator, pool: Floats, n: int) -> Floats:
    return pool[rng.integers(0, len(pool), n)]


def rates(found: Iterable[list[drift.Drift]]) -> str:
    return "".join(f"{np.mean([bool(one.drifted) for one in part]):>9.1%}" for part in found)


if __name__ == "__main__":
    main()
