"""All that grows with the ledger: features, months, engines, customers; each part is also a program of its own.

    python -m benchmarks.scale [--small] [--parts feature_growth spark cluster months postgres customers]

`--small` takes minutes for each part in place of hours. Up to 30 GB of temporary files are written and removed. `months` and the scores of
`spark` read the home of a demonstration (FINRISK_HOME).
"""

import argparse
import subprocess
import sys

PARTS = {
    "feature_growth": ["--rows", "1750000", "--rounds", "1"],
    "spark": ["--rows", "200000", "1000000", "--rounds", "1"],
    "cluster": ["--rows", "100000", "--rounds", "1"],
    "months": ["--rounds", "1"],
    "postgres": ["--customers", "200", "--rounds", "1"],
    "customers": ["--customers", "1000", "2000"],
}
"""Program of this folder -> its arguments for a small run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="Few rows, one round.")
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    given = parser.parse_args()
    failed = []
    for part in given.parts:
        print(f"\n== {part}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{part}", *(PARTS[part] if given.small else [])]
        if subprocess.run(command).returncode:
            failed.append(part)
    if failed:
        sys.exit(f"these parts did not finish: {', '.join(failed)}")


if __name__ == "__main__":
    main()
