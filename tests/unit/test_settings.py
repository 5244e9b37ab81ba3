"""Tests of the settings and of docs/settings.md."""

from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.settings import Settings, SettingsError, absolute_paths


def test_every_setting_is_read_from_its_variable() -> None:
    settings = Settings.from_environment(
        {"FINRISK_SOURCE": "berka", "FINRISK_SIM_MONTHS": "6", "FINRISK_AS_OF": "2024-07-01T02:00:00+02:00", "FINRISK_HOME": "/tmp/x"}
    )
    assert (settings.source, settings.sim_months, settings.as_of) == ("berka", 6, datetime(2024, 7, 1))
    assert settings.root == Path("/tmp/x/berka")


def test_an_unknown_setting_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"FINRISK_SORCE; known are .*FINRISK_SOURCE"):
        Settings.from_environment({"FINRISK_SORCE": "berka"})


def test_a_value_of_the_wrong_kind_is_named() -> None:
    with pytest.raises(SettingsError, match="FINRISK_SIM_MONTHS='many'"):
        Settings.from_environment({"FINRISK_SIM_MONTHS": "many"})


def test_a_switch_is_on_or_off() -> None:
    assert Settings.from_environment({"FINRISK_SHADOW": "True"}).shadow
    assert not Settings.from_environment({"FINRISK_SHADOW": "0"}).shadow
    with pytest.raises(SettingsError, match="FINRISK_SHADOW='maybe' cannot be read: say true or false"):
        Settings.from_environment({"FINRISK_SHADOW": "maybe"})


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://finrisk:secret@store/finrisk\n")
    settings = Settings.from_environment({"FINRISK_STORE_URL_FILE": str(file)})
    assert settings.store_url == "postgresql://finrisk:secret@store/finrisk"
    assert "secret" not in repr(settings)
    with pytest.raises(SettingsError, match="FINRISK_STORE_URL and FINRISK_STORE_URL_FILE are both set"):
        Settings.from_environment({"FINRISK_STORE_URL_FILE": str(file), "FINRISK_STORE_URL": "sqlite:////x"})
    with pytest.raises(SettingsError, match="FINRISK_STORE_URL_FILE='/nowhere' cannot be read: No such file"):
        Settings.from_environment({"FINRISK_STORE_URL_FILE": "/nowhere"})
    tmp_path.chmod(0o755)
    file.chmod(0o644)
    with pytest.raises(SettingsError, match=f"is open to every user of this machine: run `chmod 600 {file}`"):
        Settings.from_environment({"FINRISK_STORE_URL_FILE": str(file)})
    with pytest.raises(SettingsError, match="unknown setting FINRISK_SEED_FILE"):
        Settings.from_environment({"FINRISK_SEED_FILE": str(file)})


def test_files_are_found_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = {"FINRISK_HOME": "home", "FINRISK_JWT_JWKS": "jwks.json", "FINRISK_STORE_URL_FILE": "/run/url", "FINRISK_SEED": "1"}
    assert absolute_paths(named) == {
        "FINRISK_HOME": str(tmp_path / "home"),
        "FINRISK_JWT_JWKS": str(tmp_path / "jwks.json"),
        "FINRISK_STORE_URL_FILE": "/run/url",
    }
    assert absolute_paths({"FINRISK_JWT_JWKS": "https://login.bank.example/jwks"}) == {}


def test_every_setting_is_in_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    for name in Settings.__dataclass_fields__:
        assert f"`FINRISK_{name.upper()}`" in page


def test_cli_says_what_was_wrong_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_SOURCE", "berca")
    result = CliRunner().invoke(cli, ["demo"])
    assert result.exit_code == 1
    assert "berca" in result.output
    assert "simulator" in result.output
