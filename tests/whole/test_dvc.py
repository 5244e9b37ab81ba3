"""Tests of a raw file tracked by DVC: added, pushed, lost, pulled and materialised, by the commands of docs/reproducibility.md."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from finrisk_assets.graph.build import build_resources
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.operations import reproduce
from finrisk_assets.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "reproducibility.md").read_text(encoding="utf-8")
SETUP, TRACK, BACK = (block for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL) if "dvc@" in block)

MAPPING = """\
name: shop
description: Loans of a made-up shop.
currency: EUR
begins: 1994-01
ends: 1994-01
tables:
  customers:
    file: loans.csv
    columns:
      customer_id: {row_number: true}
      country: {value: DE}
  loans:
    file: loans.csv
    columns:
      loan_id: {row_number: true}
      customer_id: {row_number: true}
      loan_amount: amount
      term_months: months
      is_default: bad
    extra:
      - name: earlier_loans
        type: int64
        from: earlier
        description: Loans before.
        feature: {low: There are few earlier loans, high: There are many earlier loans}
"""


def loans() -> str:
    rng = np.random.default_rng(3)
    amount, months, earlier = rng.integers(500, 9_000, 1_500), rng.choice([12, 24, 36], 1_500), rng.poisson(2, 1_500)
    bad = rng.random(1_500) < 1 / (1 + np.exp(2.2 - amount / 4_000 + 0.5 * earlier - months / 40))
    rows = (f"{a},{m},{e},{str(b).lower()}" for a, m, e, b in zip(amount, months, earlier, bad, strict=True))
    return "\n".join(("amount,months,earlier,bad", *rows)) + "\n"


@pytest.mark.slow
def test_a_tracked_file_is_pulled_materialised_and_remembered(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "loans.yaml").write_text(MAPPING)
    (folder / "loans.csv").write_text(loans())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "FINRISK_HOME": str(tmp_path / "home")}
    script = "set -eu\n" + SETUP + TRACK + BACK
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "loans.csv").read_text() == loans()
    assert any((tmp_path / "store").rglob("*"))
    settings = Settings(home=tmp_path / "home", source="mapped", mapping=folder / "loans.yaml")
    domain, model = reproduce.find(settings, "loan_default", "challenger")
    tracked = yaml.safe_load((folder / "loans.csv.dvc").read_text())["outs"][0]["md5"]
    assert json.loads(model_registry.read_tags(build_resources(settings)["tracking"].client(), model)["dvc"]) == {"loans.csv": tracked}
    assert reproduce.reproduce(settings, domain, model).difference is None
