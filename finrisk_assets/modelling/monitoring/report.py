"""The monitoring report: one HTML file that a reader without the product can open, keep and print.

Words and layout belong here; figures come from `monitoring`, charts from `svg`. The page loads nothing from elsewhere and holds no
personal data: windows, shares and distributions only. The same findings give the same bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from html import escape

from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.monitoring import drift, svg
from finrisk_assets.modelling.monitoring.monitoring import RECONCILE_LEVEL, MonitoringFindings, describe_movement, format_months

MAX_DRAWN_FEATURES = 5
"""Features that are drawn, by significance of their move."""

FIGURE_TEXTS = {
    "rate": "Share of rows with the outcome",
    "auc": "AUC: how well the score ranks (0.5 is chance, 1 is perfect)",
    "brier": "Brier score: mean squared error of the probability (less is better)",
    "precision": "Of those at or above {threshold}, the share with the outcome",
    "recall": "Of those with the outcome, the share at or above {threshold}",
}
"""Figure -> its text in the report."""


@dataclass(frozen=True)
class ReportSubject:
    """The subject of a report.

    Attributes
    ----------
    domain, source
        Title of the domain, and the source of the ledger.
    champion, registered
        Version of the bundle, and its name and version in the registry; empty where it is not registered.
    training_window
        First and last day of the training rows; None where they have no time.
    as_of, run_id
        Time at which the ledger was read, and the run that read it.
    descriptions
        Feature -> its description.
    left_out
        Feature -> the reason why it is not tested.
    """

    domain: str
    source: str
    champion: str
    registered: str
    training_window: tuple[str, str] | None
    as_of: datetime
    run_id: str
    descriptions: Mapping[str, str]
    left_out: Mapping[str, str]


def render_report(subject: ReportSubject, findings: MonitoringFindings) -> str:
    """Return the report as HTML."""
    body = [
        _verdict_section(subject, findings),
        _data_section(subject, findings),
        _drift_section(subject, findings),
        _decisions_section(findings),
        _performance_section(findings),
        _guide_section(),
        f"<footer>Run {escape(subject.run_id)}. The same figures are in the table of this run's asset.</footer>",
    ]
    title = f"{subject.domain}: monitoring of {findings.estimated_on}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>\n" + "\n".join(body) + "\n</main></body></html>\n"
    )


# Sections ----------------------------------------------------------------------------------------------------------------------


def _verdict_section(subject: ReportSubject, findings: MonitoringFindings) -> str:
    if findings.confirmed:
        kind, next_step = "bad", "The next step is to train a challenger. Nothing is promoted by this finding: the gate decides that."
    elif findings.score is None:
        kind, next_step = "none", ""
    elif findings.score.drifted:
        kind, next_step = "warn", "Nothing needs to be done now. Look again when outcomes of these months are known."
    else:
        kind, next_step = "good", "Nothing needs to be done."
    reasons = "".join(f"<li>{escape(_sentence(reason))}</li>" for reason in (*findings.confirmed, *findings.notes))
    return (
        f"<h1>{escape(subject.domain)}: monitoring of {escape(findings.estimated_on)}</h1>"
        f'<section class="verdict {kind}"><p class="said">{escape(findings.verdict)}</p>'
        f"{f'<ul>{reasons}</ul>' if reasons else ''}{f'<p>{escape(next_step)}</p>' if next_step else ''}</section>"
    )


def _data_section(subject: ReportSubject, findings: MonitoringFindings) -> str:
    facts = {
        "Model": f"bundle {subject.champion}" + (f", {subject.registered}" if subject.registered else ""),
        "Data": f"{subject.source}, read as of {subject.as_of.date().isoformat()}",
        "Trained on": " to ".join(subject.training_window) if subject.training_window else "rows without a time",
        "Compared": findings.windows.reason,
        "Followed since training": format_months(findings.windows.since) or "not yet",
    }
    if findings.features is not None:
        n, m, shared = findings.features.n_reference, findings.features.n_current, findings.features.n_shared
        facts["Customers"] = f"{n:,} before, {m:,} now, {shared:,} of them in both; a customer counts once, however many rows it has"
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items() if text)
    left_out_items = "".join(f"<li><code>{escape(name)}</code> {escape(reason)}.</li>" for name, reason in subject.left_out.items())
    aside = f"<p>Not tested, because they move by themselves:</p><ul>{left_out_items}</ul>" if left_out_items else ""
    return f"<section><h2>What is watched</h2><dl>{rows}</dl>{aside}</section>"


def _drift_section(subject: ReportSubject, findings: MonitoringFindings) -> str:
    if findings.score is None:
        return ""
    features = () if findings.features is None else tuple(sorted(findings.features.columns, key=_significance))
    moved = [column for column in features if column.is_drift]
    level = findings.score.level
    score_row = _column_row(findings.score.columns[0], "The model's score (margin)", findings)
    feature_rows = {column.name: _column_row(column, subject.descriptions.get(column.name, ""), findings) for column in features}
    unmoved_rows = [feature_rows[column.name] for column in features if not column.is_drift]
    drawn = [findings.score.columns[0], *(moved or features)[:MAX_DRAWN_FEATURES]]
    header = "".join(f"<th>{name}</th>" for name in ("", "What", "p-value", "PSI", "How it moved"))
    table = f'<table class="columns"><thead><tr>{header}</tr></thead><tbody>{{}}</tbody></table>'
    unmoved_table = (
        f"<details><summary>{len(unmoved_rows)} features that did not move</summary>{table.format(''.join(unmoved_rows))}</details>"
        if unmoved_rows
        else ""
    )
    reference, current = format_months(findings.windows.reference), format_months(findings.windows.current)
    windows = (("before, " + reference, svg.REFERENCE_COLOUR), ("now, " + current, svg.CURRENT_COLOUR))
    charts = "".join(
        _chart(svg.draw_bars(column), column.name, describe_movement(column, findings.medians.get(column.name))) for column in drawn
    )
    return (
        "<section><h2>What has moved</h2>"
        f"<p>{len(moved)} of {len(features)} features moved, and the score {'moved' if findings.score.drifted else 'did not'}. "
        f"If nothing had changed, any feature at all would be called moved in {level:.0%} of windows, and the score in {level:.0%}.</p>"
        f"{table.format(score_row + ''.join(feature_rows[column.name] for column in moved))}"
        f"{unmoved_table}"
        f"<h3>{'The score, and the features that moved most surely' if moved else 'The score, and the features nearest to a move'}</h3>"
        f"{svg.draw_legend(windows)}"
        f'<div class="grid">{charts}</div></section>'
    )


def _column_row(column: drift.ColumnDrift, description: str, findings: MonitoringFindings) -> str:
    mark = '<span class="moved">moved</span>' if column.is_drift else ""
    p = "&lt; 0.001" if column.adjusted_p_value <= 0.001 else f"{column.adjusted_p_value:.3f}"
    cell_class = ' class="num above"' if column.psi > column.psi_limit else ' class="num"'
    return (
        f"<tr><td>{mark}</td><td><code>{escape(column.name)}</code><br><small>{escape(description)}</small></td>"
        f'<td class="num">{p}</td><td{cell_class}>{column.psi:.3f}<br><small>by chance up to {column.psi_limit:.3f}</small></td>'
        f"<td>{escape(describe_movement(column, findings.medians.get(column.name)))}</td></tr>"
    )


def _decisions_section(findings: MonitoringFindings) -> str:
    windows = list(dict.fromkeys(share_of_window.window for share_of_window in findings.shares))
    kinds = list(dict.fromkeys(share_of_window.decision for share_of_window in findings.shares))
    share = {(share_of_window.window, share_of_window.decision): share_of_window.share for share_of_window in findings.shares}
    gap = len(findings.windows.reference) if windows and windows[0] in map(str, findings.windows.reference) else 0
    chart = svg.draw_stack(windows, {kind: [share[window, kind].value for window in windows] for kind in kinds}, gap)
    newest_shares = [(kind, share[windows[-1], kind]) for kind in kinds]
    table_rows = "".join(
        f'<tr><td>{escape(kind)}</td><td class="num">{_interval(share_of_window, ".1%")}</td></tr>'
        for kind, share_of_window in newest_shares
    )
    legend = svg.draw_legend(tuple(zip(kinds, svg.order_colours(len(kinds)), strict=True)))
    table = f"<table><thead><tr><th>Decision</th><th>{escape(windows[-1])}</th></tr></thead><tbody>{table_rows}</tbody></table>"
    note = "<p><small>The bars apart on the left are the months compared with.</small></p>" if gap else ""
    if len(windows) == 1:
        return f"<section><h2>Decisions</h2>{table}</section>"
    return f"<section><h2>Decisions by month</h2>{legend}{chart}{note}{table}</section>"


def _performance_section(findings: MonitoringFindings) -> str:
    parts = ["<section><h2>How well it does</h2>"]
    if findings.estimated:
        which_rows = "whose outcome is not known yet" if findings.is_before_labels else "without looking at their outcomes"
        header = f"Of {findings.estimated_on}: {findings.n_estimated:,} rows {which_rows}"
        table_rows = "".join(
            f'<tr><td>{escape(_figure_text(name))}</td><td class="num">{_interval(figure)}</td></tr>'
            for name, figure in findings.estimated.items()
        )
        parts.append(f"<h3>Estimated from the probabilities</h3><p>{escape(header)}.</p><table><tbody>{table_rows}</tbody></table>")
    if findings.tested_auc is not None:
        parts.append(f"<p>When it was evaluated, the model's AUC was {_interval(findings.tested_auc)}.</p>")
    if findings.months:
        parts.append("<h3>By month: estimated, and what came true</h3>")
        parts.append(svg.draw_legend((("estimated, with its 95 % interval", svg.CURRENT_COLOUR), ("came true", svg.REALISED_COLOUR))))
        months = [figure.window for figure in findings.months]
        for title, estimated, realised, has_evaluation in (
            (
                "AUC; the grey band is that of the evaluation",
                [month.auc for month in findings.months],
                [month.realised_auc for month in findings.months],
                True,
            ),
            (
                "Share of rows with the outcome",
                [month.rate for month in findings.months],
                [month.realised_rate for month in findings.months],
                False,
            ),
        ):
            parts.append(_chart(svg.draw_series(months, estimated, realised, findings.tested_auc if has_evaluation else None), title))
    if findings.reconciled:
        table_rows = "".join(
            f'<tr><td>{escape(_figure_text(figure.figure))}</td><td class="num">{figure.estimated:.3f}</td>'
            f'<td class="num">{figure.realised:.3f}</td>'
            f'<td class="num">{_interval(figure.difference)}</td><td>{"agrees" if figure.agrees else "<b>contradicts</b>"}</td></tr>'
            for figure in findings.reconciled
        )
        header = "".join(f"<th>{name}</th>" for name in ("", "Promised", "Came true", f"Difference ({RECONCILE_LEVEL:.0%} interval)", ""))
        parts.append(
            f"<h3>Promised and come true: {escape(findings.reconciled_on)}</h3>"
            f"<table><thead><tr>{header}</tr></thead><tbody>{table_rows}</tbody></table>"
        )
    return "".join(parts) + "</section>" if len(parts) > 1 else ""


def _guide_section() -> str:
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


def _significance(column: drift.ColumnDrift) -> tuple[bool, float, float]:
    return not column.is_drift, column.adjusted_p_value, -column.psi


def _figure_text(figure: str) -> str:
    name, _, threshold = figure.partition("_at_")
    return FIGURE_TEXTS.get(name, name).format(threshold=f"probability {float(threshold):.3g}" if threshold else "")


def _interval(interval: Interval, number_format: str = ".3f") -> str:
    return f"{interval.value:{number_format}} <small>({interval.low:{number_format}} to {interval.high:{number_format}})</small>"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _chart(chart: str, title: str, text: str = "") -> str:
    below = f"<small>{escape(text)}</small>" if text else ""
    return f"<figure><figcaption><b>{escape(title)}</b> {below}</figcaption>{chart}</figure>"


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
