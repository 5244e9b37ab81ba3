"""Rate limits: a token bucket for each name, in the memory of one worker.

A bucket holds `burst` tokens and gains `per_second` tokens a second; a request takes one token. Workers do not share buckets, so a service
of several workers accepts up to that many times the rate. A gateway in front of the service sets the final limit.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

MAX_BUCKETS = 10_000
"""Buckets in memory. Beyond that number the longest unused bucket is dropped, and its name starts with a full one."""


class Rate(NamedTuple):
    """The rate of requests under one name.

    Attributes
    ----------
    per_second
        Requests a second in the long run.
    burst
        Requests at once after a pause.
    """

    per_second: float
    burst: float


class RateLimiter:
    """The token buckets of all names that share a rate.

    Parameters
    ----------
    rate
        Rate of each name.
    clock
        Seconds of a clock that never goes back.

    Raises
    ------
    ValueError
        If the rate lets no request through.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate.per_second > 0 and rate.burst >= 1):
            raise ValueError(f"a rate needs more than 0 requests a second and a burst of at least 1, not {rate}")
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> tokens, and the time at which they were counted

    def take_token(self, name: str) -> float:
        """Take a token from the bucket of this name. Return 0.0 on success, else the seconds until there is a token."""
        now = self._clock()
        tokens, counted_at = self._buckets.get(name, (self._rate.burst, now))
        tokens = min(self._rate.burst, tokens + (now - counted_at) * self._rate.per_second)
        has_token = tokens >= 1.0
        self._buckets[name] = (tokens - has_token, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if has_token else (1.0 - tokens) / self._rate.per_second
