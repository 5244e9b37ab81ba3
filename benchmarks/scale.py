"""All that grows with the ledger: features, months, engines, customers; each part is also a program of its own.

    python -m benchmarks.scale [--small] [--rounds 1] [--parts feature_growth spark cluster months postgres customers]

`--small` takes minutes in place of hours. Up to 30 GB of temporary files are written and removed. `months` and the scores of `spark` read
the home of a demonstration (FINRISK_HOME), which runs first where there is none.
"""

import argparse
import subprocess
import sys
import time

from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.settings import Settings

PARTS = {
    "feature_growth": ["--rows", "200000", "1750000"],
    "spark": ["--rows", "200000", "1000000"],
    "cluster": ["--rows", "100000"],
    "months": [],
    "postgres": ["--customers", "200"],
    "customers": ["--customers", "500", "1000"],
}
"""Program of this folder -> its arguments for a small run."""
OF_A_HOME = {"spark", "months"}
"""Programs that read the home of a demonstration."""
SHOWN_LOG = 4000
"""Characters of a failed program's log, of which Spark writes many."""


def has_home() -> bool:
    """Return whether the home has the champions of a demonstration."""
    champions = Settings.from_environment().root / "champions"
    return all((champions / domain.name).is_dir() for domain in DOMAINS)


def run_part(title: str, *words: str) -> bool:
    """Run a program, and print how long it took, and what it logged where it failed; return whether it ended well."""
    print(f"\n== {title}", flush=True)
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-W", "ignore", "-m", *words], stderr=subprocess.PIPE, text=True)
    print(ended.stderr[-SHOWN_LOG:] if ended.returncode else "", f"-- {title}: {time.monotonic() - began:.0f} s", sep="", flush=True)
    return not ended.returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="Fewer rows and customers.")
    parser.add_argument("--rounds", type=int, default=1, help="Figures are medians of so many rounds.")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    given = parser.parse_args()
    failed = []
    if OF_A_HOME & set(given.parts) and not has_home() and not run_part("demo", "finrisk_assets.cli.main", "demo", "--stream-seconds", "0"):
        failed.append("demo")
    for part in given.parts:
        if not run_part(part, f"benchmarks.{part}", "--rounds", str(given.rounds), *(PARTS[part] if given.small else [])):
            failed.append(part)
    if failed:
        sys.exit(f"these parts did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
