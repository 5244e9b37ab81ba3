"""The outcome of a test: every valid transaction has one decision, every invalid message is one dead letter, whatever died meanwhile."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from random import Random
from typing import Any

import ibis
import numpy as np
import pandas as pd

from bento.decisions.reconcile import reconcile
from bento.store import audit_verify
from bento.store.records import StoredDecision
from bento.store.session import open_store
from finrisk_assets.features import batch
from finrisk_assets.features.parity import Parity, compare
from tests.service.conftest import DECLARED, START
from tests.stream.topics import Stream

NAMES = [declared.feature.name for declared in DECLARED]


def make_transactions(number: int, seed: int = 3, prefix: str = "t", start: datetime = START) -> list[dict[str, Any]]:
    """Return transactions of a few people and merchants, in the order of their times."""
    rng = Random(seed)
    return [
        {
            "transaction_id": f"{prefix}{at}",
            "user_id": str(rng.randrange(1 + number // 20)),
            "amount": round(1 + rng.expovariate(1 / 80), 2),
            "timestamp": (start + timedelta(seconds=20 * at + rng.randrange(20))).isoformat(),
            "merchant": str(rng.randrange(1 + number // 40)),
        }
        for at in range(number)
    ]


def stored_decisions(stream: Stream) -> list[StoredDecision]:
    with closing(open_store(stream.settings)) as store:
        return list(store.decisions())


def compare_with_batch(decisions: Sequence[StoredDecision], sent: Sequence[Mapping[str, Any]]) -> Parity:
    """Compare the stored rows with those that the batch path computes from all transactions at once."""
    table = pd.DataFrame(
        {
            "transaction_id": [body["transaction_id"] for body in sent],
            "customer_id": [str(body["user_id"]) for body in sent],
            "occurred_at": [datetime.fromisoformat(body["timestamp"]) for body in sent],
            "amount": [float(body["amount"]) for body in sent],
            "merchant": [body.get("merchant") for body in sent],
        }
    )
    rows = batch.compute(ibis.memtable(table), DECLARED).to_pandas().set_index("transaction_id")[NAMES]
    online = {decision.content.request["transaction_id"]: decision.content.row for decision in decisions}
    names = [body["transaction_id"] for body in sent]
    return compare(rows.loc[names].to_numpy(float), np.array([online[name] for name in names], float), NAMES)


def check_outcome(stream: Stream, valid: Sequence[Mapping[str, Any]], invalid: Mapping[bytes, str] | None = None) -> None:
    """Check store, published decisions, dead letters, audit and features.

    Parameters
    ----------
    valid
        The transactions that must be decided, each once.
    invalid
        The messages that must be dead letters, each once -> the reason.
    """
    decisions = stored_decisions(stream)
    assert Counter(decision.content.request["transaction_id"] for decision in decisions) == Counter(b["transaction_id"] for b in valid)

    published: dict[str, bytes] = {}
    for message in stream.walk(stream.settings.stream_decisions):
        body = published.setdefault(message.key().decode(), message.value())
        assert body == message.value(), "a decision that is published again is the same"
        assert json.loads(body)["decision_id"] == message.key().decode()
    assert published.keys() == {decision.id for decision in decisions}

    letters = stream.dead_letters()
    assert Counter((value, headers["reason"]) for value, headers in letters) == Counter((invalid or {}).items())

    with closing(open_store(stream.settings)) as store:
        verdict = audit_verify.verify(store.database, store.keyring)
        assert verdict.broken is None
        assert reconcile(store).listed == []
    parity = compare_with_batch(decisions, valid)
    assert parity.equal, str(parity)
