"""The whole graph of more and more simulated customers beside the bare computations: wall, processor and peak memory of all processes.

    python -m benchmarks.customers [--customers 1000 4000] [--rounds 1] [--folder /tmp]

Both sides are those of `benchmarks.orchestration`, on 24 months. What 100,000 customers take is drawn from the sizes: the wall time from a
line through those of a side, memory from its slope in log memory over log customers, which is too much where a bound of memory is reached.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.feature_growth import find_slope
from benchmarks.orchestration import SIDES
from benchmarks.process_tree import Usage, measure_tree
from finrisk_assets.settings import Settings

CUSTOMERS = (1_000, 4_000)
TARGET = 100_000
MOST_WALL, MOST_MIB = 1.3, 6 * 1024
"""Times the wall time of the bare computations, and memory in MiB, that the graph of `TARGET` customers may take."""


def run_side(side: str, home: Path, customers: int) -> Usage:
    """Run one side in this process."""
    settings = Settings(home=home, sim_customers=customers)
    if side == "graph":
        SIDES["stores"](settings)
    with measure_tree() as usage:
        SIDES[side](settings)
    return usage


def measure(side: str, customers: int, root: Path) -> Usage:
    """Run one side in a process of its own, in a new home."""
    with tempfile.TemporaryDirectory(dir=root, prefix="scale-") as home:
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.customers",
            "--side",
            side,
            "--folder",
            home,
            "--customers",
            str(customers),
        ]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            sys.exit(f"{side} of {customers:,} customers did not finish: {(finished.stderr.strip().splitlines() or ['killed'])[-1][:200]}")
        return Usage(**json.loads(finished.stdout.splitlines()[-1]))


def find_expected(customers: Sequence[int], seconds: Sequence[float]) -> float:
    """Return what `TARGET` customers take by the line through the seconds of some sizes."""
    line = statistics.linear_regression(customers, seconds)
    return line.slope * TARGET + line.intercept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, nargs="*", default=CUSTOMERS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--side", choices=("bare", "graph"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        print(json.dumps(asdict(run_side(given.side, given.folder, given.customers[0]))))
        return
    peaks: list[float] = []
    ratios: list[float] = []
    walls: dict[str, list[float]] = {"bare": [], "graph": []}
    print(f"{'':18}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}{'wall ratio':>12}{'CPU ratio':>11}")
    for customers in given.customers:
        rounds = [{side: measure(side, customers, given.folder) for side in walls} for _ in range(given.rounds)]
        for side in walls:
            wall, cpu, peak = (statistics.median(getattr(one[side], key) for one in rounds) for key in ("wall_s", "cpu_s", "peak_mib"))
            of_bare = {
                key: statistics.median(getattr(one[side], key) / getattr(one["bare"], key) for one in rounds) for key in ("wall_s", "cpu_s")
            }
            print(
                f"{customers:>9,} {side:8}{wall:9.1f}{cpu:9.1f}{peak:10.0f}{of_bare['wall_s']:11.2f}x{of_bare['cpu_s']:10.2f}x", flush=True
            )
            walls[side].append(wall)
        peaks.append(peak)
        ratios.append(of_bare["wall_s"])
    print(f"wall of the graph at most {MOST_WALL} x: {'reached' if max(ratios) <= MOST_WALL else 'MISSED'}")
    if len(peaks) > 1:
        graph, bare = (find_expected(given.customers, walls[side]) for side in ("graph", "bare"))
        expected = peaks[-1] * (TARGET / given.customers[-1]) ** find_slope(list(given.customers), peaks)
        print(f"expected of {TARGET:,} customers: {graph:,.0f} s, {graph / bare:.2f} x the bare computations (at most {MOST_WALL}),")
        print(f"and {expected:,.0f} MiB where memory had no bounds (at most {MOST_MIB:,})")


if __name__ == "__main__":
    main()
