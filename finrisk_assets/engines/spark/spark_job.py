"""The program of a long job on Spark: without Dagster, whose Pipes it tells what became of it.

It takes the folder of a training: ``python -m finrisk_assets.engines.spark.spark_job <folder>``, or this file to `spark-submit`.
"""

import sys
from dataclasses import asdict
from pathlib import Path

from dagster_pipes import open_dagster_pipes

from finrisk_assets.engines.engine import EngineError
from finrisk_assets.engines.spark.spark_training import TrainingError, fit_models

FAULT = "fault"
"""Key of the message with the reason why a training ended without its models."""


def main(folder: str) -> None:
    """Fit the models of a folder, and report."""
    with open_dagster_pipes() as pipes:
        try:
            report = fit_models(Path(folder), pipes.log.info)
        except (EngineError, TrainingError) as error:
            pipes.report_custom_message({FAULT: str(error)})
        else:
            pipes.report_asset_materialization({f"spark_{name}": value for name, value in asdict(report).items()})


if __name__ == "__main__":
    main(sys.argv[1])
