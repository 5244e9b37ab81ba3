"""The reference pages that are written from the code: `python -m book.reference` writes them into `docs/reference/`.

Commands come from click, routes and their types from the OpenAPI document, tables and assets from the graph of the simulator, metrics
from the registries that Prometheus reads. The pages are never edited by hand; a test compares each with the code.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
_HEAD = "Written by `python -m book.reference`; never edited by hand."


def _cell(text: object) -> str:
    """Return a text as the cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table, with an empty line before and after; no lines without rows."""
    headings = list(headings)
    lines = [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return ["", f"| {' | '.join(headings)} |", "|" + "---|" * len(headings), *lines, ""] if lines else []


def _page(title: str, *parts: str) -> str:
    text = "\n".join([f"# {title}", "", _HEAD, *parts])
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


# Commands --------------------------------------------------------------------------------------------------------------------


def write_commands() -> str:
    """Return the page of all commands, with their arguments and options."""
    from finrisk_assets.cli.main import cli

    lines = [
        "",
        "`./finrisk` is the command line of a checkout; its tables read at 80 columns and in a pipe. [Settings](../settings.md) come from",
        "the environment. `--help` shows the same as this page.",
        "",
    ]
    for name, command in _list_commands(cli, "finrisk"):
        lines += [f"## {name}", "", *_describe_command(command, name)]
    return _page("Commands", *lines)


def _list_commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    """Yield every command below a group that does something, with its whole name."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            if command.invoke_without_command:
                yield f"{prefix} {name}", command
            yield from _list_commands(command, f"{prefix} {name}")
        else:
            yield f"{prefix} {name}", command


def _describe_command(command: click.Command, name: str) -> list[str]:
    context = click.Context(command, info_name=name)
    usage = f"Usage: `{name} {' '.join(command.collect_usage_pieces(context))}`"
    records = (parameter.get_help_record(context) for parameter in command.params)
    rows = ((f"`{record[0]}`", record[1]) for record in records if record and record[1])
    return [" ".join((command.help or "").split()), "", usage, *_table(("option", "meaning"), rows), ""]


# API -------------------------------------------------------------------------------------------------------------------------


def write_api() -> str:
    """Return the page of all routes of the OpenAPI document, and of the types of their requests and answers."""
    from bento.access.roles import ANY_ROLE, OPEN, ROUTES
    from bento.service import FinRisk
    from bento.web.api_page.route_pages import complete_document
    from bento.web.openapi import build_app, build_document

    document = complete_document(build_document(build_app(), FinRisk, {}, {}), has_lock=True)
    callers = {(route.method.lower(), route.path): route.roles for route in ROUTES}
    words = {OPEN: "everybody", ANY_ROLE: "any role"}
    lines = [
        "",
        "A running service has the same as a page at `/docs` and as a document at `/openapi.json`, with examples of its own models.",
        "[The service](../service.md) says how a request is decided, [access control](../access.md) who may send it. Every failure is an",
        "[`ErrorEnvelope`](#errorenvelope).",
        "",
    ]
    for group in document["tags"]:
        lines += [f"## {group['name'].capitalize()}", "", group["description"], ""]
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [group["name"]]:
                    roles = callers[method, path]
                    lines += _describe_route(method, path, operation, words.get(roles, ", ".join(sorted(roles))))
    lines += ["## Types", ""]
    for name, schema in sorted(document["components"]["schemas"].items()):
        lines += [f"### {name}", "", " ".join(schema.get("description", "").split()), *_describe_fields(schema)]
    return _page("API", *lines)


def _describe_route(method: str, path: str, operation: Mapping[str, Any], roles: str) -> list[str]:
    lines = [f"### `{method.upper()} {path}`", "", f"{operation['summary']}.", "", operation["description"], ""]
    answer = operation["responses"]["200"]["content"]["application/json"]["schema"]
    lines.append(f"- Callers: {roles}")
    if "requestBody" in operation:
        lines.append(f"- Request: {_type_of(operation['requestBody']['content']['application/json']['schema'])}")
    lines += [f"- Answer: {_type_of(answer)}", ""]
    parameters = operation.get("parameters", [])
    rows = (
        (f"`{part['name']}`", part["in"], _type_of(part["schema"]), _default(part["schema"], part.get("required", False)),
         part.get("description", part["schema"].get("description", "")))
        for part in parameters if part["in"] != "header"
    )  # fmt: skip
    return [*lines, *_table(("parameter", "in", "type", "default", "meaning"), rows)]


def _describe_fields(schema: Mapping[str, Any]) -> list[str]:
    required = set(schema.get("required", ()))
    rows = (
        (f"`{name}`", _type_of(field), _default(field, name in required), field.get("description", ""))
        for name, field in schema.get("properties", {}).items()
    )
    return _table(("field", "type", "default", "meaning"), rows)


def _default(schema: Mapping[str, Any], is_required: bool) -> str:
    if is_required:
        return "required"
    return f"`{schema['default']}`" if schema.get("default") is not None else ""


def _type_of(schema: Mapping[str, Any]) -> str:
    """Return the type of a value in words, with a link where it is a type of its own."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return f"[`{name}`](#{name.lower()})"
    if "anyOf" in schema:
        kinds = dict.fromkeys(_type_of(part) for part in schema["anyOf"])
        return " or ".join(kinds)
    if "enum" in schema or "const" in schema:
        return " or ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {_type_of(schema.get('items', {}))}"
    values = schema.get("additionalProperties")
    if schema.get("type") == "object" and isinstance(values, Mapping):
        return f"map to {_type_of(values)}"
    if schema.get("format") == "date-time":
        return "time"
    return str(schema.get("type", "any"))


# Tables and assets -----------------------------------------------------------------------------------------------------------


def write_tables() -> str:
    """Return the page of the ledger's tables, of features and of batch scores, column by column."""
    from schemas.ledger import TABLES

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
        lines += _table(("column", "type", "unit", "personal", "known", "", "meaning"), rows)
    nodes = _list_assets()
    for prefix, title, text in (
        ("features_", "Features", "One row for each decision, computed as of its time."),
        ("scores_", "Scores", "One row for each decision of the champion over the whole population."),
    ):
        lines += [f"## {title}", "", text, ""]
        for name, node in nodes.items():
            if name.startswith(prefix):
                schema = node.metadata["dagster/column_schema"]
                lines += [f"### {name}", "", " ".join((node.description or "").split())]
                lines += _table(
                    ("column", "type", "personal", "meaning"),
                    ((f"`{column.name}`", column.type, column.tags.get("personal", ""), column.description) for column in schema.columns),
                )
    return _page("Tables", *lines)


def write_assets() -> str:
    """Return the page of all assets of the simulator's graph, by group, with what each reads and the checks that guard it."""
    nodes = _list_assets()
    graph = _resolve_graph()
    checks: dict[str, list[str]] = {}
    for key in graph.asset_check_keys:
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
        lines += [f"## {group.replace('_', ' ').capitalize()}", *_table(("asset", "holds", "", "reads", "checks"), rows)]
    return _page("Assets", *lines)


def _group_order(group: str) -> tuple[int, str]:
    """Return the place of a group: the ledger first, the service last."""
    return {"ledger": 0, "serving": 2}.get(group, 1), group


def _list_assets() -> dict[str, Any]:
    """Return the nodes of the simulator's asset graph by name."""
    graph = _resolve_graph()
    return {key.to_user_string(): graph.get(key) for key in sorted(graph.get_all_asset_keys())}


def _resolve_graph() -> Any:
    from finrisk_assets.graph.build import build_definitions
    from finrisk_assets.settings import Settings

    return build_definitions(Settings()).resolve_asset_graph()


# Metrics ---------------------------------------------------------------------------------------------------------------------


def write_metrics() -> str:
    """Return the page of the metrics of the service and of the stream's worker."""
    from bento.stream.stream_metrics import StreamMetrics
    from bento.web.metrics import Metrics

    service = list(_list_metrics(Metrics().registry))
    stream = [row for row in _list_metrics(StreamMetrics().shared.registry) if row not in service]
    headings = ("metric", "type", "labels", "meaning")
    return _page(
        "Metrics",
        "",
        "In Prometheus' text format. [Operating the service](../operations.md#metrics) says what to watch.",
        "",
        "## The service",
        "",
        "At `/metrics` of the service, all workers added up.",
        *_table(headings, service),
        "## The stream",
        "",
        "At `/metrics` of each worker ([the stream](../streaming.md)), beside those of the service.",
        *_table(headings, stream),
    )


def _list_metrics(registry: Any) -> Iterator[tuple[str, str, str, str]]:
    for collector in dict.fromkeys(registry._collector_to_names):
        name = f"{collector._name}_total" if collector._type == "counter" else collector._name
        yield f"`{name}`", collector._type, ", ".join(collector._labelnames), collector._documentation


PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": write_commands,
    "api.md": write_api,
    "tables.md": write_tables,
    "assets.md": write_assets,
    "metrics.md": write_metrics,
}
"""Name of a page in `docs/reference/` -> what writes it."""


@click.command()
def main() -> None:
    """Write the reference pages into docs/reference/."""
    FOLDER.mkdir(exist_ok=True)
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
