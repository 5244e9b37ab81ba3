"""Tests of the validation pack as plain values: grouped, shown, withheld and recomputed figures."""

import base64
import re
from dataclasses import replace

import pytest
from scipy.stats import beta

from finrisk_assets.modelling.packs import card, pack

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==")


def jeffreys_low(events: int, n: int) -> float:
    return float(beta.ppf(0.025, events + 0.5, n - events + 0.5))


ROWS = [
    {"metric": "auc", "value": 0.8265726, "low": 0.7783, "high": 0.8748, "meaning": "area under the ROC curve, DeLong"},
    {"metric": "mean_default", "value": 0.0927, "low": None, "high": None, "meaning": "said by the model"},
    {"metric": "n_test", "value": 1200.0, "low": None, "high": None, "meaning": "rows in the test window"},
    {"metric": "grade_B_default_rate", "value": 2 / 8, "low": jeffreys_low(2, 8), "high": 0.6, "meaning": "mean PD 0.0188"},
    {"metric": "grade_C_default_rate", "value": 3 / 12, "low": jeffreys_low(3, 12), "high": 0.5, "meaning": "mean PD 0.0313"},
    {"metric": "fairness/calibration_gap/gender=<b>f</b>", "value": 0.01, "low": -0.01, "high": 0.03, "meaning": "supports"},
]


@pytest.fixture
def example() -> pack.Pack:
    figures = [
        *pack.build_figures(ROWS, "evaluation", "evaluation.json"),
        pack.PackFigure("candidates/lasso/validation AUC", "candidates", "lasso", "validation AUC", "candidates.json", 0.81, 0.77, 0.85),
        pack.PackFigure("thresholds/refuse_from", "thresholds", "refuse_from", "", "bundle/bundle.json", 0.27),
    ]
    contents = {"evaluation.json": b"e", "candidates.json": b"c", "bundle/bundle.json": b"b", "README.md": b"r", "card.md": b"m"}
    return pack.Pack(
        domain="loan_default",
        title="Loan default",
        owner="credit-risk",
        source="simulator",
        model="finrisk-loan-default",
        registry_version="2",
        version="0123456789ab",
        run_id="run",
        settings={"as_of": "2025-07-01T00:00:00", "seed": 1},
        texts={"decision": "**Refer** or refuse. <script>alert(1)</script>", "thresholds": "", "limits": "- The costs are assumptions."},
        facts={"Training window": "2023-01-01 to 2024-01-01"},
        features=[{"name": "age", "unit": "days", "description": "Since.", "direction": "falls with it", "low": "new", "high": "old"}],
        history=[{"version": "2", "bundle": "0123456789ab", "registered": "2025-07-01 00:00", "snapshot": "ab", "code": "cd"}],
        artifacts=[
            *(pack.Artifact(name, pack.sha256(content), "here") for name, content in contents.items()),
            pack.Artifact("plots/test_roc_pr.png", pack.sha256(PNG), "here"),
        ],
        figures=figures,
        pictures=[pack.Picture("plots/test_roc_pr.png", "discrimination", "The curves.")],
        verdicts=[pack.PackVerdict("discrimination", "The ranking is no chance.")],
    )  # fmt: skip


@pytest.fixture
def pages(example: pack.Pack) -> dict[str, str]:
    return card.render_pages(example, {"plots/test_roc_pr.png": PNG})


def test_a_manifest_reads_back_as_it_was_written(example: pack.Pack, pages: dict[str, str]) -> None:
    content = pack.build_manifest(example, pages)
    again, hashes = pack.read_manifest(content)
    assert again == example
    assert (
        pack.build_manifest(again, pages)
        == content
        == pack.build_manifest(example, card.render_pages(example, {"plots/test_roc_pr.png": PNG}))
    )
    assert hashes == {name: pack.sha256(text.encode()) for name, text in pages.items()}


@pytest.mark.parametrize("content", [b"no json", b"[]", b'{"format": 9}', b'{"format": 1, "pages": {}}'])
def test_what_is_no_manifest_is_refused_with_its_place(content: bytes) -> None:
    with pytest.raises(pack.PackError, match=r"packs/pack\.json"):
        pack.read_manifest(content, "packs/pack.json")


def test_every_figure_finds_its_group() -> None:
    groups = {
        "auc": "discrimination", "auc_above_persistence": "discrimination", "persistence_auc": "discrimination", "ks": "discrimination",
        "card_precision_at_100": "discrimination", "brier": "calibration", "default_rate": "calibration", "mean_default": "calibration",
        "calibration_in_the_large": "calibration", "grade_B_default_rate": "calibration", "average_precision_weekly": "stability",
        "champion_auc": "comparison", "gain_beside_champion": "comparison", "gain": "decisions", "emp": "decisions", "n_test": "sample",
        "share_below_interval": "amounts", "share_anomalous": "decisions", "importance_income": "explanation",
        "fairness/adverse_impact_ratio/refuse_from/gender=f": "fairness", "stability_psi": "stability", "zebra": "other",
    }  # fmt: skip
    assert {metric: pack.find_group(metric) for metric in groups} == groups
    assert set(groups.values()) <= pack.GROUPS.keys()


def test_what_is_of_fewer_than_ten_people_is_withheld(example: pack.Pack, pages: dict[str, str]) -> None:
    of_eight, of_twelve = (example.by_key[f"evaluation/grade_{grade}_default_rate"] for grade in "BC")
    assert (of_eight.value, of_eight.low, of_eight.high) == (None, None, None)
    assert of_twelve.value == 0.25
    assert "0.0188" not in pages["pack.html"]
    assert "fewer than 10 people" in pages["pack.html"]


def test_a_finding_of_fairness_says_only_what_its_figure_does_not() -> None:
    sentences = (
        "age=30 to under 45 at refer_from: adverse impact ratio against 45 to under 60 0.7956 [0.4254, 1.4394] leaves open a bound of 0.8"
    )
    row = {"metric": "fairness/adverse_impact_ratio/refer_from/age=30 to under 45", "value": 0.7956, "low": 0.4254, "high": 1.4394}
    (figure,) = pack.build_figures([row | {"meaning": sentences}], "evaluation", "evaluation.json")
    assert figure.label == "age=30 to under 45, adverse impact ratio, at refer_from"
    assert figure.meaning == "against 45 to under 60: leaves open a bound of 0.8"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.8265726, "0.8266"),
        (0.0, "0.0000"),
        (3.1e-16, "3.1e-16"),
        (-0.01234, "−0.0123"),
        (138.369, "138.4"),
        (52345.6, "52,346"),
        (None, "–"),
    ],
)
def test_numbers_are_shown_with_the_digits_that_tell_something(value: float | None, text: str) -> None:
    assert pack.format_value(value) == text
    assert pack.format_value(1200.0, is_count=True) == "1,200"


def test_pages_show_every_figure_with_its_hash_and_nothing_from_elsewhere(example: pack.Pack, pages: dict[str, str]) -> None:
    for name, page in pages.items():
        outcomes = pack.compare_page(example, page, name, whole=name == "pack.html")
        assert outcomes.disagreements == []
        assert outcomes.agree > 10
        assert not re.search(r"<script|<link|@import|url\(|https?://", page)
    assert "&lt;script&gt;" in pages["card.html"]  # what people wrote is text
    assert "&lt;b&gt;f&lt;/b&gt;" in pages["pack.html"]
    assert all(heading in pages["card.html"] for heading in ("What it decides", "Limits", "Features", "Versions"))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (">0.8266<", ">0.9266<", "shows 0.9266 .* as the value of evaluation/auc"),
        ('value="0.8265726"', 'value="0.9265726"', "as the value of evaluation/auc"),
        (">0.7783<", ">0.8783<", "as the low of evaluation/auc"),
        ('data-figure="evaluation/auc"', 'data-figure="evaluation/ruc"', "evaluation/ruc, which is not in pack.json"),
        (f">{pack.sha256(b'e')[:8]}<", ">00000000<", "carries the hash 00000000"),
        ("base64,iVBOR", "base64,iVBOS", "plots/test_roc_pr.png is not the one"),
    ],
)
def test_a_page_that_was_tampered_with_is_found_with_its_line(
    example: pack.Pack, pages: dict[str, str], before: str, after: str, message: str
) -> None:
    assert before in pages["pack.html"]
    outcomes = pack.compare_page(example, pages["pack.html"].replace(before, after, 1), "pack.html", whole=True)
    assert re.search(rf"pack.html, line \d+: .*{message}", outcomes.disagreements[0])


def test_a_figure_that_a_page_hides_is_missed(example: pack.Pack, pages: dict[str, str]) -> None:
    hidden = re.sub(r"<tr>.*?mean_default.*?</tr>", "", pages["pack.html"], flags=re.DOTALL)
    assert "evaluation/mean_default" in str(pack.compare_page(example, hidden, "pack.html", whole=True).disagreements)


def test_figures_agree_but_for_rounding_and_the_first_that_does_not_is_named(example: pack.Pack) -> None:
    rounded = [replace(one, value=one.value and one.value * (1 + 1e-12)) for one in example.figures]
    assert all(not one.disagreements for one in pack.compare_figures(example.figures, rounded, "snapshot and bundle"))
    wrong = [replace(one, high=0.9) if one.key == "evaluation/auc" else one for one in example.figures]
    outcomes = {one.name: one for one in pack.compare_figures(example.figures, wrong, "snapshot and bundle")}
    assert outcomes["Discrimination"].disagreements == [
        "pack.json: the high of evaluation/auc is 0.8748 there, 0.9 from snapshot and bundle"
    ]  # fmt: skip
    assert str(outcomes["Discrimination"]) == "Discrimination: 0 of 1 agree"
    assert outcomes["Calibration"].disagreements == []


def test_figures_that_are_missing_on_either_side_are_named(example: pack.Pack) -> None:
    fewer = [one for one in example.figures if one.key != "evaluation/auc"]
    lacking = [place for one in pack.compare_figures(fewer, example.figures, "the bundle") for place in one.disagreements]
    assert lacking == ["pack.json: evaluation/auc is missing; the bundle gives 0.8265726"]
    invented = [place for one in pack.compare_figures(example.figures, fewer, "the bundle") for place in one.disagreements]
    assert invented == ["pack.json: evaluation/auc stands there, but the bundle does not give it"]


def test_a_gate_that_refuses_is_the_first_thing_to_read(example: pack.Pack) -> None:
    against = replace(example, verdicts=[pack.PackVerdict("profit", "Not less than the champion's.", ("less by 0.02",))])
    page = card.render_pages(against, {"plots/test_roc_pr.png": PNG})["pack.html"]
    assert not against.is_supported
    assert page.index("does not support") < page.index("less by 0.02") < page.index("<h2")
    assert "compliant" not in page


def test_sections_of_a_readme_begin_at_headings_and_at_bold_sentences() -> None:
    text = "# Title\n\nLost.\n\n**Decision.** Approve\nor refuse.\n\nMore.\n\n## Models (`model.py`)\n\nTwo.\n\n**Limits.**\n\n- One.\n"
    assert card.parse_sections(text) == {"Decision": "Approve\nor refuse.\n\nMore.", "Models": "Two.", "Limits": "- One."}
    assert card.pick_section({"Limits": "x"}, "Caveats", "Limits") == "x"
    assert card.pick_section({}, "Limits") == ""
