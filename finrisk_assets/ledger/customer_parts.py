"""Parts of a table by customers, for code that cannot hold a whole table."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import ibis.expr.types as ir

PART_ROWS = 500_000
"""Rows of a part at most, where no customer has more. More need more memory; fewer read the table more often."""


@dataclass(frozen=True)
class CustomerRange:
    """The customers from one identifier to another, both included, in the warehouse's order of texts; everyone without `bounds`."""

    bounds: tuple[str, str] | None = None

    def select(self, rows: ir.Table) -> ir.Table:
        """Return the rows of these customers, of a table with the column `customer_id`."""
        return rows if self.bounds is None else rows.filter(rows.customer_id.between(*self.bounds))


def list_customer_ranges(rows: ir.Table, part_rows: int | None = None) -> Sequence[CustomerRange]:
    """Return ranges of customers that have at most `part_rows` rows together, in order; everyone where a table is small.

    Parameters
    ----------
    rows
        With the column `customer_id`, which is never null.
    part_rows
        `PART_ROWS` where None.
    """
    most = PART_ROWS if part_rows is None else part_rows
    counts = rows.group_by("customer_id").agg(n=rows.count()).order_by("customer_id").to_pyarrow()
    customers, sizes = counts["customer_id"].to_pylist(), counts["n"].to_pylist()
    if sum(sizes) <= most:
        return [CustomerRange()]
    ranges, first, total = [], 0, 0
    for place, size in enumerate(sizes):
        if total and total + size > most:
            ranges.append(CustomerRange((customers[first], customers[place - 1])))
            first, total = place, 0
        total += size
    return [*ranges, CustomerRange((customers[first], customers[-1]))]


def split_by_customers(rows: ir.Table, part_rows: int | None = None) -> Iterator[ir.Table]:
    """Yield the rows of a table in parts of whole customers, as `list_customer_ranges` bounds them."""
    for customers in list_customer_ranges(rows, part_rows):
        yield customers.select(rows)
