"""Tests of the log of a served process: what fails stands in it, and no exception's message does."""

import json
import logging
import logging.config
import sqlite3
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from bentoml._internal.log import SERVER_LOGGING_CONFIG

from bento.web.server_log import enable_loggers, omit_exception_message
from tests.service.examples import CASHFLOW_ROW
from tests.service.serving import serving as served_by_itself
from tests.service.serving import store_models


@pytest.fixture
def logging_as_before():
    """Put the loggers' handlers, levels and states back."""
    loggers = [logging.root, *(logging.getLogger(name) for name in logging.root.manager.loggerDict)]
    before = [(logger, logger.level, logger.propagate, list(logger.handlers), logger.disabled) for logger in loggers]
    yield
    for logger, level, propagate, handlers, disabled in before:
        logger.setLevel(level)
        logger.propagate, logger.handlers, logger.disabled = propagate, handlers, disabled


@pytest.mark.parametrize("name", ["finrisk.service", "alembic.runtime.migration", "asyncio", "sqlalchemy.pool", "bentoml.serve"])
def test_every_logger_that_bentoml_disabled_writes_again(logging_as_before, name):
    logger = logging.getLogger(name)
    logging.config.dictConfig(SERVER_LOGGING_CONFIG)
    enable_loggers()

    assert not logger.disabled
    assert logger.isEnabledFor(logging.ERROR)


def test_a_line_has_the_type_of_an_exception_and_where_it_was_and_not_its_message(logging_as_before, capsys):
    logger = logging.getLogger("asyncio")
    logging.config.dictConfig(SERVER_LOGGING_CONFIG)
    enable_loggers()
    message = "Ada Lovelace"
    try:
        raise ValueError(message)
    except ValueError:
        logger.exception("a task failed")

    written = capsys.readouterr().out
    assert "a task failed" in written
    assert "ValueError" in written and "test_server_log.py" in written
    assert "Lovelace" not in written


def test_a_record_without_an_exception_is_left_as_it_is():
    record = logging.LogRecord("one", logging.ERROR, "", 1, "message", None, None)
    assert omit_exception_message(record)
    assert (record.exc_info, record.exc_text) == (None, None)


@pytest.mark.slow
def test_under_bentoml_serve_a_failure_is_logged_under_the_request_id_that_the_client_got(tmp_path: Path, bundles: dict[str, Path]):
    models = store_models(tmp_path / "models", {"cashflow": bundles["cashflow"]})
    with served_by_itself(models, tmp_path / "home", tmp_path / "serve.log") as served:
        body = json.dumps({"features": CASHFLOW_ROW}).encode()
        request = urllib.request.Request(f"{served.address}/v1/cashflow", body, {"Content-Type": "application/json"})
        with closing(sqlite3.connect(tmp_path / "home" / "simulator" / "service" / "store.sqlite", isolation_level=None)) as other:
            other.execute("begin immediate")
            with pytest.raises(urllib.error.HTTPError) as failed:
                urllib.request.urlopen(request, timeout=10)
            other.execute("rollback")
    failed.value.close()

    lines = [line for line in (tmp_path / "serve.log").read_text().splitlines() if failed.value.headers["x-request-id"] in line]
    assert any("failed with" in line for line in lines)
    assert any("is answered with 503" in line for line in lines)
