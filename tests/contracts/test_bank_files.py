"""Tests that the console and `finrisk import` read a bank's file as the same movements, and that an import proposes its columns rightly."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from bento.console.bank_statements.movement import StatementError
from bento.console.bank_statements.statement_file import open_statement
from finrisk_assets.cli.main import cli
from finrisk_assets.ledger.intake.import_files import propose_mapping
from finrisk_assets.operations.check_mapping import check_mapping
from finrisk_assets.settings import Settings
from tests.contracts.bank_files import BANKS, LEFT_OUT, MOVEMENTS, QIF, BankFile
from tests.contracts.test_import_quirks import find_proposals

LEAST_SHARE = 0.95


@pytest.fixture
def propose(tmp_path: Path):
    """Import a file with the likeliest answers and return the mapping's path."""

    def run(file: BankFile) -> Path:
        path, out = tmp_path / file.name, tmp_path / "own.yaml"
        path.write_bytes(file.content)
        propose_mapping([path], None, out, lambda question, answers, likeliest: likeliest)
        return out

    return run


@pytest.mark.parametrize("bank", BANKS)
def test_console_and_ledger_read_the_same_movements(bank: str, propose) -> None:
    file = BANKS[bank]()
    dropped = open_statement(file.content)
    assert tuple(question.field for question in dropped.questions) == file.questions
    statement = dropped.read()
    shown = [(movement.booked_on, movement.amount) for movement in statement.movements]
    assert sorted(shown) == sorted((day, amount) for day, amount, _ in MOVEMENTS)
    assert {who for _, _, who in MOVEMENTS} == {who for _, _, who in MOVEMENTS for one in statement.movements if who in one.description}
    assert len(statement.skipped) == file.skipped
    settings = replace(Settings(), as_of=datetime(2026, 6, 1, 12))
    (report,) = check_mapping(settings, propose(file), n_rows=100).tables.values()
    assert report.quarantined == file.skipped
    signed = [
        (datetime.fromisoformat(row["occurred_at"]).date(), row["amount"] if row["direction"] == "credit" else -row["amount"])
        for row in report.valid_rows or ()
    ]
    assert sorted(signed) == sorted(shown)


def test_an_import_proposes_nearly_every_column_as_it_is_meant(tmp_path: Path, propose) -> None:
    wrong, n_columns = {}, 0
    for bank, make in BANKS.items():
        file = make()
        proposals = find_proposals(yaml.safe_load(propose(file).read_text("utf-8")), keys=("language", "beside", "absolute"))
        for name in tmp_path.iterdir():
            name.unlink()
        for column, (role, how) in file.columns.items():
            n_columns += 1
            given = proposals.get(column, [(LEFT_OUT, {})])
            if not any(fate == role and {key: form.get(key) for key in how} == how for fate, form in given):
                wrong[bank, column] = given
    assert n_columns > 80
    assert len(wrong) <= (1 - LEAST_SHARE) * n_columns, wrong


def test_a_qif_file_is_refused_in_one_sentence_by_both(tmp_path: Path) -> None:
    with pytest.raises(StatementError, match=r"^The file is a QIF file, [^.]*; export it as CSV or OFX\.$"):
        open_statement(QIF)
    (tmp_path / "a.qif").write_bytes(QIF)
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "a.qif"), "-o", str(tmp_path / "own.yaml")])
    assert result.exit_code == 2
    assert "is a QIF file" in result.output and len(result.output.strip().splitlines()) == 1
