"""The picture of a domain's lineage, drawn from the definitions of the graph as an SVG: `draw_lineage`."""

from html import escape

from book.asset_graph import list_assets

PLACES = {
    "raw": (0, 0.0), "truth": (0, 0.0), "validated": (1, 0.0), "totals": (1, 0.0), "features": (2, 3.2), "model": (3, 1.6),
    "evaluation": (4, 2.7), "champion": (5, 2.2), "scores": (6, 3.3), "oracle": (6, 4.6), "pack": (7, 0.5), "bento": (7, 1.7),
    "monitoring": (7, 3.9),
}  # fmt: skip
"""First word of an asset's name -> its column, and its row; several assets of one kind stand in rows one below the other."""
LEDGER_WIDTH, BOX_WIDTH, BOX_HEIGHT, ROW_HEIGHT, MARGIN, GAP = 176, 104, 46, 64, 16, 40
"""Pixels: of a box of the ledger and of a domain, from one row to the next, around the picture, and between two columns."""
_FILLS = {"ledger": "#eef2f6", "serving": "#e3f4ea"}
_DOMAIN_FILL, _INK, _LINE = "#e4effa", "#16202a", "#5b6b7a"


def draw_lineage(group: str) -> str:
    """Return the lineage of one domain as an SVG: the tables that it reads, its own assets, and the Bento.

    A table's quarantine shares the box of its valid rows, and the transactions that of their totals. Assets of other domains are left out.

    Parameters
    ----------
    group
        Group of the domain's assets, such as ``loan_default``.
    """
    nodes = list_assets()
    parents = {name: {key.to_user_string() for key in node.parent_keys} for name, node in nodes.items()}
    own = {name for name, node in nodes.items() if node.group_name == group} | {"bento"}
    shown = {parent for name in own if name != "bento" for parent in parents[name] if nodes[parent].group_name == "ledger"} | own
    shown |= {f"raw_{name.removeprefix('validated_')}" for name in shown if name.startswith("validated_")}
    for name in [name for name in shown if name.startswith("totals_")]:
        parents[name] = {"raw_transactions"}
        shown.add("raw_transactions")
    boxes = _place_boxes(sorted(shown))
    width = max(x + wide for x, _, wide in boxes.values()) + MARGIN
    height = max(y for _, y, _ in boxes.values()) + BOX_HEIGHT + MARGIN
    arrows = [_draw_arrow(boxes[parent], boxes[name]) for name in boxes for parent in sorted(parents[name] & boxes.keys())]
    labels = [_draw_box(_label(name, group), _FILLS.get(nodes[name].group_name or "", _DOMAIN_FILL), box) for name, box in boxes.items()]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="system-ui, sans-serif" font-size="14">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>\n'
    )
    return head + "\n".join([*arrows, *labels]) + "\n</svg>\n"


def _place_boxes(names: list[str]) -> dict[str, tuple[int, int, int]]:
    """Return the left edge, top and width of each asset's box."""
    boxes, taken = dict[str, tuple[int, int, int]](), dict[int, int]()
    for name in names:
        column, row = PLACES[name.split("_")[0]]
        if column < 2:
            row = taken[column] = taken.get(column, -1) + 1
        ledger, own = min(column, 2), max(column - 2, 0)
        x = MARGIN + ledger * (LEDGER_WIDTH + GAP) + own * (BOX_WIDTH + GAP)
        boxes[name] = x, round(MARGIN + row * ROW_HEIGHT), LEDGER_WIDTH if column < 2 else BOX_WIDTH
    return boxes


def _label(name: str, group: str) -> tuple[str, ...]:
    """Return the lines of an asset's box."""
    if name.startswith("validated_"):
        return name, f"quarantine_{name.removeprefix('validated_')}"
    if name.startswith("totals_"):
        return name, "validated_transactions"
    return (name.removesuffix(f"_{group}"), group) if name.endswith(group) else (name,)


def _draw_arrow(start: tuple[int, int, int], end: tuple[int, int, int]) -> str:
    x, y, x_end, y_end = start[0] + start[2], start[1] + BOX_HEIGHT // 2, end[0], end[1] + BOX_HEIGHT // 2
    bend = (x_end - x) // 2
    return f'<path d="M{x},{y} C{x + bend},{y} {x_end - bend},{y_end} {x_end},{y_end}" fill="none" stroke="{_LINE}"/>'


def _draw_box(lines: tuple[str, ...], fill: str, box: tuple[int, int, int]) -> str:
    x, y, width = box
    first = y + BOX_HEIGHT // 2 + 5 - 9 * (len(lines) - 1)
    words = "".join(
        f'<text x="{x + width // 2}" y="{first + 18 * place}" text-anchor="middle" fill="{_INK}">{escape(line)}</text>'
        for place, line in enumerate(lines)
    )
    return f'<rect x="{x}" y="{y}" width="{width}" height="{BOX_HEIGHT}" rx="5" fill="{fill}" stroke="{_LINE}"/>{words}'
