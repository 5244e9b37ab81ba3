"""Tests of the settings and of docs/settings.md."""

import re
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


def test_an_unknown_setting_is_refused_with_the_nearest_known_one() -> None:
    with pytest.raises(SettingsError, match=r"^unknown setting FINRISK_SORCE: did you mean FINRISK_SOURCE\?$"):
        Settings.from_environment({"FINRISK_SORCE": "berka"})
    with pytest.raises(SettingsError, match=r"FINRISK_ZZZ: set one of .*FINRISK_SOURCE.*FINRISK_STORE_URL_FILE"):
        Settings.from_environment({"FINRISK_ZZZ": "1"})


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"^FINRISK_DEVICE='gpu' is no device: set auto, cpu or cuda$"):
        Settings.from_environment({"FINRISK_DEVICE": "gpu"})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("FINRISK_SIM_MONTHS", "many", "a whole number"),
        ("FINRISK_SIM_FRAUD_RATE", "much", "a number"),
        ("FINRISK_RATE_PER_SECOND", "fast", "a number"),
        ("FINRISK_AS_OF", "yesterday", "a time in ISO 8601, such as 2025-07-01T00:00:00"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_the_right_kind(name: str, value: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}='{value}' cannot be read: set {wanted}$"):
        Settings.from_environment({name: value})


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("FINRISK_SEED", "-1", "a whole number from 0 to 4294967295"),
        ("FINRISK_THREADS", "0", "a whole number of at least 1"),
        ("FINRISK_SIM_FRAUD_RATE", "1.0", "a share of at least 0 and below 1"),
        ("FINRISK_SIM_SHOCK_MONTH", "-1", "a whole number of at least 0"),
        ("FINRISK_UNKNOWN_PER_SECOND", "0", "a number above 0"),
        ("FINRISK_MAX_CONNECTIONS_PER_ADDRESS", "0", "a whole number of at least 1"),
        ("FINRISK_DRAIN_SECONDS", "-1", "seconds from 0 to 3600"),
        ("FINRISK_QUARANTINE_MAX_SHARE", "5", "a share from 0 to 1"),
    ],
)
def test_a_number_out_of_range_is_refused_with_the_range(name: str, value: str, wanted: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}={value}[.0]* is out of range: set {wanted}$"):
        Settings.from_environment({name: value})


def test_a_setting_that_moved_to_the_policy_is_refused_with_its_key() -> None:
    with pytest.raises(
        SettingsError, match=r"^FINRISK_HIGH_RISK_FROM is no setting: set spending_risk\.high_from in FINRISK_POLICY's file$"
    ):
        Settings.from_environment({"FINRISK_HIGH_RISK_FROM": "0.8"})


def test_the_scheme_of_the_warehouse_has_no_case() -> None:
    assert Settings(warehouse_url="PostgreSQL://Me@Host/Risk").warehouse == "postgresql://Me@Host/Risk"


def test_a_switch_is_on_or_off() -> None:
    assert Settings.from_environment({"FINRISK_SHADOW": "True"}).shadow
    assert not Settings.from_environment({"FINRISK_SHADOW": "0"}).shadow
    with pytest.raises(SettingsError, match="FINRISK_SHADOW='maybe' cannot be read: set true or false"):
        Settings.from_environment({"FINRISK_SHADOW": "maybe"})


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://finrisk:secret@store/finrisk\n")
    settings = Settings.from_environment({"FINRISK_STORE_URL_FILE": str(file)})
    assert settings.store_url == "postgresql://finrisk:secret@store/finrisk"
    assert "secret" not in repr(settings)
    named = {f"FINRISK_{name}_FILE": str(file) for name in ("WAREHOUSE_URL", "MLFLOW_STORE_URL")}
    settings = Settings.from_environment(named)
    assert settings.warehouse == settings.mlflow_store_url == "postgresql://finrisk:secret@store/finrisk"
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


def test_every_default_of_the_docs_is_that_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "settings.md").read_text(encoding="utf-8")
    compared = 0
    for names, defaults in re.findall(r"^\| ((?:`FINRISK_\w+`(?:, )?)+) \| ([^|]*) \|", page, re.MULTILINE):
        pairs = zip(re.findall(r"FINRISK_(\w+)", names), re.findall(r"(?:^|, )`([^`]*)`", defaults), strict=False)
        for name, default in pairs:
            value = getattr(Settings(), name.lower())
            text = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
            assert default == text, name
            compared += 1
    assert compared > 25


def test_cli_says_what_was_wrong_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_SOURCE", "berca")
    result = CliRunner().invoke(cli, ["demo"])
    assert result.exit_code == 1
    assert "berca" in result.output
    assert "simulator" in result.output
