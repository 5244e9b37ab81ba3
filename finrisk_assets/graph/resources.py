"""The Dagster resources for the clock and for MLflow. The resource for stored tables is in `graph.warehouse`."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

EXPERIMENT_TAGS = {
    # Without its kind MLflow opens an experiment on the traces of language models, of which there are none.
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.note.content": "One run for each training of a model of this ledger, with its candidates as runs inside it. "
    "The chosen candidate is registered as a version of the model `finrisk-<domain>`.",
}
"""Tags of an experiment: MLflow's own names."""


class Clock(dg.ConfigurableResource):
    """The moment at which the ledger is read. A run may configure its own.

    Attributes
    ----------
    moment
        ISO 8601, naive UTC; empty for the present.
    """

    moment: str = ""

    def now(self) -> datetime:
        """Return the moment of the run, naive UTC."""
        return datetime.fromisoformat(self.moment) if self.moment else datetime.now(UTC).replace(tzinfo=None)


@dataclass(frozen=True)
class Tracking:
    """MLflow's runs, metrics, artifacts and model registry.

    A plain object to Dagster, as the warehouse is: the store's URL may hold a password.

    Attributes
    ----------
    uri
        Tracking and registry store, SQLite by default.
    artifacts
        Address of the artifacts of new experiments: ``file://``, or one in a bucket.
    experiment
        Experiment of all runs: the source of the ledger.
    page
        Address of MLflow's pages for links; empty for that of the store, where it is a server.
    """

    uri: str = field(repr=False)
    artifacts: str
    experiment: str
    page: str = ""

    @property
    def address(self) -> str:
        """The address of MLflow's pages, without a slash at the end; empty where none is known."""
        return (self.page or (self.store if self.store.startswith(("http://", "https://")) else "")).rstrip("/")

    @property
    def store(self) -> str:
        """The store's URL without a name and a password: whoever may read it may not log in as its writer."""
        return re.sub("//[^/@]*@", "//", self.uri)

    def _mlflow(self) -> tuple[Any, str]:
        """Return MLflow's module, set to this store, and the id of the experiment."""
        # The import takes seconds, and only stages that train or promote need it.
        import logging

        import mlflow

        for noisy in ("mlflow", "alembic"):
            logging.getLogger(noisy).setLevel(logging.WARNING)
        mlflow.set_tracking_uri(self.uri)
        return mlflow, _find_experiment(self)

    @contextmanager
    def lock_store(self) -> Iterator[None]:
        """Lock the store, so that one process alone creates its tables and its experiment; a server creates them itself."""
        if self.uri.startswith("sqlite:///"):
            from filelock import FileLock

            file = Path(self.uri.removeprefix("sqlite:///"))
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_suffix(".lock")):
                yield
        elif self.uri.startswith("postgresql"):
            import sqlalchemy

            with sqlalchemy.create_engine(self.uri, poolclass=sqlalchemy.NullPool).begin() as connection:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(hashtextextended('finrisk mlflow', 0))"))
                yield
        else:
            yield

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str]) -> Iterator[Any]:
        """Open an MLflow run for the block, and yield the mlflow module."""
        mlflow, experiment = self._mlflow()
        with mlflow.start_run(run_name=name, tags=dict(tags), experiment_id=experiment):
            yield mlflow

    def find_experiment(self) -> str:
        """Return the id of the experiment.

        Raises
        ------
        LookupError
            If it was not made yet; it is not made here.
        """
        if self.uri.startswith("sqlite:///") and not Path(self.uri.removeprefix("sqlite:///")).is_file():
            raise LookupError(f"there is no experiment at {self.store}")
        import mlflow

        experiment = mlflow.MlflowClient(self.uri).get_experiment_by_name(self.experiment)
        if experiment is None:
            raise LookupError(f"there is no experiment {self.experiment} at {self.store}")
        return str(experiment.experiment_id)

    def client(self) -> Any:
        """Return MLflow's client, for work that belongs to no open run."""
        return self._mlflow()[0].MlflowClient()


TrackingResource = dg.ResourceParam[Tracking]
"""MLflow as a parameter of an asset or a check."""


@cache
def _find_experiment(tracking: Tracking) -> str:
    """Return the id of the experiment, created where there is none; a process asks the store once, not in each of its steps."""
    import mlflow

    with tracking.lock_store():
        known = mlflow.get_experiment_by_name(tracking.experiment)
        return str(
            mlflow.create_experiment(tracking.experiment, artifact_location=tracking.artifacts, tags=EXPERIMENT_TAGS)
            if known is None
            else known.experiment_id
        )
