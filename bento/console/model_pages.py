"""The pages of models: the champions with their figures, and one champion with what moves it."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from bento.console.api_client import ApiRefusal
from bento.console.console_context import Console
from bento.console.presentation import charts
from bento.console.presentation.rendering import build_csv

MAX_BARS = 15
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
    """Return one champion: provenance, figures with intervals, importance, thresholds, curve, and its challenger."""
    domain = request.path_params["domain"]
    cards, metrics = await asyncio.gather(console.get(request, "/v1/model-cards"), console.get(request, "/v1/model-metrics"))
    card = next((card for card in cards["cards"] if card["domain"] == domain), None)
    if card is None:
        raise ApiRefusal(404, "no_model", "This service has no such model. The page of models says which domains have none, and why.")
    if request.query_params.get("format") == "csv":
        columns = ("feature", "unit", "mean_contribution", "coefficient", "description")
        return build_csv(f"{domain}-features", columns, card["importance"])
    model = next(model for model in metrics["models"] if model["domain"] == domain)
    pairs = [pair for pair in card["curve"] if pair["recall"] is not None]
    return console.page(
        request,
        "model.html",
        card=card,
        # The importance of features stands beside, as bars.
        test=[figure for figure in model["test"] if not figure["name"].startswith("importance")],
        oracle=model["oracle"],
        bars_shown=[{"feature": row["feature"], "contribution": row["mean_contribution"]} for row in card["importance"][:MAX_BARS]],
        recall_spec=charts.draw_precision_recall(pairs) if pairs else None,
    )
