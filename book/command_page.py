"""The page of all commands, from click."""

from collections.abc import Iterator

import click

from book.markdown import format_page, format_table
from finrisk_assets.cli.main import cli


def write_commands() -> str:
    """Return the page of all commands, with their arguments and options."""
    lines = [
        "",
        "`./finrisk` is the command line of a checkout; its tables read at 80 columns and in a pipe. [Settings](../settings.md) come from",
        "the environment. `--help` shows the same as this page.",
        "",
    ]
    for name, command in _list_commands(cli, "finrisk"):
        lines += [f"## {name}", "", *_describe_command(command, name)]
    return format_page("Commands", *lines)


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
    return [" ".join((command.help or "").split()), "", usage, *format_table(("option", "meaning"), rows), ""]
