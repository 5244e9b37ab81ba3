#!/app/.venv/bin/python
"""The last step of the container image: drop what only developers of the packages use, and compile the service.

BentoML runs this file once, as a script in the Bento's folder, after the packages are installed (see bentofile.yaml). Nothing imports it.
"""

import compileall
import importlib.util
import py_compile
import struct
import sysconfig
from pathlib import Path

UNUSED = (
    # Tests, among them a private key.
    *("numpy/**/tests", "numpy/_core/_simd*", "tornado/test", "sqlalchemy/testing", "alembic/testing"),
    # What builds extensions of numpy.
    *("numpy/distutils", "numpy/f2py", "numpy/_core/include", "numpy/_core/lib", "numpy/random/lib"),
    # Languages to colour. `bentoml serve` imports the package, not one of its languages.
    *("pygments/lexers/[a-z]*.py", "pygments/lexers/_*_builtins.py"),
    # What only compilers and type checkers read.
    *("**/*.pyi", "**/*.pxd", "**/*.pyx", "**/*.c", "**/*.h"),
)
"""Patterns of the files and folders, below the installed packages, that no process of the container opens."""
LICENCES = ("LICEN", "COPYING", "NOTICE", "AUTHORS")
"""Beginnings of the names of files that stay wherever they lie."""

ELF64 = b"\x7fELF\x02\x01"
"""First bytes of a 64-bit little-endian program or library of Linux."""
ELF_HEADER, PROGRAM_HEADER = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")
"""The fields of the two tables that the dynamic loader reads, as in elf(5)."""


def main() -> None:
    """Finish the image whose packages this Python has and whose Bento lies in the working directory."""
    packages, source = Path(sysconfig.get_path("purelib")), Path.cwd() / "src"
    # So that `python -m bento.single_process` and the operator's commands are found in whatever folder they are called.
    (packages / "finrisk.pth").write_text(f"{source}\n", encoding="utf-8")
    remove_unused(packages)
    for library in packages.rglob("*.so*"):
        remove_symbols(library)
    # The file system is read-only: without this every start would compile the service again. uv compiles the packages.
    if not compileall.compile_dir(source, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH):
        raise SystemExit("a module of the service does not compile; see the lines above")


def remove_unused(packages: Path) -> None:
    """Remove the files of installed packages that `UNUSED` names, with what is compiled of them; licences stay."""
    for pattern in UNUSED:
        for path in [*packages.glob(pattern)]:
            for file in [path] if path.is_file() else [*path.rglob("*")]:
                if file.is_file() and not file.name.upper().startswith(LICENCES):
                    file.unlink()
                    if file.suffix == ".py":
                        Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)


def remove_symbols(library: Path) -> int:
    """Remove symbols, debugging information and section headers of a shared library, as `strip` does.

    The dynamic loader reads program headers and the segments that they name; everything behind the last segment goes. A file that is no
    ELF library stays as it is, and one of which less than half would go. Written by hand, because the base images have no binutils.

    Parameters
    ----------
    library
        A file that no process has open.

    Returns
    -------
    int
        Bytes removed.
    """
    content = library.read_bytes()
    if not content.startswith(ELF64):
        return 0
    *identity, table, sections, flags, size, table_size, number, _, _, _ = ELF_HEADER.unpack_from(content)
    segments = PROGRAM_HEADER.iter_unpack(content[table : table + table_size * number])
    end = max(offset + length for _, _, offset, _, _, length, _, _ in segments)
    # Docker keeps the former file too, in the layer below: a copy that is not much smaller would cost more there than it saves.
    if sections < end or end > len(content) // 2:
        return 0
    header = ELF_HEADER.pack(*identity, table, 0, flags, size, table_size, number, 0, 0, 0)
    library.write_bytes(header + content[ELF_HEADER.size : end])
    return len(content) - end


if __name__ == "__main__":
    main()
