"""Tests of the container's requirements: the locked versions, and no package that trains models."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PINS = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", (ROOT / "bento" / "requirements.txt").read_text(encoding="utf-8"), flags=re.MULTILINE))


def test_requirements_are_the_locked_versions() -> None:
    locked: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]:
        locked.setdefault(package["name"], set()).add(package["version"])
    assert len(PINS) > 30
    assert {name: version for name, version in PINS.items() if version not in locked.get(name, set())} == {}


def test_nothing_that_makes_models_is_installed() -> None:
    trains = {"dagster", "mlflow", "ibis-framework", "pandas", "scikit-learn", "scipy", "xgboost", "xgboost-cpu", "shap", "pyspark"}
    assert trains & PINS.keys() == set()
