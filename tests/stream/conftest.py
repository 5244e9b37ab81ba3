"""A broker for all tests of the stream, a model, and three topics with a store for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from bento.decisions.models import Champions
from finrisk_assets.graph import packaging
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from tests.service.conftest import write_transaction_bundle
from tests.service.databases import Server, started
from tests.stream import broker as brokers
from tests.stream.topics import Stream


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[brokers.Broker]:
    with brokers.started(tmp_path_factory.mktemp("kafka") / "data") as running:
        yield running


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a BENTOML_HOME with a model of transactions."""
    home = tmp_path_factory.mktemp("models")
    packaging.store_model(home, "transaction_anomaly", write_transaction_bundle(home / "bundle"), {})
    return home


@pytest.fixture(scope="session")
def champions(models: Path) -> Champions:
    bundle = Bundle.load(models / "bundle").under(Champions({}, "", {}, {}, {}).policy)
    return Champions({"transaction_anomaly": bundle}, "simulator", {}, {}, {}, folders={"transaction_anomaly": models / "bundle"})


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    with started() as url:
        yield Server(url)


@pytest.fixture
def new_stream(broker: brokers.Broker, tmp_path: Path) -> Callable[..., Stream]:
    """Return a function that makes topics of their own, and the settings of a store of their own."""

    def create(partitions: int = 1, **changes: object) -> Stream:
        name = f"t{uuid4().hex[:12]}"
        names = {"stream_topic": name, "stream_decisions": f"{name}-decisions", "stream_group": f"{name}-group"}
        return Stream(Settings(home=tmp_path / "home", kafka=broker.address, **(names | changes)), partitions)

    return create
