"""Tests of the lock beside a warehouse, between processes: who comes second waits, says for whom, and gives up in time."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finrisk_assets.engines.warehouse_url import file_of
from finrisk_assets.graph.runs import warehouse_lock
from finrisk_assets.graph.warehouse import Warehouse

HOLD = """
import sys
from finrisk_assets.graph.runs import warehouse_lock
for line in warehouse_lock.waiting_lines(sys.argv[1], 1, "run 12345678 of daily"):
    print(line, flush=True)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"duckdb://{tmp_path / 'warehouse.duckdb'}"


@pytest.fixture
def holder(url: str) -> Iterator[subprocess.Popen[str]]:
    """Yield another process that holds the lock, until its input is closed."""
    with subprocess.Popen([sys.executable, "-c", HOLD, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_only_a_duckdb_file_has_a_lock(tmp_path: Path) -> None:
    assert file_of("duckdb:///data/warehouse.duckdb") == Path("/data/warehouse.duckdb")
    for url in ("postgres://host/db", "pyspark://local", "duckdb://", "duckdb://:memory:"):
        assert file_of(url) is None
        assert list(warehouse_lock.waiting_lines(url, 0)) == []
        assert warehouse_lock.read_holder(url) is None


def test_who_comes_second_waits_and_says_for_whom(url: str, holder: subprocess.Popen[str]) -> None:
    lines = warehouse_lock.waiting_lines(url, 1)
    line = next(lines)
    assert line.startswith("waiting for the warehouse, which is in use by run 12345678 of daily, process ")
    assert str(holder.pid) in line
    holder.kill()  # however it ends, its lock is free
    assert list(lines) == []
    assert str(warehouse_lock.read_holder(url)).split(",")[0]


def test_who_waits_in_vain_gives_up(url: str, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(warehouse_lock.WarehouseBusyError, match=r"is still in use by run 12345678 of daily, .* after 0 minutes: wait"):
        list(warehouse_lock.waiting_lines(url, 0))
    with pytest.raises(warehouse_lock.WarehouseBusyError):
        _ = Warehouse(url=url, wait_minutes=0).connection
    assert str(warehouse_lock.read_holder(url)).startswith("run 12345678 of daily")


def test_waiting_can_be_stopped(url: str, holder: subprocess.Popen[str]) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(warehouse_lock.waiting_lines(url, 1, check=stop))


def test_a_process_holds_its_lock_once_and_may_take_another_name(url: str, tmp_path: Path) -> None:
    assert list(warehouse_lock.waiting_lines(url, 0)) == []
    assert list(warehouse_lock.waiting_lines(url, 0, "run 1 of daily")) == []
    assert list(warehouse_lock.waiting_lines(url, 0)) == []
    assert str(warehouse_lock.read_holder(url)).startswith("run 1 of daily, process ")
    done = subprocess.run([sys.executable, "-c", HOLD.replace("1, ", "0, "), url], capture_output=True, text=True, timeout=60)
    assert "run 1 of daily" in done.stderr


def test_a_free_lock_has_no_holder(url: str, holder: subprocess.Popen[str]) -> None:
    assert warehouse_lock.read_holder(url) is not None
    holder.kill()
    holder.wait()
    assert warehouse_lock.read_holder(url) is None
