"""Independent work side by side.

Each piece computes on one thread, so that how many there are at a time changes no sum (`provenance.fixed_threads`).
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def each(work: Callable[[Item], Result], items: Iterable[Item], threads: int) -> list[Result]:
    """Do the same with every item, as many at a time as there are threads; return the results in the order of the items.

    It helps where the work is done outside Python's lock, as fitting is: two models fitted side by side on one thread each are ready
    sooner than one after the other on two.
    """
    with ThreadPoolExecutor(max(threads, 1), thread_name_prefix="finrisk-fit", initializer=_on_one_thread) as pool:
        return list(pool.map(work, items))


def _on_one_thread() -> None:
    # OpenMP keeps its limit for each thread that asks.
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)
