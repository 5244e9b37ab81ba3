"""Deeds of operators on a running home, again and again: kill -9 of everything, and stops, at random moments. Bounded in rounds.

    python -m benchmarks.operators crashes [--rounds 20]
    python -m benchmarks.operators stops [--rounds 20]

The ledger is a mapped source of monthly CSV files, written by the simulator. `crashes` keeps two homes of it: one is left in peace, in the
other the daemon, its servers and the run are killed in each round while a scheduled `daily` or `monthly` is at work. Between two rounds a
month's file grows. After the restart the next scheduled run must succeed by itself, and every table must equal that of the other home.
`stops` sends SIGINT or SIGTERM to `finrisk demo`, which must end with 130 or 143 and make nothing more.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import dagster as dg

from finrisk_assets.ledger import sources
from finrisk_assets.settings import Settings
from tests.whole.operated import ACTIVE, BIN, PATIENCE_S, OperatedHome, wait_until

CUSTOMERS, MONTHS = 150, 24
LATE_MONTHS = ("2024-05", "2024-06")
"""The months whose files grow from round to round."""
WORKING_SHARE = 0.6
"""The share of a command's time in which its run is at work; the rest is the start of its process."""

MAPPING = """
name: bank
currency: EUR
begins: 2022-07
ends: 2024-06
tables:
  transactions: {file: in/*.csv, columns: {%s}}
"""
COLUMNS = {
    # Without categories and accounts it is a ledger of one domain, whose gate passes on so few people.
    "transactions": (
        "transaction_id",
        "customer_id",
        "occurred_at",
        "amount",
        "direction",
        "merchant",
        "country",
        "is_fraud",
        "label_known_at",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("crashes", "stops"))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finrisk-operators-") as folder:
        what = {"crashes": crash, "stops": stop}[given.what]
        sys.exit(what(Path(folder), given.rounds, random.Random(given.seed)))


def crash(folder: Path, rounds: int, draw: random.Random) -> int:
    """Kill everything in each round; return 1 where a run did not recover or a table differs, else 0."""
    pieces = write_bank(folder / "bank", rounds)
    peaceful, crashed = (build_home(folder / name, folder / "bank") for name in ("peaceful", "crashed"))
    for home in (peaceful, crashed):
        done = home.finrisk("demo", "--no-serve")
        assert done.returncode == 0, done.stdout + done.stderr
    return crash_in_rounds(peaceful, crashed, pieces, draw)


def crash_in_rounds(peaceful: OperatedHome, crashed: OperatedHome, pieces: Sequence[tuple[str, str]], draw: random.Random) -> int:
    """Kill everything that works on one of two homes, once for each piece of new rows; see `crash`."""
    faults = 0
    crashed.start_daemon()
    try:
        for number, piece in enumerate(pieces):
            job = ("daily", "monthly")[number % 2]
            for home in (peaceful, crashed):
                add_piece(home, piece)
            began = time.monotonic()
            done = peaceful.run(str(BIN / "dagster"), "job", "execute", "-m", "finrisk_assets.definitions", "-j", job)
            # A gate that refuses a new model ends the run of both homes, and is no fault of the crash.
            is_refused = done.returncode != 0 and "DagsterAssetCheckFailedError" in done.stderr
            assert done.returncode == 0 or is_refused, done.stderr[-4000:]
            outcome = dg.DagsterRunStatus.FAILURE if is_refused else dg.DagsterRunStatus.SUCCESS
            took = time.monotonic() - began
            moment = kill_in_run(crashed, job, draw.uniform(0, took * WORKING_SHARE))
            before = {run.run_id for run in crashed.runs()}
            crashed.start_daemon()
            crashed.ask(job)
            wait_until(partial(has_recovered, crashed, job, before, outcome), f"a {job} after the crash", 2 * PATIENCE_S, 1.0)
            wanted, found = peaceful.hash_tables(), crashed.hash_tables()
            different = sorted(table for table in wanted.keys() | found.keys() if wanted.get(table) != found.get(table))
            later = [run for run in crashed.runs() if run.run_id not in before]
            failed = [run.run_id[:8] for run in later if run.status == dg.DagsterRunStatus.FAILURE != outcome]
            faults += bool(different) + bool(failed)
            equal = f"{len(wanted)} tables equal" if not different else f"DIFFERENT: {', '.join(different)}"
            refused = "; a gate refuses the new model in both" if is_refused else ""
            print(f"round {number + 1}: {job} killed {moment}; {equal}; failed afterwards: {failed or 'none'}{refused}", flush=True)
    finally:
        crashed.stop()
    print(f"{len(pieces)} times kill -9: {faults} faults")
    return int(faults > 0)


def kill_in_run(home: OperatedHome, job: str, after_s: float) -> str:
    """Let the schedule of a job fire, kill everything some seconds after its run began, and return at which step that was."""
    before = {run.run_id for run in home.runs()}
    home.ask(job)

    def list_started() -> list[dg.DagsterRun]:
        return [run for run in home.runs() if run.run_id not in before and run.status == dg.DagsterRunStatus.STARTED]

    wait_until(list_started, f"the scheduled {job}", pause_s=0.05)
    run_id = list_started()[0].run_id
    time.sleep(after_s)
    home.kill_all()
    with home.instance() as instance:
        run, stats = instance.get_run_by_id(run_id), instance.get_run_step_stats(run_id)
    assert run is not None
    at_work = [step.step_key for step in stats if step.end_time is None]
    return f"after {after_s:.1f} s, {run.status.value.lower()}, in {' and '.join(at_work) or 'no step'}"


def has_recovered(home: OperatedHome, job: str, before: set[str], outcome: dg.DagsterRunStatus) -> bool:
    """Return whether a run of the schedule's own has ended since as it should, and nothing is at work."""
    runs = home.runs()
    is_busy = any(run.status in (*ACTIVE, dg.DagsterRunStatus.QUEUED) for run in runs)
    scheduled = [run for run in runs if run.run_id not in before and run.job_name == job and run.parent_run_id is None]
    return not is_busy and any(run.status == outcome for run in scheduled)


def stop(folder: Path, rounds: int, draw: random.Random) -> int:
    """Stop a demonstration in each round; return 1 where one went on or ended with another status, else 0."""
    write_bank(folder / "bank", 1)
    home, faults = build_home(folder / "stopped", folder / "bank"), 0
    began = time.monotonic()
    assert home.finrisk("demo").returncode == 0
    whole = time.monotonic() - began
    for number in range(rounds):
        number_of_signal = draw.choice((signal.SIGINT, signal.SIGTERM))
        after_s = draw.uniform(1.0, whole)
        demo = home.start(sys.executable, "-m", "finrisk_assets.cli.main", "demo", log=f"stop-{number}.log")
        time.sleep(after_s)
        if demo.poll() is not None:
            print(f"round {number + 1}: the demonstration was over before {after_s:.1f} s")
            continue
        sent = time.time()
        demo.send_signal(number_of_signal)
        status = demo.wait(PATIENCE_S)
        took = time.time() - sent
        late = find_late_events(home, sent)
        # A process that has done its work is ended by the signal itself: a shell shows the same status.
        faults += bool(late) or status not in (128 + number_of_signal, -number_of_signal)
        print(
            f"round {number + 1}: {signal.Signals(number_of_signal).name} after {after_s:.1f} s: status {status}, "
            f"ended {took:.1f} s later; made afterwards: {late or 'nothing'}",
            flush=True,
        )
    print(f"{rounds} stops: {faults} faults")
    return int(faults > 0)


def find_late_events(home: OperatedHome, since: float) -> list[str]:
    """Return the assets that the newest run made after a moment, in steps that it began after that moment."""
    with home.instance() as instance:
        entries = instance.all_logs(instance.get_runs(limit=1)[0].run_id)
    events = [entry.dagster_event for entry in entries if entry.timestamp > since and entry.dagster_event is not None]
    begun = {event.step_key for event in events if event.is_step_start}
    return [str(event.step_key) for event in events if event.is_step_materialization and event.step_key in begun]


def write_bank(folder: Path, n_pieces: int) -> list[tuple[str, str]]:
    """Write a simulated bank's files, without its last months; return these as pieces in order of time: a month and its lines."""
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    source = sources.load(Settings(home=folder / "simulated", sim_customers=CUSTOMERS, sim_months=MONTHS))
    (folder / "in").mkdir(parents=True)
    for table, columns in COLUMNS.items():
        landed = folder / "simulated" / f"{table}.parquet"
        source.tables[table].land(landed)
        rows = pq.read_table(landed, columns=list(columns))
        csv.write_csv(rows.sort_by("occurred_at") if table == "transactions" else rows, folder / f"{table}.csv")
    (folder / "bank.yaml").write_text(MAPPING % tuple(", ".join(f"{name}: {name}" for name in columns) for columns in COLUMNS.values()))
    header, *lines = (folder / "transactions.csv").read_text().splitlines()
    months: dict[str, list[str]] = {}
    for line in lines:
        months.setdefault(line.split(",")[2][:7], []).append(line)
    late = [(month, line) for month in LATE_MONTHS for line in months.pop(month)]
    for month, content in months.items():
        if month < LATE_MONTHS[0]:
            write_lines(folder / "in" / f"{month}.csv", [header, *content])
    size = len(late) // n_pieces + 1
    cut = [late[at : at + size] for at in range(0, len(late), size)]
    return [(header, "\n".join(f"{month}\t{line}" for month, line in piece)) for piece in cut]


def add_piece(home: OperatedHome, piece: tuple[str, str]) -> None:
    """Append the lines of a piece to the files of their months."""
    header, content = piece
    for month in LATE_MONTHS:
        lines = [line.partition("\t")[2] for line in content.splitlines() if line.startswith(f"{month}\t")]
        file = home.folder / "in" / f"{month}.csv"
        if lines:
            write_lines(file, [*(file.read_text().splitlines() if file.exists() else [header]), *lines])


def write_lines(file: Path, lines: Sequence[str]) -> None:
    file.write_text("\n".join(lines) + "\n")


def build_home(folder: Path, bank: Path) -> OperatedHome:
    """Return a home of the bank, with files of its own."""
    shutil.copytree(bank, folder, ignore=shutil.ignore_patterns("simulated"))
    return OperatedHome(folder, "bank.yaml", {"FINRISK_AS_OF": "2024-07-01"})


if __name__ == "__main__":
    main()
