"""Joins of an application for a loan, as Ibis expressions: the columns of its customer and account.

Every column that is added begins with an underscore; `catalogue` turns the columns into features. The sums over the borrower's ledger are
those of `ledger.complete_months`.
"""

from collections.abc import Collection

import ibis
import ibis.expr.types as ir


def join_owner(rows: ir.Table, owners: ir.Table, key: str, known_at: str, names: Collection[str]) -> ir.Table:
    """Join columns of the loan's customer or account, each null where it became known after the application.

    Parameters
    ----------
    rows
        Loans, with `key` and ``applied_at``.
    owners
        Customers or accounts, one row per `key`.
    known_at
        Column of `owners`: when the owner became known.
    names
        Columns of `owners` to join, each under its name with an underscore before it.
    """
    columns = owners.select(_owner=owners[key], **{f"_{name}": owners[name] for name in {*names, known_at}})
    joined = rows.left_join(columns, rows[key] == columns._owner).drop("_owner")
    # Where either time is unknown, the source's word is taken.
    is_known = (joined[f"_{known_at}"] <= joined.applied_at).fill_null(True)
    return joined.mutate(**{f"_{name}": is_known.ifelse(joined[f"_{name}"], ibis.null()) for name in sorted(names)})
