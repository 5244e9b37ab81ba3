"""The table of roles in docs/access.md."""

from pathlib import Path

from bento.access.roles import OPEN

PAGE = Path(__file__).parents[2] / "docs" / "access.md"


def read_access_table() -> dict[tuple[str, str], frozenset[str]]:
    """Return method and path of every line of the page's table, with the roles that may call it."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    heads = [head.strip() for head in lines[0].strip("|").split("|")][1:]
    table = {}
    for line in lines[2:]:
        route, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        method, path = route.strip("`").split()
        assert set(cells) <= {"open", "yes", ""}, line
        roles = {head for head, cell in zip(heads, cells, strict=True) if cell == "yes"}
        table[method, path] = OPEN if set(cells) == {"open"} else frozenset(roles)
    return table
