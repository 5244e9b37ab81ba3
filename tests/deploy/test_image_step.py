"""Tests of the container image's last step: what it removes of the packages, and what still works afterwards."""

import py_compile
import shutil
import subprocess
import sys
from pathlib import Path

import httptools
import pytest
import yaml

from bento.image import remove_symbols, remove_unused

ROOT = Path(__file__).parents[2]


def place(packages: Path, *files: str) -> None:
    for file in files:
        (packages / file).parent.mkdir(parents=True, exist_ok=True)
        (packages / file).write_text("", encoding="utf-8")


def files_of(packages: Path) -> set[str]:
    return {file.relative_to(packages).as_posix() for file in packages.rglob("*") if file.is_file()}


def test_a_library_works_without_its_symbols(tmp_path: Path) -> None:
    package = shutil.copytree(Path(httptools.__file__).parent, tmp_path / "httptools")
    libraries = sorted(package.rglob("*.so"))
    before = {library: library.stat().st_size for library in libraries}

    removed = {library: remove_symbols(library) for library in libraries}

    assert {library: before[library] - library.stat().st_size for library in libraries} == removed
    assert len(removed) >= 2
    assert all(removed[library] > before[library] / 2 for library in libraries)
    code = "import httptools; print(httptools.parse_url(b'http://host:80/path').path, httptools.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["b'/path'", str(package / "__init__.py")], done.stderr


def test_a_second_time_there_is_nothing_to_remove(tmp_path: Path) -> None:
    library = tmp_path / "library.so"
    shutil.copy(next(Path(httptools.__file__).parent.rglob("*.so")), library)
    assert remove_symbols(library) > 0
    once = library.read_bytes()

    assert remove_symbols(library) == 0
    assert library.read_bytes() == once


@pytest.mark.parametrize("content", [b"", b"/* GNU ld script */ GROUP ( libm.so.6 )", b"\x7fELF\x01\x01" + bytes(60)])
def test_what_is_no_library_of_64_bits_stays(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "other.so"
    file.write_bytes(content)

    assert remove_symbols(file) == 0
    assert file.read_bytes() == content


def test_only_what_no_process_opens_is_removed(tmp_path: Path) -> None:
    kept = {
        *("numpy/__init__.py", "numpy/linalg/__init__.py", "numpy/distutils/LICENSE.txt", "numpy.dist-info/licenses/numpy/ma/LICENSE"),
        *("pygments/lexers/__init__.py", "pygments/lexers/_mapping.py", "bentoml/py.typed"),
    }
    removed = {
        *("numpy/_core/tests/test_umath.py", "numpy/distutils/core.py", "numpy/_core/include/numpy/ndarrayobject.h", "numpy/__init__.pyi"),
        *("tornado/test/test.key", "sqlalchemy/testing/suite.py", "pygments/lexers/cobol.py", "pygments/lexers/_php_builtins.py"),
    }
    place(tmp_path, *kept, *removed)

    remove_unused(tmp_path)

    assert files_of(tmp_path) == kept


def test_nothing_compiled_stays_of_a_removed_module(tmp_path: Path) -> None:
    place(tmp_path, "pygments/lexers/cobol.py", "pygments/lexers/__init__.py")
    for module in tmp_path.rglob("*.py"):
        py_compile.compile(str(module))

    remove_unused(tmp_path)

    assert {Path(file).name.partition(".")[0] for file in files_of(tmp_path)} == {"__init__"}


def test_bentoml_runs_it_with_the_python_of_the_packages() -> None:
    script = ROOT / yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))["docker"]["setup_script"]

    assert script == ROOT / "bento" / "image.py"
    assert script.read_text(encoding="utf-8").startswith("#!/app/.venv/bin/python\n")
