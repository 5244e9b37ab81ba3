"""The log of a served process: which loggers write, and what no line may hold.

BentoML configures logging when a worker starts, and so disables every logger that exists by then: in one process that is each logger of
the service and of its libraries, under `bentoml serve` those of Python's own modules, such as ``asyncio``.
"""

import logging
import traceback
from typing import Any

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    # BentoML's access log is off unless its configuration enables it; its lines have the level INFO.
    "loggers": {"finrisk": {"level": "INFO"}, "bentoml.access": {"level": "INFO"}},
}
"""Warnings of every library, all lines of the service and the access log, on the standard error stream."""


def enable_loggers() -> None:
    """Enable every logger again, and keep messages of exceptions, which may hold a person's data, out of the log of each library."""
    for name in list(logging.Logger.manager.loggerDict):
        logging.getLogger(name).disabled = False
    for logger in (logging.root, logging.getLogger("bentoml"), logging.getLogger("uvicorn.error")):
        for handler in logger.handlers:
            if omit_exception_message not in handler.filters:
                handler.addFilter(omit_exception_message)


def omit_exception_message(record: logging.LogRecord) -> bool:
    """Replace the exception of a log record by its type and the places it passed; keep the record."""
    if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
        kind, _, passed = record.exc_info
        record.exc_text = "".join([*traceback.format_tb(passed), kind.__name__])
        record.exc_info = None
    return True
