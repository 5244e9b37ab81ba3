"""The table that batch scoring stores: one row per decided subject, the same columns in every domain."""

from schemas.ledger import Column, Table


def score_table(domain: str, key: Column, decision_time: Column, more: tuple[Column, ...] = ()) -> Table:
    """Return the contract of ``scores_<domain>``.

    Parameters
    ----------
    key, decision_time
        The columns of the domain's feature table that hold the subject's key and the decision time.
    more
        Further columns of the domain: the terms of an offer, the bounds of an amount.
    """
    return Table(
        f"scores_{domain}",
        f"Decisions of the {domain.replace('_', ' ')} champion over the whole population.",
        (
            key,
            Column("customer_id", "string", "The customer.", personal="identifier"),
            decision_time,
            Column("score", "float64", "The model's margin; its SHAP contributions sum to it."),
            Column("probability", "float64", "The calibrated score.", "probability", minimum=0, maximum=1),
            Column("decision", "string", "What the score means for the subject."),
            Column("model_version", "string", "Version of the scoring bundle."),
            Column("policy_version", "string", "Version of the decision policy."),
            *more,
        ),
        key=key.name,
    )
