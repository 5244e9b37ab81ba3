"""The monitoring report: one HTML file that a reader without the product can open, keep and print.

Words and layout belong here; figures come from `monitoring`, pictures from `svg`. The page loads nothing from elsewhere and holds no
person's data: windows, shares and distributions only. The same findings give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape

from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.monitoring import drift, svg
from finrisk_assets.modelling.monitoring.monitoring import CERTAIN, Findings, movement, span

MOVERS = 5
"""Features that are drawn: those that moved most surely."""

FIGURES = {
    "rate": "Share of rows with the outcome",
    "auc": "AUC: how well the score ranks (0.5 is chance, 1 is perfect)",
    "brier": "Brier score: mean squared error of the probability (less is better)",
    "precision": "Of those at or above {turn}, the share with the outcome",
    "recall": "Of those with the outcome, the share at or above {turn}",
}
"""A figure's name to what it says."""


@dataclass(frozen=True)
class About:
    """What the report is about.

    Attributes
    ----------
    domain, source
        The decision, in words, and the source of the ledger.
    champion, registered
        The bundle's version, and its place in the registry; empty where it has none.
    training_window
        First and last day of the rows that taught; None where they have no time.
    as_of, run_id
        The moment at which the ledger was read, and the run that did it.
    words
        Feature to what it means.
    left_out
        Feature to the reason why it is not tested.
    """

    domain: str
    source: str
    champion: str
    registered: str
    training_window: tuple[str, str] | None
    as_of: datetime
    run_id: str
    words: Mapping[str, str]
    left_out: Mapping[str, str]


def page(about: About, found: Findings) -> str:
    """Return the report as HTML."""
    body = [
        _verdict(about, found),
        _watched(about, found),
        _moved(about, found),
        _decisions(found),
        _performance(found),
        _reading(),
        f"<footer>Run {escape(about.run_id)}. The same figures are in the table of this run's asset.</footer>",
    ]
    title = f"{about.domain}: monitoring of {found.estimated_on}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


# Sections ----------------------------------------------------------------------------------------------------------------------


def _verdict(about: About, found: Findings) -> str:
    if found.confirmed:
        kind, next_step = "bad", "The next step is to train a challenger. Nothing is promoted by this finding: the gate decides that."
    elif found.score is None:
        kind, next_step = "none", ""
    elif found.score.drifted:
        kind, next_step = "warn", "Nothing needs to be done now. Look again when outcomes of these months are known."
    else:
        kind, next_step = "good", "Nothing needs to be done."
    reasons = "".join(f"<li>{escape(_sentence(reason))}</li>" for reason in (*found.confirmed, *found.notes))
    return (
        f"<h1>{escape(about.domain)}: monitoring of {escape(found.estimated_on)}</h1>"
        f'<section class="verdict {kind}"><p class="said">{escape(found.verdict)}</p>'
        f"{f'<ul>{reasons}</ul>' if reasons else ''}{f'<p>{escape(next_step)}</p>' if next_step else ''}</section>"
    )


def _watched(about: About, found: Findings) -> str:
    facts = {
        "Model": f"bundle {about.champion}" + (f", {about.registered}" if about.registered else ""),
        "Data": f"{about.source}, read as of {about.as_of.date().isoformat()}",
        "Trained on": " to ".join(about.training_window) if about.training_window else "rows without a time",
        "Compared": found.windows.why,
        "Followed since training": span(found.windows.since) or "not yet",
    }
    if found.features is not None:
        n, m, shared = found.features.n_reference, found.features.n_current, found.features.n_shared
        facts["Customers"] = f"{n:,} before, {m:,} now, {shared:,} of them in both; a customer counts once, however many rows it has"
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(said)}</dd>" for name, said in facts.items() if said)
    left = "".join(f"<li><code>{escape(name)}</code> {escape(why)}.</li>" for name, why in about.left_out.items())
    aside = f"<p>Not tested, because they move by themselves:</p><ul>{left}</ul>" if left else ""
    return f"<section><h2>What is watched</h2><dl>{rows}</dl>{aside}</section>"


def _moved(about: About, found: Findings) -> str:
    if found.score is None:
        return ""
    features = () if found.features is None else tuple(sorted(found.features.columns, key=_surest))
    moved = [one for one in features if one.is_drift]
    level = found.score.level
    first = _line(found.score.columns[0], "The model's score (margin)", found)
    lines = {one.name: _line(one, about.words.get(one.name, ""), found) for one in features}
    still = [lines[one.name] for one in features if not one.is_drift]
    shown = [found.score.columns[0], *(moved or features)[:MOVERS]]
    head = "".join(f"<th>{name}</th>" for name in ("", "What", "p-value", "PSI", "How it moved"))
    table = f'<table class="columns"><thead><tr>{head}</tr></thead><tbody>{{}}</tbody></table>'
    rest = f"<details><summary>{len(still)} features that did not move</summary>{table.format(''.join(still))}</details>" if still else ""
    pictures = "".join(_figure(svg.bars(one), one.name, movement(one, found.medians.get(one.name))) for one in shown)
    return (
        "<section><h2>What has moved</h2>"
        f"<p>{len(moved)} of {len(features)} features moved, and the score {'moved' if found.score.drifted else 'did not'}. "
        f"If nothing had changed, any feature at all would be called moved in {level:.0%} of windows, and the score in {level:.0%}.</p>"
        f"{table.format(first + ''.join(lines[one.name] for one in moved))}"
        f"{rest}"
        f"<h3>{'The score, and the features that moved most surely' if moved else 'The score, and the features nearest to a move'}</h3>"
        f"{svg.legend((('before, ' + span(found.windows.reference), svg.BEFORE), ('now, ' + span(found.windows.current), svg.NOW)))}"
        f'<div class="grid">{pictures}</div></section>'
    )


def _line(column: drift.ColumnDrift, words: str, found: Findings) -> str:
    mark = '<span class="moved">moved</span>' if column.is_drift else ""
    p = "&lt; 0.001" if column.adjusted_p_value <= 0.001 else f"{column.adjusted_p_value:.3f}"
    above = ' class="num above"' if column.psi > column.psi_limit else ' class="num"'
    return (
        f"<tr><td>{mark}</td><td><code>{escape(column.name)}</code><br><small>{escape(words)}</small></td>"
        f'<td class="num">{p}</td><td{above}>{column.psi:.3f}<br><small>by chance up to {column.psi_limit:.3f}</small></td>'
        f"<td>{escape(movement(column, found.medians.get(column.name)))}</td></tr>"
    )


def _decisions(found: Findings) -> str:
    windows = list(dict.fromkeys(one.window for one in found.shares))
    kinds = list(dict.fromkeys(one.decision for one in found.shares))
    share = {(one.window, one.decision): one.share for one in found.shares}
    gap = len(found.windows.reference) if windows and windows[0] in map(str, found.windows.reference) else 0
    picture = svg.stack(windows, {kind: [share[window, kind].value for window in windows] for kind in kinds}, gap)
    newest = [(kind, share[windows[-1], kind]) for kind in kinds]
    lines = "".join(f'<tr><td>{escape(kind)}</td><td class="num">{_interval(one, ".1%")}</td></tr>' for kind, one in newest)
    colours = svg.legend(tuple(zip(kinds, svg.ramp(len(kinds)), strict=True)))
    table = f"<table><thead><tr><th>Decision</th><th>{escape(windows[-1])}</th></tr></thead><tbody>{lines}</tbody></table>"
    note = "<p><small>The bars apart on the left are the months compared with.</small></p>" if gap else ""
    if len(windows) == 1:
        return f"<section><h2>Decisions</h2>{table}</section>"
    return f"<section><h2>Decisions by month</h2>{colours}{picture}{note}{table}</section>"


def _performance(found: Findings) -> str:
    parts = ["<section><h2>How well it does</h2>"]
    if found.estimated:
        when = "whose outcome is not known yet" if found.is_before_labels else "without looking at their outcomes"
        head = f"Of {found.estimated_on}: {found.n_estimated:,} rows {when}"
        lines = "".join(
            f'<tr><td>{escape(_named(name))}</td><td class="num">{_interval(one)}</td></tr>' for name, one in found.estimated.items()
        )
        parts.append(f"<h3>Estimated from the probabilities</h3><p>{escape(head)}.</p><table><tbody>{lines}</tbody></table>")
    if found.tested_auc is not None:
        parts.append(f"<p>When it was evaluated, the model's AUC was {_interval(found.tested_auc)}.</p>")
    if found.followed:
        parts.append("<h3>By month: estimated, and what came true</h3>")
        parts.append(svg.legend((("estimated, with its 95 % interval", svg.NOW), ("came true", svg.TRUE))))
        months = [one.window for one in found.followed]
        for title, estimated, seen, tested in (
            ("AUC; the grey band is that of the evaluation", [m.auc for m in found.followed], [m.seen_auc for m in found.followed], True),
            ("Share of rows with the outcome", [m.rate for m in found.followed], [m.seen_rate for m in found.followed], False),
        ):
            parts.append(_figure(svg.series(months, estimated, seen, found.tested_auc if tested else None), title))
    if found.reconciled:
        lines = "".join(
            f'<tr><td>{escape(_named(one.figure))}</td><td class="num">{one.estimated:.3f}</td><td class="num">{one.realised:.3f}</td>'
            f'<td class="num">{_interval(one.difference)}</td><td>{"agrees" if one.agrees else "<b>contradicts</b>"}</td></tr>'
            for one in found.reconciled
        )
        head = "".join(f"<th>{name}</th>" for name in ("", "Promised", "Came true", f"Difference ({CERTAIN:.0%} interval)", ""))
        parts.append(
            f"<h3>Promised and come true: {escape(found.reconciled_on)}</h3>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
        )
    return "".join(parts) + "</section>" if len(parts) > 1 else ""


def _reading() -> str:
    return (
        "<section><h2>How to read this</h2><ul>"
        "<li><b>Moved</b>: the two windows differ by more than chance explains, for this number of customers. It says that, not that the "
        "difference matters. In large ledgers small differences are seen.</li>"
        "<li><b>p-value</b>: how often windows that do not differ would look at least this different, all tested features "
        "taken together.</li>"
        "<li><b>PSI</b>: population stability index, the size of the difference. It is shown beside what it reaches by chance and never "
        "decides: the usual limits of 0.1 and 0.25 do not know the number of customers.</li>"
        "<li><b>Estimated</b>: what the model's own probabilities promise. It follows a change of the customers. It cannot see that the "
        "same customers have become riskier: only outcomes show that, and they come later.</li>"
        "<li><b>Confirmed</b>: the score moved and outcomes contradict the probabilities, or the estimated AUC lies wholly below that of "
        "the evaluation. Then a challenger is to be trained. It becomes champion only through the gate.</li></ul></section>"
    )


# Words -------------------------------------------------------------------------------------------------------------------------


def _surest(column: drift.ColumnDrift) -> tuple[bool, float, float]:
    return not column.is_drift, column.adjusted_p_value, -column.psi


def _named(figure: str) -> str:
    name, _, turn = figure.partition("_at_")
    return FIGURES.get(name, name).format(turn=f"probability {float(turn):.3g}" if turn else "")


def _interval(one: Interval, form: str = ".3f") -> str:
    return f"{one.value:{form}} <small>({one.low:{form}} to {one.high:{form}})</small>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _figure(picture: str, title: str, words: str = "") -> str:
    below = f"<small>{escape(words)}</small>" if words else ""
    return f"<figure><figcaption><b>{escape(title)}</b> {below}</figcaption>{picture}</figure>"


STYLE = """
body{font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;color:#1d2733;background:#f4f6f8;margin:0}
main{max-width:1040px;margin:0 auto;padding:24px}
h1{font-size:26px;margin:8px 0 16px}h2{font-size:20px;margin:0 0 12px}h3{font-size:16px;margin:24px 0 8px}
section{background:#fff;border:1px solid #dfe4ea;border-radius:8px;padding:20px 24px;margin:0 0 16px}
small{color:#5b6773}code{font:13px/1.4 ui-monospace,"DejaVu Sans Mono",monospace;overflow-wrap:anywhere}
.verdict{border-left:8px solid #8a94a0}.verdict .said{font-size:19px;font-weight:600;margin:0}.verdict p{margin:8px 0 0}
.good{border-left-color:#009e73}.warn{border-left-color:#e69f00}.bad{border-left-color:#d55e00}
dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 20px;margin:0}dt{color:#5b6773}dd{margin:0}
table{border-collapse:collapse;width:100%}th{text-align:left;white-space:nowrap;font-weight:600;border-bottom:2px solid #dfe4ea}
.columns td:first-child{width:56px}.columns td:nth-child(2){width:42%}summary{cursor:pointer;margin:12px 0;color:#0072b2}
td,th{padding:6px 12px 6px 0;vertical-align:top}td{border-bottom:1px solid #edf0f3}
.num{white-space:nowrap;font-variant-numeric:tabular-nums}.above{font-weight:600}
.moved{background:#fdf0e3;color:#8f3f00;border-radius:4px;padding:1px 6px;font-size:13px}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(420px,1fr));gap:16px 28px}
figure{margin:12px 0 0;break-inside:avoid}figcaption{margin-bottom:4px;overflow-wrap:anywhere}
svg{max-width:100%;height:auto;display:block}
.legend span{margin-right:20px}.legend i{display:inline-block;width:12px;height:12px;border-radius:2px;margin-right:6px}
footer{color:#5b6773;font-size:13px}
@media print{body{background:#fff}section{border:0;padding:0 0 12px}.verdict{padding-left:16px;border-left:8px solid}}
"""
