"""Fixtures of all tests, and the marks that pytest needs to group and select them."""

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from finrisk_assets.settings import Settings

SLOW_FIXTURES = frozenset({"run", "spark_url", "demo"})
"""Fixtures that train every model, start a Spark, or build and serve a Bento: a test that needs one is slow."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist take the groups in the order of the collection: its own begins with the most tests, however quick."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run a file's tests on one worker; all files that use the trained ledger on the same one, and so the tests of Spark.

    So the ledger is trained once, and one Spark is started. Groups with slow tests come first, for one that is left for the end runs alone.
    A test is slow by its own fixtures, whatever the others of its file need.
    """
    trained = {item.path for item in items if "run" in getattr(item, "fixturenames", ())}
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        name = "trained" if item.path in trained else "spark" if "spark_url" in fixtures else item.path.as_posix()
        item.add_marker(pytest.mark.xdist_group(name))
        groups.setdefault(name, []).append(item)
        if not SLOW_FIXTURES.isdisjoint(fixtures):
            item.add_marker(pytest.mark.slow)
    items[:] = [item for group in sorted(groups.values(), key=_count_slow, reverse=True) for item in group]


def _count_slow(group: Sequence[pytest.Item]) -> tuple[int, int]:
    """Return the number of slow tests of a group, and of all."""
    return sum(any(item.get_closest_marker(name) for name in ("slow", "realdata")) for item in group), len(group)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of the real data sets, or skip with the reason."""
    folder = Path(os.environ.get("FINRISK_DATA_DIR") or Settings().data_dir)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FINRISK_DATA_DIR to its folder")
    return folder.resolve()


def require(program: str) -> str:
    """Return a program's path. Without the program, skip with the reason; in CI, where all programs must exist, fail."""
    path = shutil.which(program)
    if path is None:
        message = f"{program} is not installed"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return str(path)


@pytest.fixture(autouse=True)
def enable_loggers() -> None:
    """Enable finrisk's loggers: Alembic, which MLflow runs in the process of another test, disables all existing ones."""
    for name in logging.root.manager.loggerDict:
        if name.startswith("finrisk"):
            logging.getLogger(name).disabled = False


@pytest.fixture(autouse=True)
def keep_umask() -> Iterator[None]:
    """Set the umask back that the graph and the commands restrict: other tests start servers of other users."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)


SPARK_SETTINGS = {
    "spark.sql.shuffle.partitions": "1",
    # Of a small table the plans take longer than the rows: they are made once, and no code is compiled for them.
    "spark.sql.adaptive.enabled": "false",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}
"""Settings of a Spark that computes little at a time."""


@pytest.fixture(scope="session")
def new_database() -> Iterator[Callable[[], str]]:
    """Yield what creates an empty PostgreSQL database and returns its URL; its collation is Turkish where the tests can have one."""
    import psycopg
    from sqlalchemy import make_url

    from tests.service.databases import TEST_POSTGRES, TURKISH, compiled_locale, own_server

    with contextlib.ExitStack() as stack:
        if given := os.environ.get(TEST_POSTGRES, ""):
            collation = ""
        else:
            locales = stack.enter_context(compiled_locale())
            given = stack.enter_context(own_server(locales=locales)).get_uri()
            collation = f"LOCALE '{TURKISH}'" if locales else ""
        url, names = make_url(given).set(drivername="postgresql"), []
        server = url.render_as_string(hide_password=False)

        def create() -> str:
            names.append(f"finrisk_engine_{os.getpid()}_{len(names)}")
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {names[-1]} TEMPLATE template0 ENCODING 'UTF8' {collation}")
            return str(url.set(database=names[-1]).render_as_string(hide_password=False))

        yield create
        with psycopg.connect(server, autocommit=True) as connection:
            for name in names:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def spark_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the URL of a warehouse on a local Spark of one thread. Spark needs a Java 17 runtime, and Maven Central the first time."""
    require("java")
    folder = tmp_path_factory.mktemp("spark")
    settings = SPARK_SETTINGS | {"spark.sql.warehouse.dir": f"{folder / 'none'}", "spark.local.dir": f"{folder / 'scratch'}"}
    return f"pyspark://local[1]?{urlencode({'warehouse': (folder / 'tables').as_uri()} | settings)}"


@pytest.fixture(scope="session")
def spark_engine(spark_url: str) -> Iterator[Any]:
    """Yield an engine on the local Spark, which ends with the session."""
    from finrisk_assets.engines.choice import open_engine

    engine = open_engine(spark_url)
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def spark(spark_engine: Any) -> Any:
    """Return the Ibis connection of the local Spark."""
    return spark_engine.connection
