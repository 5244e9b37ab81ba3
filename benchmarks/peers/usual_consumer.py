"""A consumer as most are written: one message at a time, a pickled XGBoost model, SHAP, a row committed through SQLAlchemy's ORM.

It gets the features ready made, where ours computes them from the history, and gives no reasons, no audit and no alerts. A message that
comes twice is decided twice.
"""

import json
import pickle
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import shap
import xgboost
from confluent_kafka import Consumer, Producer
from numpy.typing import NDArray
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from benchmarks.peers.plain_fastapi import Base, Decision


def pickle_model(trees: bytes, file: Path) -> None:
    """Pickle the classifier of a bundle's trees."""
    model = xgboost.XGBClassifier()
    model.load_model(bytearray(trees))
    file.write_bytes(pickle.dumps(model))


def consume(
    address: str, source: str, target: str, model_file: Path, store: Path, names: Sequence[str], rows: NDArray[np.float32], number: int
) -> None:
    """Decide so many messages of a topic, and publish each decision to another one."""
    model = pickle.loads(model_file.read_bytes())  # noqa: S301 - written by `pickle_model` a moment ago
    explainer = shap.TreeExplainer(model)
    engine = create_engine(f"sqlite:///{store}")
    Base.metadata.create_all(engine)
    consumer = Consumer({"bootstrap.servers": address, "group.id": f"{source}-usual", "auto.offset.reset": "earliest", "log_level": 0})
    consumer.subscribe([source])
    producer = Producer({"bootstrap.servers": address, "acks": "all", "log_level": 0})
    decided = 0
    while decided < number:
        message = consumer.poll(1.0)
        if message is None or message.error() is not None:
            continue
        body = json.loads(message.value() or b"{}")
        frame = pd.DataFrame([dict(zip(names, rows[decided % len(rows)].tolist(), strict=True))])
        score = float(model.predict_proba(frame)[0, 1])
        contributions = dict(zip(names, explainer.shap_values(frame)[0].tolist(), strict=True))
        with Session(engine) as session:
            features = frame.iloc[0].where(frame.iloc[0].notna(), None).to_dict()
            session.add(
                Decision(decided_at=datetime.now(UTC), score=score, anomaly=score > 0.5, features=features, contributions=contributions)
            )
            session.commit()
        answer = {"transaction_id": body["transaction_id"], "score": score, "contributions": contributions}
        producer.produce(target, json.dumps(answer), message.key())
        producer.flush()
        consumer.commit(message, asynchronous=False)
        decided += 1
    consumer.close()
