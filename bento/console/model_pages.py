"""The pages of models: the champions with their figures, and one champion with what moves it."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from bento.console.api_client import ApiRefusal
from bento.console.console_context import Console
from bento.console.presentation import charts, model_charts
from bento.console.presentation.rendering import build_csv

MAX_BARS = 15
_MAIN_FIGURES = (
    *("auc", "gini", "ks", "average_precision", "precision_at_100", "brier", "log_loss"),
    *("expected_calibration_error", "calibration_in_the_large", "interval_coverage", "mae_expected"),
    *("share_anomalous", "share_reviewed", "emp", "gain", "n_test"),
)
"""Figures that a model's page shows at once; the others unfold."""
_VERDICTS = ("speaks against", "supports", "leaves open")
"""Verdicts of a figure of fairness on its bound, in the words of its meaning."""
_HEADLINES = ("auc", "average_precision", "brier", "log_loss", "ece", "calibration_error")
"""Figures that the list of models shows, where a model has them."""


async def show_models(console: Console, request: Request) -> Response:
    """Return the champions with their headline figures."""
    listed, metrics, cards = await asyncio.gather(
        console.get(request, "/v1/models"), console.get(request, "/v1/model-metrics"), console.get(request, "/v1/model-cards")
    )
    figures = {model["domain"]: {figure["name"]: figure for figure in model["test"]} for model in metrics["models"]}
    oracle = {model["domain"]: {figure["name"]: figure for figure in model["oracle"]} for model in metrics["models"]}
    return console.page(
        request,
        "models.html",
        models=listed["models"],
        absent=listed["absent"],
        figures=figures,
        oracle=oracle,
        headlines=[name for name in _HEADLINES if any(name in test for test in figures.values())],
        cards={card["domain"]: card for card in cards["cards"]},
    )


async def show_model(console: Console, request: Request) -> Response:
    """Return one champion: provenance, figures with intervals, curves, effects, scorecard, challenger, fairness, drift and links."""
    domain = request.path_params["domain"]
    cards, metrics = await asyncio.gather(console.get(request, "/v1/model-cards"), console.get(request, "/v1/model-metrics"))
    card = next((card for card in cards["cards"] if card["domain"] == domain), None)
    if card is None:
        raise ApiRefusal(404, "no_model", "This service has no such model. The page of models says which domains have none, and why.")
    if request.query_params.get("format") == "csv":
        columns = ("feature", "unit", "mean_contribution", "coefficient", "description")
        return build_csv(f"{domain}-features", columns, card["importance"])
    model = next(model for model in metrics["models"] if model["domain"] == domain)
    evidence = await console.get(request, f"/v1/model-evidence/{domain}")
    # The importance of features stands beside, as bars.
    test = [figure for figure in model["test"] if not figure["name"].startswith("importance")]
    fairness = [_name_fairness(figure) for figure in evidence["fairness"]]
    pairs = [pair for pair in card["curve"] if pair["recall"] is not None]
    return console.page(
        request,
        "model.html",
        card=card,
        main_figures=[figure for figure in test if figure["name"] in _MAIN_FIGURES],
        other_figures=[figure for figure in test if figure["name"] not in _MAIN_FIGURES],
        test=test,
        oracle=model["oracle"],
        bars_shown=[{"feature": row["feature"], "contribution": row["mean_contribution"]} for row in card["importance"][:MAX_BARS]],
        recall_spec=charts.draw_precision_recall(pairs) if pairs else None,
        evidence=evidence,
        links=console.links.list_model_links(domain, evidence["origin"]),
        fairness=fairness,
        verdicts=sorted(Counter(figure["verdict"] for figure in fairness if figure["verdict"]).items()),
        **_draw_evidence(evidence),
    )


def _draw_evidence(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return the charts of a model's evidence, None for each that it has no figures for, and the points that they show."""
    challenger = evidence["challenger"] or {"roc": [], "precision_recall": []}
    roc, recall = (
        model_charts.label_curves({"champion": evidence[name], "challenger": challenger[name]}) for name in ("roc", "precision_recall")
    )
    rate = evidence["events"] / evidence["rows"] if evidence["events"] and evidence["rows"] else None
    has_effects = any(effect["groups"] for effect in evidence["effects"])
    return {
        "roc_points": roc,
        "recall_points": recall,
        "roc_spec": model_charts.draw_roc(roc) if roc else None,
        "evidence_recall_spec": model_charts.draw_precision_recall(recall, rate) if recall else None,
        "calibration_spec": model_charts.draw_calibration(evidence["calibration"]) if evidence["calibration"] else None,
        "effects_spec": model_charts.draw_effects(evidence["effects"]) if has_effects else None,
        "candidate_columns": sorted({name for row in evidence["candidates"] for name in row["figures"]}, key=_rank_column),
    }


def _rank_column(name: str) -> tuple[int, str]:
    """Return the place of a column of the candidates' table: what was measured, its interval, and the comparison with the best."""
    starts = ("validation", "AUC", "low", "high", "log loss", "above the best", "above, at least")
    return next((at for at, start in enumerate(starts) if name.startswith(start)), len(starts)), name


def _name_fairness(figure: Mapping[str, Any]) -> dict[str, Any]:
    """Return a figure of fairness with the parts of its name: its measure, its cutoff, and the group of people."""
    kind, measure, *rest = figure["metric"].split("/")
    group = rest[-1] if rest else ""
    verdict = next((word for word in _VERDICTS if word in figure["meaning"]), "accepted" if kind == "fairness_accepted" else "")
    return {**figure, "measure": measure, "cutoff": rest[0] if len(rest) > 1 else "", "group": group, "verdict": verdict}
