"""The code location of another team, as an example: a table for its branches from the marts that finrisk's graph exports.

It imports nothing of finrisk. The key of the asset `marts` ties the two graphs together: Dagster shows one lineage, and the table is made
again after each export.
"""

import csv
import os
from collections import Counter
from pathlib import Path

import dagster as dg

MARTS = dg.AssetKey("marts")


@dg.asset(deps=[MARTS], group_name="branches", automation_condition=dg.AutomationCondition.eager())
def decisions_by_domain(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """Counts of the scores in the newest export, by domain and decision."""
    folder = Path(os.environ.get("BRANCH_REPORTS_MARTS", ".finrisk/simulator/marts"))
    with (folder / "scores.csv").open(encoding="utf-8", newline="") as file:
        counts = Counter((row["domain"], row["decision"]) for row in csv.DictReader(file))
    lines = ["| domain | decision | rows |", "|---|---|---|"]
    lines += [f"| {domain} | {decision} | {rows} |" for (domain, decision), rows in sorted(counts.items())]
    return dg.MaterializeResult(metadata={"decisions": dg.MetadataValue.md("\n".join(lines)), "dagster/row_count": len(counts)})


defs = dg.Definitions(assets=[decisions_by_domain])
