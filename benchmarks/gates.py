"""The gate at work: a first champion, a challenger planted against each demand in turn, a better one that passes, and the way back.

Run it as ``python -m benchmarks.gates`` (about two minutes): the loan-default domain on a small simulated ledger, through the real graph,
in a folder that is removed afterwards. Every planted challenger is a trained model with one thing wrong. What is printed is what the
registry, the checks and the store of Bentos hold after each.
"""

import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import dagster as dg
import numpy as np

from finrisk_assets.domains import registry
from finrisk_assets.domains.base import TrainingResult
from finrisk_assets.domains.loan_default import model
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT, LoanDefault
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from finrisk_assets.graph import automation, build
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.modelling.training import gate_verdict, model_registry
from finrisk_assets.operations.rollback import roll_back
from finrisk_assets.scoring import bundle
from finrisk_assets.scoring import spec as spec_module
from finrisk_assets.scoring.bundle_io import GOLDEN, MANIFEST
from finrisk_assets.scoring.spec import Linear
from finrisk_assets.settings import Settings
from schemas.features import Feature

if TYPE_CHECKING:
    import pandas as pd

FEW = (
    "stated_income_amount",
    "employed_months",
    "history_months",
    "mean_balance_to_instalment_6m",
    "n_penalties_6m",
)
"""Features of the first champion."""

SPARSE = "sparse_logistic_regression"

NORTH = Feature("lives_north", "0/1", "Lives in the north.", zero="the region is another", one="the region is the north")
ECHO = Feature("arrears_share", "share", "Share of the instalments in arrears.", "few instalments are late", "many instalments are late")
"""Two columns that have no place in a model: one stands for where a person lives, one for what became of the loan."""


class SparseLoanDefault(LoanDefault):
    """The domain with the one candidate that it mostly chooses: the story is of gates, and runs faster so."""

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        return {SPARSE: model.candidates(features, seed, threads, n_rows)[SPARSE]}

    def export_files(self, candidates: Any, spec: Any) -> Mapping[str, bytes]:
        return {}


LOGISTIC = SparseLoanDefault()

Declared = tuple[Feature, ...]
Train = Callable[["pd.DataFrame", Declared, Source, Settings], TrainingResult]
Spoil = Callable[[], Any]


# Challengers -------------------------------------------------------------------------------------------------------------------


def honest(frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """All features but the planted ones."""
    return LOGISTIC.train(frame, tuple(one for one in declared if one not in (NORTH, ECHO)), source, settings)


def knowing(names: tuple[str, ...], frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """A few features."""
    return LOGISTIC.train(frame, tuple(one for one in declared if one.name in names), source, settings)


few = partial(knowing, FEW)


def backwards(frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """The honest model with the sign of every coefficient turned round, as where good and bad are mixed up in a table."""
    trained = honest(frame, declared, source, settings)
    (part,) = trained.spec.components
    assert isinstance(part, Linear)
    turned = replace(part, coefficients=tuple(-coefficient for coefficient in part.coefficients))
    return replace(trained, spec=replace(trained.spec, components=(turned,)))


def overstating(frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """The honest model with its odds four times too high."""
    trained = honest(frame, declared, source, settings)
    known = trained.spec.calibration
    return replace(trained, spec=replace(trained.spec, calibration=replace(known, c=known.c + np.log(4))))


def timid(frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """The honest model, which ranks better than the champion, but says odds so much too high that nearly everyone is refused."""
    trained = honest(frame, declared, source, settings)
    known = trained.spec.calibration
    return replace(trained, spec=replace(trained.spec, calibration=replace(known, c=known.c + np.log(20))))


def prejudiced(frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """A model that knows where a person lives, and learned from outcomes written down to the disadvantage of the north."""
    rng = np.random.default_rng(settings.seed)
    north, bad = (frame.lives_north > 0.5).to_numpy(), frame.is_default.fillna(False).to_numpy(bool)
    moved = rng.choice(np.flatnonzero(~north & bad), int((~north & bad).sum() * 0.65), replace=False)
    written = frame.is_default.copy()
    written.iloc[moved] = False
    written.iloc[rng.choice(np.flatnonzero(north & ~bad & frame.is_default.notna().to_numpy()), len(moved), replace=False)] = True
    return LOGISTIC.train(frame.assign(is_default=written), tuple(one for one in declared if one != ECHO), source, settings)


def cancelling(frame: "pd.DataFrame", declared: Declared, source: Source, settings: Settings) -> TrainingResult:
    """The honest model and two huge parts that cancel: the score is nearly the same, its explanation is lost in their rounding."""
    trained = honest(frame, declared, source, settings)
    width = len(trained.spec.features)
    none = (0.0,) * width
    huge = Linear((1e8,) * width, means=none, scales=(1.0,) * width, fills=none, signed_log1p=(False,) * width)
    return replace(trained, spec=replace(trained.spec, components=(huge, *trained.spec.components, replace(huge, weight=-1.0))))


@contextmanager
def forgetful() -> Iterator[None]:
    """Bundles are written whose golden rows were scored a little differently, as by another version of a library."""
    whole = bundle.write

    def write(folder: Path, spec: spec_module.BundleSpec) -> str:
        whole(folder, spec)
        golden, manifest = folder / GOLDEN, folder / MANIFEST
        scored = json.loads(golden.read_text())
        golden.write_text(json.dumps(scored | {"margin": [value + 1e-4 for value in scored["margin"]]}))
        described = json.loads(manifest.read_text())
        described["files"][GOLDEN] = sha256(golden.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(described))
        return sha256(manifest.read_bytes()).hexdigest()[:12]

    with patch.object(bundle, "write", write):
        yield


# The story ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The state after a challenger: its version and its gate's verdict, the checks that failed, the champion, the newest Bento."""

    challenger: str
    gate: str
    failed: tuple[str, ...]
    champion: str
    bento: str


class Story:
    """One domain's life on one small ledger."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self._instance = settings, instance

    def begin(self, train: Train) -> Outcome:
        """Materialise the whole graph for the first time."""
        return self._run(train, None)

    def challenge(self, train: Train, spoil: Spoil = nullcontext, features: Declared = (NORTH,)) -> Outcome:
        """Train a challenger; what its gate lets through becomes champion and is packed."""
        stages = [f"{stage}_loan_default" for stage in (("features",) if ECHO in features else ()) + ("model", "evaluation", "champion")]
        with spoil():
            return self._run(train, [dg.AssetKey(name) for name in (*stages, "bento")], features)

    def roll_back(self, reason: str) -> Outcome:
        with self._graph(honest, (NORTH,)):
            roll_back(self.settings, "loan_default", reason, self._instance)
            return self._outcome(())

    def _run(self, train: Train, selection: list[dg.AssetKey] | None, features: Declared = (NORTH,)) -> Outcome:
        with self._graph(train, features):
            job = build.build_definitions(self.settings).resolve_job_def(automation.EVERYTHING)
            done = job.execute_in_process(instance=self._instance, asset_selection=selection, raise_on_error=False)
            failed = [check.check_name for check in done.get_asset_check_evaluations() if not check.passed and check.blocking]
            if not failed and not done.success:
                raise RuntimeError(next(str(event.step_failure_data.error) for event in done.all_events if event.is_step_failure))
            return self._outcome(tuple(failed))

    @contextmanager
    def _graph(self, train: Train, features: Declared) -> Iterator[None]:
        """The graph has this one domain, with the planted columns."""

        class Planted(LoanDefault):
            def select_features(self, source: Source) -> Declared:
                return (*super().select_features(source), *features)

            def build_features(self, tables: Mapping[str, Any], source: Source, span: TimeSpan = ALL_TIMES) -> Any:
                rows, customers = LOAN_DEFAULT.build_features(tables, source, span), tables["customers"]
                rows = rows.left_join(customers.select("customer_id", "region"), "customer_id").drop("customer_id_right")
                is_north = (rows.region == "north").fill_null(False).cast("float64")
                planted = {NORTH.name: is_north, ECHO.name: rows.is_default.cast("float64")}
                return rows.mutate(**{feature.name: planted[feature.name] for feature in features}).drop("region")

            def train(
                self, frame: "pd.DataFrame", features: Declared, source: Source, settings: Settings, ledger_fit: object = None
            ) -> TrainingResult:
                return train(frame, features, source, settings)

        with patch.object(registry, "DOMAINS", (Planted(),)):
            yield

    def _outcome(self, failed: tuple[str, ...]) -> Outcome:
        client = build.build_resources(self.settings)["tracking"].client()
        aliases = model_registry.CHALLENGER, model_registry.CHAMPION
        challenger, champion = (model_registry.find_version(client, "loan_default", alias) for alias in aliases)
        latest = self.settings.bentoml_home / "bentos" / "finrisk" / "latest"
        gate = gate_verdict.read_verdict(model_registry.read_tags(client, challenger)).gate or "not judged" if challenger else "–"
        return Outcome(
            challenger.version if challenger else "–",
            gate,
            failed,
            champion.version if champion else "–",
            latest.read_text().strip() if latest.is_file() else "–",
        )


PLANTED: Mapping[str, tuple[str, Train, dict[str, Any]]] = {
    "discrimination": ("its signs are turned round", backwards, {}),
    "calibration": ("its odds are four times too high", overstating, {}),
    "profit": ("ranks better, refuses nearly everyone", timid, {}),
    "fairness": ("learned outcomes written against the north", prejudiced, {}),
    "explanation": ("two huge parts that cancel", cancelling, {}),
    "golden rows": ("its golden rows score differently", honest, {"spoil": forgetful}),
    "leakage": ("reads what became of the loan", LOGISTIC.train, {"features": (NORTH, ECHO)}),
}
"""Demand -> what is wrong with the challenger planted against it, how it is trained, and how it is planted."""


def main() -> None:
    from rich.console import Console
    from rich.table import Table

    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    table = Table(title="A challenger planted against each demand")
    for heading in ("challenger", "version", "gate", "checks that failed", "champion after", "Bento after"):
        table.add_column(heading)
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.ephemeral() as instance:
        story = Story(small(Path(home)), instance)
        told = {f"first: knows {len(FEW)} fields": story.begin(few)}
        told |= {f"{demand}: {wrong}": story.challenge(train, **how) for demand, (wrong, train, how) in PLANTED.items()}
        told["all features"] = story.challenge(honest)
        told["rolled back"] = story.roll_back("complaints")
        told["all features, once more"] = story.challenge(honest)
    for name, outcome in told.items():
        table.add_row(name, outcome.challenger, outcome.gate, ", ".join(outcome.failed) or "–", outcome.champion, outcome.bento)
    Console(width=170).print(table)


def small(home: Path) -> Settings:
    """A ledger large enough for a gate to tell models apart."""
    return Settings(home=home, sim_customers=600, sim_months=18, as_of=datetime(2025, 7, 1))


if __name__ == "__main__":
    main()
