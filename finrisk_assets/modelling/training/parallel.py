"""Independent tasks in parallel.

Each task computes on one thread, so that the number of parallel tasks changes no sum (`provenance.limit_threads`).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
First = TypeVar("First")
Second = TypeVar("Second")


def map_threads(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Return the results of a function for every item, in the order of the items, with up to `threads` calls at a time.

    This is faster where the work happens outside Python's global lock, as fitting does: two models fitted in parallel on one thread each
    are ready sooner than in sequence on two.
    """
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="finrisk-fit", initializer=_limit_to_one_thread) as pool:
        return list(pool.map(work, items))


def run_both(first: Callable[[], First], second: Callable[[], Second], threads: int) -> tuple[First, Second]:
    """Return the results of two functions, carried out side by side where there are two threads."""
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="finrisk-pair", initializer=_limit_to_one_thread) as pool:
        results = pool.submit(first), pool.submit(second)
        return results[0].result(), results[1].result()


def map_in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield the results as `map_threads` returns them; no more than `threads` items are in memory at a time."""
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="finrisk-score", initializer=_limit_to_one_thread) as pool:
        rest = iter(items)
        while group := list(islice(rest, max(threads, 1))):
            yield from pool.map(work, group)


def _limit_to_one_thread() -> None:
    # OpenMP's limit holds per calling thread.
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
