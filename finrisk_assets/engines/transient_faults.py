"""Transient faults: a lock that another process holds, a connection that was cut. They are waited out.

Bad data, a wrong setting and a bug are not transient: they fail at once.
"""

import random
import re
import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

ATTEMPTS = 4
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 30.0

_TRANSIENT_MESSAGE = re.compile(
    r"could not set lock|conflicting lock|database is locked|broken pipe|no connection to the server|ssl syscall error"
    r"|connection ((is|was|has been) )?(reset|refused|closed|aborted)|server closed the connection|terminating connection"
    r"|deadlock detected|could not serialize access|too many (clients|connections)"
    r"|database system is (starting up|in recovery mode|shutting down|not yet accepting connections)"
    r"|connection to server on socket \S+ failed: no such file"
    # A temporary table that went with a session of PostgreSQL: what filled it is run again.
    r"|relation \"(finrisk|ibis)_\w+\" does not exist",
    re.IGNORECASE,
)
"""Error texts of DuckDB, SQLite, PostgreSQL and the network; the error classes differ with the driver."""


def is_transient(error: BaseException | None) -> bool:
    """Return whether an error, or one of its causes, is transient."""
    while error is not None:
        if isinstance(error, ConnectionError) or _TRANSIENT_MESSAGE.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def backoff_s(attempt: int, chance: Callable[[], float] = random.random) -> float:
    """Return the seconds to wait before the next attempt: exponential backoff with jitter.

    The wait doubles each time, less a random share of up to half, so that waiting processes do not collide again.

    Parameters
    ----------
    attempt
        Number of failed attempts, from 1.
    chance
        Source of random numbers in the unit interval.
    """
    longest = min(FIRST_WAIT_S * 2 ** (attempt - 1), LONGEST_WAIT_S)
    return longest * (1 - chance() / 2)


def with_retries(action: Callable[[], Result], attempts: int = ATTEMPTS, sleep: Callable[[float], None] = time.sleep) -> Result:
    """Run an action, retry after a wait while its fault is transient, and raise the last attempt's error."""
    for attempt in range(1, attempts):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            sleep(backoff_s(attempt))
    return action()
