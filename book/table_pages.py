"""The pages of tables and assets, from the contracts of tables and from the graph of the simulator."""

from book.asset_graph import list_assets, resolve_graph
from book.markdown import format_page, format_table
from schemas.ledger import TABLES


def write_tables() -> str:
    """Return the page of the ledger's tables, of features and of batch scores, column by column."""
    lines = [
        "",
        "Tables of the schema `analytics` of the warehouse, with the features of the [simulator](../simulator.md): a source that lacks a",
        "column has no feature of it. *Personal* is the class of personal data; *known* is when the value becomes known, which the",
        "[leakage](../leakage.md) check compares with the time of a decision. Money is in the ledger's currency, times are UTC.",
        "",
        "## The ledger",
        "",
        "`validated_<table>` has the rows that meet the contract, `quarantine_<table>` the others with their broken rules.",
        "",
    ]
    for table in TABLES.values():
        rows = (
            (f"`{column.name}`", column.dtype, column.unit, column.personal,
             column.known if column.known == "always" else f"`{column.known}`", "" if column.nullable else "required", column.description)
            for column in table.columns
        )  # fmt: skip
        lines += [f"### validated_{table.name}", "", table.description]
        lines += format_table(("column", "type", "unit", "personal", "known", "", "meaning"), rows)
    nodes = list_assets()
    for prefix, title, text in (
        ("features_", "Features", "One row for each decision, computed as of its time."),
        ("scores_", "Scores", "One row for each decision of the champion over the whole population."),
    ):
        lines += [f"## {title}", "", text, ""]
        for name, node in nodes.items():
            if name.startswith(prefix):
                schema = node.metadata["dagster/column_schema"]
                lines += [f"### {name}", "", " ".join((node.description or "").split())]
                lines += format_table(
                    ("column", "type", "personal", "meaning"),
                    ((f"`{column.name}`", column.type, column.tags.get("personal", ""), column.description) for column in schema.columns),
                )
    return format_page("Tables", *lines)


def write_assets() -> str:
    """Return the page of all assets of the simulator's graph, by group, with what each reads and the checks that guard it."""
    nodes = list_assets()
    checks: dict[str, list[str]] = {}
    for key in resolve_graph().asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    lines = [
        "",
        "The graph of the [simulator](../simulator.md), as `make dev` shows it; another source has the assets that its tables allow. An",
        "asset *by month* has a partition for each month of the ledger ([schedules](../schedules.md)).",
        "",
    ]
    for group in dict.fromkeys(sorted((node.group_name or "" for node in nodes.values()), key=_group_order)):
        rows = (
            (f"`{name}`", node.description or "", "by month" if node.partitions_def else "",
             ", ".join(f"`{parent.to_user_string()}`" for parent in sorted(node.parent_keys)),
             ", ".join(f"`{check}`" for check in sorted(checks.get(name, []))))
            for name, node in nodes.items() if node.group_name == group
        )  # fmt: skip
        lines += [f"## {group.replace('_', ' ').capitalize()}", *format_table(("asset", "holds", "", "reads", "checks"), rows)]
    return format_page("Assets", *lines)


def _group_order(group: str) -> tuple[int, str]:
    """Return the place of a group: the ledger first, the service last."""
    return {"ledger": 0, "serving": 2}.get(group, 1), group
