"""How often somebody may ask: a token bucket for each name, in the memory of this worker.

A bucket holds `burst` tokens and gains `per_second`; a request takes one. Workers do not share buckets, so a service of several
workers lets through up to that many times the rate; the gateway before it has the last word.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

MOST_BUCKETS = 10_000
"""Names that are remembered; beyond them the one that has not asked for longest is forgotten, its bucket full again."""


class Rate(NamedTuple):
    """How often somebody may ask.

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
    """The buckets of all who ask at one rate.

    Parameters
    ----------
    clock
        Seconds that only go forward.

    Raises
    ------
    ValueError
        For a rate that would let nobody through.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate.per_second > 0 and rate.burst >= 1):
            raise ValueError(f"a rate lets more than none through in the long run and at least one at once, not {rate}")
        self._rate = rate
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name -> tokens, when they were counted

    def wait(self, name: str) -> float:
        """Take a token: 0.0 where there was one, else the seconds after which there will be."""
        now = self._clock()
        tokens, counted = self._buckets.get(name, (self._rate.burst, now))
        tokens = min(self._rate.burst, tokens + (now - counted) * self._rate.per_second)
        enough = tokens >= 1.0
        self._buckets[name] = (tokens - enough, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if enough else (1.0 - tokens) / self._rate.per_second
