"""Parts of a table by customers, for code that cannot hold a whole table."""

from collections.abc import Iterator

import ibis.expr.types as ir

PART_ROWS = 500_000
"""Rows of a part at most, where no customer has more. More need more memory; fewer read the table more often."""


def split_by_customers(rows: ir.Table, part_rows: int = PART_ROWS) -> Iterator[ir.Table]:
    """Yield the rows of a table in parts of whole customers, in the order of their identifiers; a small table is one part.

    Parameters
    ----------
    rows
        With the column `customer_id`, which is never null.
    """
    counts = rows.group_by("customer_id").agg(n=rows.count()).order_by("customer_id").to_pyarrow()
    customers, sizes = counts["customer_id"].to_pylist(), counts["n"].to_pylist()
    if sum(sizes) <= part_rows:
        yield rows
        return
    first, total = 0, 0
    for place, size in enumerate(sizes):
        if total and total + size > part_rows:
            yield rows.filter(rows.customer_id.between(customers[first], customers[place - 1]))
            first, total = place, 0
        total += size
    yield rows.filter(rows.customer_id.between(customers[first], customers[-1]))
