"""Tests of `finrisk audit`, `finrisk replay` and `GET /v1/audit`."""

import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import text
from starlette.testclient import TestClient

from bento.store.session import Store, open_store
from finrisk_assets.cli.main import cli
from finrisk_assets.settings import Settings
from tests.service.conftest import Serving
from tests.service.envelopes import read_error

PAGE = Path(__file__).parents[2] / "docs" / "audit.md"


@pytest.fixture
def run(serving: Serving, bundles: dict[str, Path], transaction: Callable[..., dict[str, Any]]) -> Callable[..., Result]:
    """Return the command line, after three decisions and one look-up of a score."""
    with serving(bundles) as client:
        for minutes in range(3):
            assert client.post("/v1/transactions", json=transaction(minutes)).status_code == 200
        assert client.get("/v1/risk-scores/123").status_code == 200
    environment = {"FINRISK_HOME": str(serving.home), "FINRISK_SOURCE": "simulator"}
    return lambda *command: CliRunner().invoke(cli, command, env=environment)


@pytest.fixture
def stopped_store(serving: Serving, run: Callable[..., Result]) -> Store:
    """Yield the store of the service that has stopped."""
    with closing(open_store(Settings(home=serving.home))) as store:
        yield store


def test_verify_counts_what_is_whole(run: Callable[..., Result]) -> None:
    done = run("audit", "verify")
    assert done.exit_code == 0, done.output
    assert done.output == "4 records of 1 writers, 2 checkpoints: all whole\n"


def test_verify_names_the_first_broken_record_in_one_sentence(run: Callable[..., Result], stopped_store: Store) -> None:
    with stopped_store.writing() as connection:
        connection.execute(text("drop trigger audit_no_update"))
        connection.execute(text("update audit set caller = 'key:2' where number = 2"))

    done = run("audit", "verify")
    assert done.exit_code == 1
    assert re.fullmatch(r"writer [0-9a-f]{32}, record 2: its content was changed: it does not have its hash\.\n", done.output)


def test_a_line_that_was_kept_elsewhere_shows_that_an_old_backup_was_put_back(
    run: Callable[..., Result], serving: Serving, stopped_store: Store, tmp_path: Path
) -> None:
    stopped_store.close()
    lines, store, backup = tmp_path / "lines.txt", stopped_store.database.file, tmp_path / "backup"
    assert store is not None
    backup.write_bytes(store.read_bytes())
    assert run("audit", "show").exit_code == 0  # which is recorded, by a writer of its own
    lines.write_text(run("audit", "checkpoint").output)

    whole = run("audit", "verify", "--checkpoint", str(lines))
    assert whole.exit_code == 0, whole.output
    assert whole.output == "5 records of 2 writers, 4 checkpoints, 1 stored outside: all whole\n"

    store.write_bytes(backup.read_bytes())
    assert run("audit", "verify").exit_code == 0
    rolled_back = run("audit", "verify", "--checkpoint", str(lines))
    assert rolled_back.exit_code == 1
    assert rolled_back.output == "checkpoint 4: a receipt names it, but it is missing: the store was rolled back, or its tail cut off.\n"


def test_a_file_without_lines_of_checkpoints_is_refused(run: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("\nbuy milk\n")
    done = run("audit", "verify", "--checkpoint", str(tmp_path / "notes.txt"))
    assert done.exit_code == 1
    assert "notes.txt, line 2: not a line of" in done.output


def test_show_lists_who_did_what_and_records_that(run: Callable[..., Result]) -> None:
    assert [line.split()[4] for line in run("audit", "show").output.splitlines()] == ["read", "decide", "decide", "decide"]
    assert [line.split()[4] for line in run("audit", "show").output.splitlines()][:2] == ["read", "read"]
    assert len(run("audit", "show", "--action", "decide", "--most", "2").output.splitlines()) == 2
    assert run("audit", "show", "--since", "2999-01-01").output == ""


def test_show_finds_a_person_by_the_customer_s_identifier_and_never_prints_it(run: Callable[..., Result]) -> None:
    done = run("audit", "show", "--person", "5")
    people = {line.split()[5] for line in done.output.splitlines()}
    assert len(done.output.splitlines()) == 3
    assert len(people) == 1
    assert "5" not in people
    assert len(run("audit", "show", "--person", people.pop()).output.splitlines()) == 4  # and the look before
    assert "no such customer" in run("audit", "show", "--person", "nobody").output


def test_without_a_store_there_is_nothing_to_verify(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["audit", "verify"], env={"FINRISK_HOME": str(tmp_path), "FINRISK_SOURCE": "simulator"})
    assert done.exit_code == 1
    assert "there is no store at" in done.output
    assert not list(tmp_path.iterdir())


def test_replay_tells_what_comes_out(run: Callable[..., Result], serving: Serving) -> None:
    done = run("replay", "--models", str(serving.home / "models"))
    assert done.exit_code == 0, done.output
    assert done.output == "3 decisions, 0 differences\n  3 come out as they were stored\n"


def test_replay_refuses_a_domain_that_the_service_lacks(run: Callable[..., Result]) -> None:
    done = run("replay", "--domain", "loan_defualt")
    assert done.exit_code == 2
    assert "the service has no domain 'loan_defualt'; name one of cashflow, loan_default" in done.output


def test_replay_reports_a_flipped_byte(run: Callable[..., Result], serving: Serving, stopped_store: Store) -> None:
    with stopped_store.writing() as connection:
        sealed = bytearray(connection.execute(text("select sealed from decisions where position = 2")).scalar())
        sealed[-1] ^= 1
        connection.execute(text("update decisions set sealed = :sealed where position = 2"), {"sealed": bytes(sealed)})

    done = run("replay", "--models", str(serving.home / "models"))
    assert done.exit_code == 1
    assert "3 decisions, 1 differences" in done.output
    assert "cannot be unsealed: its bytes were changed" in done.output


def test_every_command_of_the_page_runs(run: Callable[..., Result], tmp_path: Path, serving: Serving) -> None:
    blocks = re.findall(r"```\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines() if line.startswith("./finrisk ")]
    (serving.home / "simulator" / "bentoml").mkdir()
    (serving.home / "models").rename(serving.home / "simulator" / "bentoml" / "models")
    kept = tmp_path / "checkpoints.txt"

    assert len(commands) >= 6
    for command in commands:
        words = command.replace("4711", "5").replace("checkpoints.txt", str(kept)).split()
        done = run(*words[1 : words.index(">>") if ">>" in words else None])
        assert done.exit_code == 0, f"{command}: {done.output}"
        if ">>" in words:
            kept.write_text(done.output)


# GET /v1/audit -------------------------------------------------------------------------------------------------------------------


def test_the_route_answers_page_by_page_and_every_page_is_recorded(client: TestClient, transaction: Callable[..., dict[str, Any]]) -> None:
    for minutes in range(5):
        client.post("/v1/transactions", json=transaction(minutes, user_id=minutes), headers={"X-Request-ID": f"r{minutes}"})

    first = client.get("/v1/audit", params={"limit": 3, "action": "decide"}).json()
    second = client.get("/v1/audit", params={"limit": 3, "action": "decide", "before": first["next"]}).json()

    assert [one["request_id"] for one in first["records"] + second["records"]] == ["r4", "r3", "r2", "r1", "r0"]
    assert second["next"] is None
    assert client.get("/v1/audit").json()["records"][0]["action"] == "read"
    person = first["records"][0]["person"]
    assert {one["request_id"] for one in client.get("/v1/audit", params={"person": person, "action": "decide"}).json()["records"]} == {"r4"}


def test_a_page_tells_each_field_of_a_record(client: TestClient, transaction: Callable[..., dict[str, Any]]) -> None:
    client.post("/v1/transactions", json=transaction(transaction_id="t1"))
    (one,) = client.get("/v1/audit").json()["records"]

    assert (one["number"], one["caller"], one["action"], one["domain"]) == (1, "local", "decide", "transaction_anomaly")
    assert re.fullmatch("[0-9a-f]{32}", one["inputs"])
    assert re.fullmatch("[0-9a-f]{64}", one["output"])
    assert "t1" not in str(one)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"person": "123"}, "person"),
        ({"limit": 0}, "limit"),
        ({"before": "x"}, "before"),
        ({"since": "soon"}, "since"),
        ({"who": 1}, "who"),
    ],
)
def test_what_cannot_be_asked_is_refused_by_its_name(client: TestClient, asked: dict[str, Any], field: str) -> None:
    answer = client.get("/v1/audit", params=asked)
    assert field in read_error(answer, 422, "invalid_request")["fields"][0]["field"]


def test_a_rare_action_is_looked_for_without_making_others_wait(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bento.web.lookups.AUDIT_SCAN_LIMIT", 4)
    for _ in range(6):
        client.get("/v1/audit")

    page = client.get("/v1/audit", params={"action": "export"}).json()
    assert page["records"] == []
    assert page["next"] is not None
    assert client.get("/v1/audit", params={"action": "export", "before": page["next"]}).json() == {"records": [], "next": None}
