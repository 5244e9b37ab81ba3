"""The Dagster resources for the clock and for MLflow. The resource for stored tables is in `graph.warehouse`."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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


class Tracking(dg.ConfigurableResource):
    """MLflow's runs, metrics, artifacts and model registry.

    Attributes
    ----------
    uri
        Tracking and registry store, SQLite by default.
    artifacts
        Folder of the artifacts of new experiments.
    experiment
        Experiment of all runs: the source of the ledger.
    page
        Address of MLflow's pages for links; empty for that of the store, where it is a server.
    """

    uri: str
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
    def lock_file(self) -> Iterator[None]:
        """Lock an SQLite tracking store, so that one process alone creates its tables and its experiment."""
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
            raise LookupError(f"there is no experiment at {self.uri}")
        import mlflow

        experiment = mlflow.MlflowClient(self.uri).get_experiment_by_name(self.experiment)
        if experiment is None:
            raise LookupError(f"there is no experiment {self.experiment} at {self.uri}")
        return str(experiment.experiment_id)

    def client(self) -> Any:
        """Return MLflow's client, for work that belongs to no open run."""
        return self._mlflow()[0].MlflowClient()


@cache
def _find_experiment(tracking: Tracking) -> str:
    """Return the id of the experiment, created where there is none; a process asks the store once, not in each of its steps."""
    import mlflow

    with tracking.lock_file():
        known = mlflow.get_experiment_by_name(tracking.experiment)
        return str(
            mlflow.create_experiment(tracking.experiment, artifact_location=Path(tracking.artifacts).as_uri(), tags=EXPERIMENT_TAGS)
            if known is None
            else known.experiment_id
        )
