"""The contracts of the marts that are no table of the ledger: decisions and alerts of the service, scores of all domains, the dictionary.

The service writes the rows of decisions and alerts, the graph all files; both read these contracts.
"""

from schemas.ledger import Column, Table

DECISIONS = Table(
    "decisions",
    "Decisions of the service, in the order in which they were made.",
    (
        Column("decision_id", "string", "The decision."),
        Column("decided_at", "timestamp", "When it was made, UTC."),
        Column("domain", "string", "The question that was decided."),
        Column(
            "customer_id",
            "string",
            "The person concerned; of a person whom the ledger lacks, the service's own pseudonym; null where the request named nobody, "
            "or the person was erased.",
            nullable=True,
            personal="identifier",
        ),
        Column("decision", "string", "The outcome; null where the person was erased.", nullable=True),
        Column("probability", "float64", "The calibrated score; null where the person was erased.", "probability", True, 0, 1),
        Column("route", "string", "The route of the API that was asked."),
        Column("model_version", "string", "Version of the scoring bundle."),
        Column("policy_version", "string", "Version of the decision policy; null where it was made before policies.", nullable=True),
        Column("caller", "string", "The API key, token or worker that asked.", personal="identifier"),
        Column("label", "boolean", "The newest feedback: whether the outcome happened; null where none came.", nullable=True),
        Column("label_known_at", "timestamp", "When the newest feedback became known, UTC.", nullable=True),
    ),
    key="decision_id",
    event_time="decided_at",
)

ALERTS = Table(
    "alerts",
    "Reviewed and blocked transactions that wait for a person or were disposed of, in the order in which they were opened.",
    (
        Column("alert_id", "string", "The alert, named by its decision: `decision_id` of the decisions."),
        Column("opened_at", "timestamp", "When it was opened, UTC."),
        Column("customer_id", "string", "The person concerned, as in the decisions.", nullable=True, personal="identifier"),
        Column("decision", "string", "The outcome that opened it.", allowed=("review", "block")),
        Column(
            "expected_loss_amount",
            "float64",
            "Probability of fraud times the amount; null where the score is no probability.",
            "currency",
            True,
            0,
        ),
        Column("state", "string", "Where it stands.", allowed=("open", "claimed", "closed")),
        Column("assignee", "string", "Who claimed or closed it.", nullable=True, personal="identifier"),
        Column("claimed_at", "timestamp", "When it was claimed, UTC.", nullable=True),
        Column("disposition", "string", "What it was closed as.", nullable=True),
        Column("closed_at", "timestamp", "When it was closed, UTC.", nullable=True),
    ),
    key="alert_id",
    references={"alert_id": "decisions"},
    event_time="opened_at",
)

SCORES_COLUMNS = (
    Column("domain", "string", "The question that was decided."),
    Column(
        "subject_id",
        "string",
        "What was decided on: a loan, an offer, a transaction, or a customer or account at the end of a month.",
        personal="identifier",
    ),
    Column("customer_id", "string", "The customer.", nullable=True, personal="identifier"),
    Column("decided_at", "timestamp", "The decision time; null where the source has none.", nullable=True),
    Column("score", "float64", "The model's margin; its SHAP contributions sum to it."),
    Column("probability", "float64", "The calibrated score.", "probability", minimum=0, maximum=1),
    Column("decision", "string", "What the score means for the subject."),
    Column("model_version", "string", "Version of the scoring bundle."),
    Column("policy_version", "string", "Version of the decision policy."),
)
"""The columns of the mart `scores` that every domain has."""

DICTIONARY = Table(
    "dictionary",
    "The columns of all marts: meaning, unit, type and source.",
    (
        Column("column_id", "string", "Mart and column, as in `loans.term_months`."),
        Column("mart", "string", "The mart."),
        Column("position", "int64", "The column's place in the mart, from 1 on.", "count", minimum=1),
        Column("name", "string", "The column."),
        Column("type", "string", "Its type: string, int64, float64, boolean, or timestamp (UTC, to the microsecond)."),
        Column("unit", "string", "Unit of a number; null where it has none.", nullable=True),
        Column("meaning", "string", "What it says."),
        Column("source", "string", "The table and column that it comes from."),
        Column("is_nullable", "boolean", "Whether a row may lack it."),
        Column("allowed", "string", "The only values of a text, separated by commas; null where any is allowed.", nullable=True),
        Column("personal_data", "string", "Class of personal data; identifiers are pseudonyms unless FINRISK_EXPORT_IDENTIFIERS is set."),
        Column("known", "string", "When the value becomes known: `always`, or at the time in this column of the mart."),
    ),
    key="column_id",
)
