"""Processes that share a standalone master: its cores, and the Python of its workers."""

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.cluster.cluster import Standalone, standalone
from tests.conftest import SPARK_SETTINGS

QUIET_S = 3.0
"""Seconds in which a process that waits for cores must not answer: a worker begins sooner."""

HOLD = """
import sys
from finrisk_assets.engines.spark.spark_engine import start_session
from finrisk_assets.engines.spark.spark_url import check_spark
context = start_session(check_spark(sys.argv[1]), has_tables=False).sparkContext
print("started", flush=True)
print(*context.parallelize([0], 1).map(lambda _: sys.executable).collect(), flush=True)
sys.stdin.read()
"""
"""A process that prints the Python of a worker, and keeps its cores until its input ends."""


@pytest.fixture(scope="module")
def cluster(java: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone(tmp_path_factory.mktemp("cluster"), 2) as running:
        yield running


@contextmanager
def process(cluster: Standalone, python: str = sys.executable, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process on the master's cores, which it gives back at the end of the block."""
    options = SPARK_SETTINGS | {"spark.executor.memory": "700m", "spark.driver.host": "127.0.0.1", "warehouse": "/none"} | settings
    command = [sys.executable, "-c", HOLD, f"pyspark://{cluster.url}?{urlencode(options)}"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | {"PYSPARK_PYTHON": python}, text=True, **pipes) as running:
        assert running.stdout.readline() == "started\n"
        yield running
        running.stdin.close()


def test_a_process_takes_all_cores_and_another_one_waits_unless_a_setting_leaves_some(cluster: Standalone) -> None:
    with ExitStack() as stack:
        with process(cluster) as first:
            assert first.stdout.readline() == f"{sys.executable}\n"
            second = stack.enter_context(process(cluster, **{"spark.cores.max": "1"}))
            assert not select.select([second.stdout], [], [], QUIET_S)[0]
        assert second.stdout.readline() == f"{sys.executable}\n"
        third = stack.enter_context(process(cluster))
        assert third.stdout.readline() == f"{sys.executable}\n"


def test_the_workers_have_the_python_that_a_variable_of_the_driver_names(cluster: Standalone, tmp_path: Path) -> None:
    (tmp_path / "environment").symlink_to(sys.prefix)
    python = str(tmp_path / "environment" / "bin" / "python")
    with process(cluster, python) as driver:
        assert driver.stdout.readline() == f"{python}\n"
