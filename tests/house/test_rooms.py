"""The rooms of the house, drawn from the imports: no circles, no crowded folder, one name for one thing.

`python tests/house/test_rooms.py` prints the rooms, floor by floor, with the rooms that each one imports. Imports inside functions count;
imports for type checking alone count as well, because a reader follows them. A string that is a module's name counts as an import of it.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HALVES = ("finrisk_assets", "bento")
PACKAGES = (*HALVES, "schemas")
DOMAINS = "finrisk_assets.domains"

MAX_MODULES = 14
"""Modules in one folder, beside its `__init__`."""
MAX_ROOT_MODULES = {"finrisk_assets": 3, "bento": 6}
"""Modules at the root of each half, beside its `__init__`."""

JOINED = {
    "finrisk_assets.domains.": "finrisk_assets.domains",
    "finrisk_assets.engines.spark": "finrisk_assets.engines",
    "finrisk_assets.graph.stages": "finrisk_assets.graph",
    "finrisk_assets.ledger.sources": "finrisk_assets.ledger",
    "bento.decisions.scorers": "bento.decisions",
    "bento.store.migrations": "bento.store",
}
"""Folders that are one room with the folder above: that one holds both what they build on and the list of them."""

SEPARATE = (
    "finrisk_assets.ledger.sources.simulator.population",
    "finrisk_assets.ledger.sources.simulator.lending",
    "finrisk_assets.ledger.sources.simulator",
)
"""Folders below a joined one that are rooms of their own."""

LISTS = ("finrisk_assets.ledger.sources",)
"""Modules that load a member of their folder by name, when it is chosen: between rooms, the list is no import of its members."""

DOMAIN_FILES = frozenset({"catalogue", "decide", "definition", "features", "joins", "model"})
"""File names that every domain may have."""

NAMES_OF_A_FILE_AND_A_FOLDER = {
    "people": "`python -m bento.cli.people` is the command of the room `bento.people`",
    "decisions": "`bento.store.decisions` holds the SQL of the rows that the room `bento.decisions` makes",
    "monitoring": "the figures that the room `modelling.monitoring` is named after",
}
"""Names that a file shares with a folder of its half on purpose, and why."""


def read_modules() -> dict[str, ast.Module]:
    """Return every module of the three packages, by its dotted name."""
    files = (file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py")))
    return {_dotted(file): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def draw_imports(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Return the modules that each module imports, or names in a string for `import_module`, uvicorn or multiprocessing.

    An imported name counts for its module, or for its package's `__init__`.
    """
    arrows: dict[str, set[str]] = {name: set() for name in modules}
    for name, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                members = [f"{node.module}.{alias.name}" for alias in node.names]
                targets = [member if member in modules else node.module for member in members]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                targets = [node.value.partition(":")[0]]
            elif isinstance(node, ast.JoinedStr):
                targets = _modules_of_a_prefix(node, tree)
            else:
                continue
            arrows[name] |= {target for target in targets if target in modules and target != name}
    return arrows


def room_of(module: str, modules: Mapping[str, ast.Module]) -> str:
    """Return a module's room: its folder, or the module itself at the root of a half."""
    is_package = (ROOT / module.replace(".", "/")).is_dir()
    folder = module if is_package else module.rpartition(".")[0]
    if folder in HALVES:
        return module
    if folder in PACKAGES:
        return folder
    for separate in SEPARATE:
        if folder == separate:
            return folder
    for joined, room in JOINED.items():
        if folder.startswith(joined):
            return room
    return folder


def draw_rooms(modules: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Return the rooms that each room imports."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module, targets in draw_imports(modules).items():
        room = room_of(module, modules)
        listed = {target for target in targets if module in LISTS and target.startswith(f"{module}.")}
        arrows[room] |= {room_of(target, modules) for target in targets - listed} - {room}
    return dict(arrows)


def find_cycles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other (strongly connected components of two or more, by Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(arrows.get(node, ())):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            position = stack.index(node)
            component = stack[position:]
            del stack[position:]
            if len(component) > 1:
                cycles.append(sorted(component))

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return cycles


def floors(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the nodes from the ground up: each node stands above all nodes that it imports. The nodes have no cycle."""
    height: dict[str, int] = {}

    def measure(node: str) -> int:
        if node not in height:
            height[node] = 1 + max((measure(target) for target in arrows.get(node, ())), default=-1)
        return height[node]

    for node in arrows:
        measure(node)
    return [sorted(node for node in arrows if height[node] == floor) for floor in range(max(height.values()) + 1)]


@pytest.fixture(scope="module")
def modules() -> dict[str, ast.Module]:
    return read_modules()


def test_a_circle_is_found() -> None:
    assert find_cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]


def test_an_import_by_name_is_an_import() -> None:
    code = {
        "a": """NAMES = [f"package.{name}" for name in ("one", "other")]""",
        "b": """run("package.two:app")""",
        "package.one": "",
        "package.two": "",
    }
    arrows = draw_imports({name: ast.parse(text) for name, text in code.items()})
    assert arrows == {"a": {"package.one"}, "b": {"package.two"}, "package.one": set(), "package.two": set()}


def test_no_import_circle_between_files(modules: dict[str, ast.Module]) -> None:
    assert find_cycles(draw_imports(modules)) == []


def test_no_import_circle_between_rooms(modules: dict[str, ast.Module]) -> None:
    assert find_cycles(draw_rooms(modules)) == []


def test_no_folder_is_crowded(modules: dict[str, ast.Module]) -> None:
    sizes = Counter(module.rpartition(".")[0] for module in modules if not _is_package(module))
    assert {folder: size for folder, size in sizes.items() if size > MAX_ROOT_MODULES.get(folder, MAX_MODULES)} == {}


def test_no_class_name_is_defined_twice(modules: dict[str, ast.Module]) -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in modules.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


@pytest.mark.parametrize("half", HALVES)
def test_no_file_name_is_used_twice_in_a_half(half: str, modules: dict[str, ast.Module]) -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if module.startswith(f"{half}.") and not _has_a_set_name(module):
            homes[module.rpartition(".")[2]].append(module)
    shared = {name: places for name, places in homes.items() if len(places) > 1}
    assert {name: places for name, places in shared.items() if name not in NAMES_OF_A_FILE_AND_A_FOLDER} == {}
    assert {name: len(places) for name, places in shared.items()} == dict.fromkeys(shared, 2)


def _has_a_set_name(module: str) -> bool:
    """Return whether a module is a stage of the graph, a file that every domain has, or a program's entry: these share their names."""
    name = module.rpartition(".")[2]
    return (
        module.startswith("finrisk_assets.graph.stages.")
        or (module.startswith(f"{DOMAINS}.") and module.count(".") == 3 and name in DOMAIN_FILES)
        or name == "__main__"
    )


def _modules_of_a_prefix(node: ast.JoinedStr, tree: ast.Module) -> list[str]:
    """Return the possible modules of an f-string such as ``f"package.{name}"``: its prefix with each string of the file."""
    prefix = node.values[0]
    if not (isinstance(prefix, ast.Constant) and isinstance(prefix.value, str) and prefix.value.endswith(".")):
        return []
    return [prefix.value + part.value for part in ast.walk(tree) if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def _is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def _dotted(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def main() -> None:
    """Print the rooms from the ground up, each with the rooms that it imports."""
    arrows = draw_rooms(read_modules())
    cycles = find_cycles(arrows)
    if cycles:
        raise SystemExit(f"rooms that import each other: {cycles}")
    levels = floors(arrows)
    print(f"{len(arrows)} rooms on {len(levels)} floors, {sum(map(len, arrows.values()))} arrows")
    for number, rooms in enumerate(levels):
        for room in rooms:
            print(f"{number}  {room} → {', '.join(sorted(arrows[room])) or 'nothing'}")


if __name__ == "__main__":
    main()
