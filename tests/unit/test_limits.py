"""Token buckets: bursts pass, the long run does not exceed the rate, and memory is bounded."""

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

    assert [buckets.wait("a") for _ in range(5)] == [0.0] * 5
    assert buckets.wait("a") == 0.1
    passed = 0
    for _ in range(1_000):
        clock.seconds += 0.01
        passed += buckets.wait("a") == 0.0
    assert 99 <= passed <= 101, "ten seconds at ten a second"


def test_one_name_does_not_use_up_anothers_tokens() -> None:
    buckets = RateLimiter(Rate(1.0, 1), Clock())

    assert buckets.wait("a") == 0.0
    assert buckets.wait("a") > 0.0
    assert buckets.wait("b") == 0.0


def test_a_pause_fills_no_more_than_the_burst() -> None:
    clock = Clock()
    buckets = RateLimiter(Rate(10.0, 2), clock)
    buckets.wait("a")
    clock.seconds = 3_600.0

    assert [buckets.wait("a") == 0.0 for _ in range(3)] == [True, True, False]


def test_names_that_are_remembered_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(rate_limits, "MOST_BUCKETS", 10)
    buckets = RateLimiter(Rate(1.0, 1), Clock())
    for at in range(100):
        buckets.wait(f"address {at}")

    assert len(buckets._buckets) == 10
    assert buckets.wait("address 99") > 0.0, "the newest are remembered"


@pytest.mark.parametrize("rate", [Rate(0.0, 10), Rate(-1.0, 10), Rate(float("nan"), 10), Rate(1.0, 0)])
def test_a_rate_that_lets_nobody_through_is_refused(rate) -> None:
    with pytest.raises(ValueError, match="at least one at once"):
        RateLimiter(rate)
