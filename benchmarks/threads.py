"""Candidates that are the same to the bit on one and on two threads, each time in a fresh process.

    python -m benchmarks.threads            # after `make demo`; with FINRISK_HOME and FINRISK_SOURCE as for the demo

Trains on the stored feature tables twice with two threads and once with one, without what `provenance.limit_threads` does, and
compares every fitted candidate with its calibration. The last column trains as the graph does.
"""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch

RUNS = (("one", 1, False), ("two", 2, False), ("again", 2, False), ("held one", 1, True), ("held two", 2, True))
"""Name, threads of linear algebra and OpenMP, and whether training is held to fixed numbers of threads."""


def fingerprints(threads: int, held: bool) -> dict[str, str]:
    """Hash of every candidate of every classifier, on `threads` threads."""
    from threadpoolctl import threadpool_limits

    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.graph.build import build_resources
    from finrisk_assets.graph.stages.common import load_frame
    from finrisk_assets.ledger import sources
    from finrisk_assets.modelling.training import candidates, convert, provenance
    from finrisk_assets.settings import Settings

    settings = replace(Settings.from_environment(), threads=2 if held else threads, as_of=datetime(2100, 1, 1))
    source, warehouse, found = sources.load(settings), build_resources(settings)["warehouse"], dict[str, str]()
    fit_candidates = candidates.fit_candidates

    @contextlib.contextmanager
    def limits() -> Iterator[None]:
        with provenance.limit_threads() if held else threadpool_limits(threads):
            yield

    for domain in domains_of(source):

        def spy(rows: Any, labels: Any, window: Any, models: Any, domain: Any = domain) -> Any:
            fitted = fit_candidates(rows, labels, window, models)
            for one in fitted:
                component = convert.convert_estimator(one.estimator, domain.select_features(source), rows[window.validation]).component
                whole = repr((component, one.fitted_calibration.calibration, one.auc.value, one.log_loss))
                found[f"{domain.name}, {one.name}"] = hashlib.sha256(whole.encode()).hexdigest()
            return fitted

        frame = load_frame(warehouse.table(f"features_{domain.group}"), domain)
        with patch.object(candidates, "fit_candidates", spy), threadpool_limits(threads), limits():
            spec = domain.train(frame, domain.select_features(source), source, settings).spec
        if not any(name.startswith(f"{domain.name}, ") for name in found):
            found[f"{domain.name}, all together"] = hashlib.sha256(
                repr((spec.components, spec.calibration, spec.intercept)).encode()
            ).hexdigest()
    return found


def main() -> None:
    """Print the table; or, in a process of its own, one run's fingerprints."""
    if len(sys.argv) > 1:
        print(json.dumps(fingerprints(int(sys.argv[1]), sys.argv[2] == "held")))
        return
    runs = {}
    for name, threads, held in RUNS:
        command = [sys.executable, "-m", "benchmarks.threads", str(threads), "held" if held else "free"]
        done = subprocess.run(command, env=os.environ, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True)
        runs[name] = json.loads(done.stdout.splitlines()[-1])
    said, compared = {True: "same bits", False: "differs"}, (("two", "again"), ("one", "two"), ("held one", "held two"))
    print(f"{'domain, candidate':45}{'two runs on two':18}{'two beside one':18}with limit_threads")
    for key in runs["one"]:
        pairs = [runs[left].get(key) == runs[right].get(key) for left, right in compared]
        print(f"{key:45}" + "".join(f"{said[same]:18}" for same in pairs))


if __name__ == "__main__":
    main()
