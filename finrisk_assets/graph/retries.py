"""Faults that pass by themselves, and how they are waited out: a lock that another process holds, a connection that was cut.

Bad data, a wrong setting or a bug never is one: those fail at once, and once.
"""

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dagster as dg

Result = TypeVar("Result")

ATTEMPTS = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0

_SAID = re.compile(
    r"could not set lock|conflicting lock|database is locked|connection (was )?(reset|refused|closed|aborted)|broken pipe"
    r"|server closed the connection|terminating connection|deadlock detected|could not serialize access|too many (clients|connections)",
    re.IGNORECASE,
)
"""What DuckDB, SQLite, PostgreSQL and the network say of such faults; their classes differ with the driver."""


def is_transient(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, passes by itself."""
    while error is not None:
        if isinstance(error, ConnectionError) or _SAID.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def wait_s(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Seconds before the next attempt: twice as long each time, and up to half of that off, so that those who wait do not meet again.

    Parameters
    ----------
    attempt
        How many attempts have failed, from 1.
    chance
        Draws from the unit interval.
    """
    longest = min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S)
    return longest * (1 - chance() / 2)


def patiently(action: Callable[[], Result], attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Carry out an action, again after a wait where a fault is transient; the last attempt's error is raised."""
    for attempt in range(1, attempts):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            sleep(wait_s(attempt))
    return action()


@contextmanager
def asks_for_a_retry(attempts_before: int, forget: Callable[[], None]) -> Iterator[None]:
    """Turn a transient fault inside a step into Dagster's request to run the step again; every other error stays what it is.

    Parameters
    ----------
    attempts_before
        How often this step has been retried.
    forget
        Gives up the connection that failed, so that the next attempt opens one of its own.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, dg.RetryRequested) or not is_transient(error):
            raise
        forget()
        raise dg.RetryRequested(ATTEMPTS - 1, wait_s(attempts_before + 1)) from error
