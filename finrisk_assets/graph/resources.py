"""The three things that assets reach outside themselves: the warehouse, MLflow and the clock.

`Warehouse` is an Ibis connection named by one URL; `Tables`, Dagster's IO manager, hands lazy tables from asset to asset
through it, so that rows do not pass through Python. What a stored table looks like in the Dagster UI is decided here too.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg


class Clock(dg.ConfigurableResource):
    """The moment at which the ledger is read; each run may have its own.

    Attributes
    ----------
    moment
        ISO 8601, naive UTC; empty for the present.
    """

    moment: str = ""

    def now(self) -> datetime:
        return datetime.fromisoformat(self.moment) if self.moment else datetime.now(UTC).replace(tzinfo=None)


class Tracking(dg.ConfigurableResource):
    """MLflow: runs, metrics, artifacts and the registry of models.

    Attributes
    ----------
    uri
        Tracking and registry store, SQLite by default.
    artifacts
        Folder of the artifacts of new experiments.
    experiment
        Experiment of all runs: the source of the ledger.
    """

    uri: str
    artifacts: str
    experiment: str

    def _mlflow(self) -> Any:
        # Imported here: it takes seconds, and only what trains or promotes needs it.
        import logging

        import mlflow

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        mlflow.set_tracking_uri(self.uri)
        with self._alone():
            if mlflow.get_experiment_by_name(self.experiment) is None:
                mlflow.create_experiment(self.experiment, artifact_location=Path(self.artifacts).as_uri())
        mlflow.set_experiment(self.experiment)
        return mlflow

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of several processes that open a store of SQLite, one makes its tables and its experiment."""
        from filelock import FileLock

        if not self.uri.startswith("sqlite:///"):
            yield
            return
        file = Path(self.uri.removeprefix("sqlite:///"))
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.with_suffix(".lock")):
            yield

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[Any]:
        """An MLflow run, open for the time of the block; yields the mlflow module."""
        mlflow = self._mlflow()
        with mlflow.start_run(run_name=name, tags=dict(tags)):
            yield mlflow

    def client(self) -> Any:
        """MLflow's client, for what belongs to no open run."""
        return self._mlflow().MlflowClient()
