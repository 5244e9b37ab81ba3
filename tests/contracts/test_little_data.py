"""Tests of mapped ledgers that have little to learn from: the model or the domain does without, and says so."""

import random
from datetime import date, timedelta

import ibis
import numpy as np
import pytest

from finrisk_assets.domains.base import TooFewRowsError
from finrisk_assets.domains.loan_default.decide import decide_applications
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.ledger.contract import split
from finrisk_assets.ledger.sources import SourceError, load
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.settings import Settings

MAPPING = """
name: lender
currency: EUR
begins: 2023-01
ends: 2024-12
tables:
  loans:
    file: loans.csv
    columns: {loan_id: id, customer_id: id, loan_amount: amount, applied_at: at, is_default: bad}
    extra:
      - {name: score_points, from: points, feature: {monotone: 1}}
      - {name: empty_value, from: empty, feature: {}}
      - {name: late_value, from: late, feature: {}}
      - {name: constant_value, from: constant, feature: {}}
"""
N = 900


def train(folder, defaults, columns=("points", "empty", "late", "constant"), mapping=MAPPING):
    """Train loan default on a file of loans; `defaults` says by its points whether a loan defaulted."""
    draw, lines = random.Random(7), ["id,amount,at,bad,points,empty,late,constant"]
    for number in range(N):
        points = draw.random()
        values = {"points": f"{points:.3f}", "empty": "", "late": f"{draw.random():.3f}" if number > 0.8 * N else "", "constant": "1"}
        shown = ",".join(values[name] if name in columns else "" for name in values)
        day = date(2023, 1, 1) + timedelta(days=number * 720 // N)
        lines.append(f"{number},{draw.randint(500, 5000)},{day},{int(defaults(points, draw))},{shown}")
    (folder / "loans.csv").write_text("\n".join(lines), "utf-8")
    (folder / "lender.yaml").write_text(mapping, "utf-8")
    settings = Settings(source="mapped", mapping=folder / "lender.yaml", home=folder / "home", threads=1)
    source = load(settings)
    raw_table, connection = source.tables["loans"], ibis.duckdb.connect()
    raw_table.land(folder / "raw.parquet")
    valid = split(raw_table.table, raw_table.columns, connection.read_parquet(folder / "raw.parquet"), {}, settings.now).valid
    features = LOAN_DEFAULT.build_features({"loans": valid}, source)
    frame = connection.to_pandas(features.order_by("loan_id"))
    return LOAN_DEFAULT.train(frame, LOAN_DEFAULT.select_features(source), source, settings)


@pytest.mark.slow
def test_a_feature_without_a_value_in_the_training_window_is_left_out_of_the_model_with_a_line(tmp_path):
    trained = train(tmp_path, lambda points, draw: draw.random() < 0.5 * points)
    names = {feature.name for feature in trained.spec.features}
    assert {"score_points", "constant_value"} <= names
    assert names.isdisjoint({"empty_value", "late_value"})
    assert list(trained.notes) == [
        "the model does without empty_value: no row of the training window has a value",
        "the model does without late_value: no row of the training window has a value",
    ]


@pytest.mark.slow
def test_loans_without_an_amount_are_decided_at_the_amount_that_the_policy_assumes(tmp_path):
    trained = train(tmp_path, lambda points, draw: draw.random() < 0.5 * points, mapping=MAPPING.replace("loan_amount: amount, ", ""))
    assert "loan_amount" not in {feature.name for feature in trained.spec.features}
    policy = load_policy(Settings())
    decided = decide_applications({"score_points": np.array([0.1, 0.9])}, np.array([0.001, 0.9]), policy)
    assert decided.words == ["approve", "refuse"]


def test_one_class_of_outcomes_leaves_the_domain_out(tmp_path):
    with pytest.raises(TooFewRowsError, match="0 rows of the rarer outcome"):
        train(tmp_path, lambda points, draw: False)


def test_two_mappings_have_two_folders_and_none_that_of_a_built_in_source(tmp_path):
    for name in ("lender", "shop"):
        (tmp_path / f"{name}.yaml").write_text(MAPPING.replace("name: lender", f"name: {name}"), "utf-8")
        settings = Settings(source="mapped", mapping=tmp_path / f"{name}.yaml", home=tmp_path)
        assert settings.root == tmp_path / name
        # The service is told the name of the ledger alone.
        assert Settings(source=name, home=tmp_path).root == settings.root
    (tmp_path / "berka.yaml").write_text(MAPPING.replace("name: lender", "name: berka"), "utf-8")
    with pytest.raises(SourceError, match="give it another name"):
        load(Settings(source="mapped", mapping=tmp_path / "berka.yaml", home=tmp_path))
