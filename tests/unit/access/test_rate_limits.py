"""Tests of the token buckets: bursts pass, the rate holds in the long run, and memory is bounded."""

import pytest

from bento.access import rate_limits
from bento.access.rate_limits import Rate, RateLimiter


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_burst_passes_and_then_the_rate_holds() -> None:
    clock = Clock()
    buckets = RateLimiter(Rate(per_second=10.0, burst=5), clock)

    assert [buckets.take_token("a") for _ in range(5)] == [0.0] * 5
    assert buckets.take_token("a") == 0.1
    passed = 0
    for _ in range(1_000):
        clock.seconds += 0.01
        passed += buckets.take_token("a") == 0.0
    assert 99 <= passed <= 101, "ten seconds at ten a second"


def test_one_name_does_not_use_up_anothers_tokens() -> None:
    buckets = RateLimiter(Rate(1.0, 1), Clock())

    assert buckets.take_token("a") == 0.0
    assert buckets.take_token("a") > 0.0
    assert buckets.take_token("b") == 0.0


def test_a_pause_fills_no_more_than_the_burst() -> None:
    clock = Clock()
    buckets = RateLimiter(Rate(10.0, 2), clock)
    buckets.take_token("a")
    clock.seconds = 3_600.0

    assert [buckets.take_token("a") == 0.0 for _ in range(3)] == [True, True, False]


def test_names_that_are_remembered_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(rate_limits, "MAX_BUCKETS", 10)
    buckets = RateLimiter(Rate(1.0, 1), Clock())
    for at in range(100):
        buckets.take_token(f"address {at}")

    assert all(buckets.take_token(f"address {at}") > 0.0 for at in range(90, 100)), "the newest ten are remembered as empty"
    assert buckets.take_token("address 89") == 0.0, "an older one begins anew, with a full bucket"


@pytest.mark.parametrize("rate", [Rate(0.0, 10), Rate(-1.0, 10), Rate(float("nan"), 10), Rate(1.0, 0)])
def test_a_rate_that_lets_nobody_through_is_refused(rate) -> None:
    with pytest.raises(ValueError, match="a burst of at least 1"):
        RateLimiter(rate)
