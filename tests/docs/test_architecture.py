"""Tests of docs/architecture.md and docs/bundle.md: what they name is what the code has."""

import re
from pathlib import Path

from finrisk_assets.modelling.training import calibrate, convert
from finrisk_assets.scoring import bundle, reasons, spec

ROOT = Path(__file__).parents[2]


def test_the_page_names_every_file_with_sql_outside_the_store() -> None:
    row = next(line for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines() if "SQL runs outside" in line)
    modules = [file for file in (ROOT / "bento").rglob("*.py") if "store" not in file.relative_to(ROOT).parts]
    with_sql = {file.relative_to(ROOT).as_posix() for file in modules if "from sqlalchemy import" in file.read_text(encoding="utf-8")}
    assert set(re.findall(r"`(bento/\S+\.py)`", row)) == with_sql


def test_every_function_of_the_bundle_example_exists() -> None:
    example = (ROOT / "docs" / "bundle.md").read_text(encoding="utf-8").split("    converted = convert_estimator(")[1].split("##")[0]
    called = {"convert_estimator", *re.findall(r"(?<![\w.])(\w+)\(", example)}
    assert called == {"convert_estimator", "write", "BundleSpec", "find_reasons"}
    modules = (bundle, calibrate, convert, reasons, spec)
    assert all(any(hasattr(module, name) for module in modules) for name in called)
