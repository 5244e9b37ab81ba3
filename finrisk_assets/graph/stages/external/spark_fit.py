"""The fit on Spark of a model's step: rows go into a folder, a process of its own fits, and Dagster Pipes brings its lines and figures.

The process has the session of Spark for itself. Whatever becomes of it, the step goes on.
"""

import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterPipesExecutionError
from ibis.expr.types import Table as LazyTable

from finrisk_assets.domains.ledger_fit import FEATURES, KEY, LABEL, TeachingRows
from finrisk_assets.engines.spark import spark_job
from finrisk_assets.engines.spark.spark_training import ROWS, write_task
from finrisk_assets.engines.spark.spark_url import SCHEME, SparkUrl
from finrisk_assets.graph.progress import NOTE
from finrisk_assets.graph.warehouse import Warehouse, count
from finrisk_assets.settings import Settings

FITTED_ROWS = "spark_rows"
"""The tag of a version, and the metadata of its asset, with the number of rows that a Spark fitted its candidates on."""


@dataclass
class SparkFit:
    """The fit of XGBoost's models by the workers of the warehouse's Spark, a `LedgerFit`.

    Attributes
    ----------
    others
        The feature table of the customers who are not in the sample.
    metadata
        What the last fit reported; empty where none ended.
    """

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    others: LazyTable
    settings: Settings
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, context: dg.AssetExecutionContext, warehouse: Warehouse, features: LazyTable, sample: LazyTable, settings: Settings
    ) -> "SparkFit | None":
        """Return the fit of a feature table, `sample` of which trains on one node; None where the settings have none for it."""
        is_on_spark = settings.spark_training_rows and settings.warehouse.startswith(SCHEME)
        if not is_on_spark or count(features) <= settings.spark_training_rows:
            return None
        if SparkUrl.parse(settings.warehouse).is_connect:
            context.log.warning(f"{NOTE}Spark Connect does not tell its slots: XGBoost is fitted on the sample, on one node")
            return None
        return cls(context, warehouse, features.anti_join(sample, "customer_id"), settings)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a version whose candidates were fitted here."""
        return {FITTED_ROWS: str(self.metadata[FITTED_ROWS].value)} if self.metadata else {}

    def __call__(self, models: Mapping[str, Any], rows: TeachingRows) -> Mapping[str, Any]:
        """Return models fitted on the rows of all customers, by name; none where the fit did not end, and a line says why."""
        # In the home, which the workers reach under the same path.
        with tempfile.TemporaryDirectory(dir=self.settings.root, prefix="training-") as path:
            folder = Path(path)
            self._write_rows(rows, folder / ROWS)
            write_task(folder, self.settings.warehouse, models, self.settings.spark_training_wait_minutes * 60)
            if not SparkUrl.parse(self.settings.warehouse).master.startswith("local"):
                self.warehouse.close()  # it holds the slots that the fit needs
            fault = self._run(folder)
            if fault:
                names = ", ".join(models)
                self.context.log.warning(f"{NOTE}{names}: the fit on the sample, on one node, stands, because on Spark {fault}")
                return {}
            return {name: _load(model, folder / f"{name}.ubj") for name, model in models.items()}

    def _write_rows(self, rows: TeachingRows, folder: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        folder.mkdir()
        pq.write_table(pa.Table.from_batches([rows.sample]), folder / "sample.parquet")
        engine: Any = self.warehouse.engine
        schema = pa.schema([(KEY, pa.string()), (LABEL, pa.float32()), (FEATURES, pa.list_(pa.float32()))])
        others = rows.select(self.others).select(*rows.encoder.columns)
        engine.write_files(engine.map_batches(others, rows.encoder, schema, key=rows.encoder.key, file=folder, threads=1), folder)

    def _run(self, folder: Path) -> str:
        """Run the program that fits; return why it made no models, or nothing."""
        submit = self.settings.spark_submit
        try:
            command = [*shlex.split(submit), spark_job.__file__] if submit else [sys.executable, "-m", spark_job.__name__]
            done = dg.PipesSubprocessClient().run(context=self.context, command=[*command, str(folder)])
        except (DagsterPipesExecutionError, OSError, ValueError) as error:
            return f"its program failed ({error})"
        faults = [message[spark_job.FAULT] for message in done.get_custom_messages()]
        if not faults:
            self.metadata = done.get_materialize_result().metadata or {}
        return "; ".join(faults)


def _load(model: Any, file: Path) -> Any:
    """Return a model with the settings of another one, and the trees of a file."""
    from sklearn.base import clone

    fitted = clone(model)
    fitted.load_model(file)
    for name, value in model.get_params().items():  # the file's own take their place
        setattr(fitted, name, value)
    return fitted
