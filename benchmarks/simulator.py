"""Time and peak memory of the simulator, landed as the graph lands it: every table, truth included, town by town.

    python -m benchmarks.simulator [--large]

Simulates 2,000 people over 24 months, and with ``--large`` 100,000 too, each in a process of its own so that the peaks are theirs. The
large one writes about 2 GB below the system's temporary folder and removes them.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MONTHS = 24
SMALL, LARGE = 2_000, 100_000
ROOT = Path(__file__).resolve().parents[1]


def measure(customers: int) -> str:
    """Land every table of an economy; say rows, seconds, peak memory and bytes on disk."""
    from finrisk_assets.ledger.sources.simulator import source
    from finrisk_assets.settings import Settings

    declared = source(Settings(sim_customers=customers, sim_months=MONTHS))
    lands = {**{name: raw.land for name, raw in declared.tables.items()}, **declared.truth}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        rows = {name: land(Path(folder) / f"{name}.parquet").rows for name, land in lands.items()}
        seconds = time.perf_counter() - start
        written = sum(file.stat().st_size for file in Path(folder).glob("*.parquet"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{customers:>7,} x {MONTHS}: {seconds:6.1f} s, peak {peak:5.0f} MiB, {written / 2**20:6.0f} MiB of Parquet, "
        f"{rows['transactions']:,} transactions, {sum(rows.values()):,} rows in {len(rows)} tables"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help=f"also {LARGE:,} people")
    parser.add_argument("--only", type=int, help="measure this many people, in this process")
    arguments = parser.parse_args()
    if arguments.only:
        print(measure(arguments.only))
        return
    for customers in (SMALL, LARGE) if arguments.large else (SMALL,):
        subprocess.run([sys.executable, "-m", "benchmarks.simulator", "--only", str(customers)], check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
