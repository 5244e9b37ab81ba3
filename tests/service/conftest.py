"""Small real bundles, a model store that holds them, and a client of the service in this process."""

import ipaddress
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY
from starlette.testclient import TestClient

from bento.store.records import FeatureSnapshot
from bento.store.session import Store, open_store
from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES
from finrisk_assets.features.windows import to_json
from finrisk_assets.graph import packaging
from finrisk_assets.scoring.bundle import write
from finrisk_assets.scoring.score_curve import ScoreCurve
from finrisk_assets.scoring.spec import BundleSpec, Trees
from finrisk_assets.settings import Settings
from tests.service.databases import TEST_POSTGRES, Server, started, store_at
from tests.service.examples import ORIGIN, SNAPSHOTS, write_linear_bundles

START = datetime(2024, 5, 6, 12, 0, 0)

DECLARED = tuple(
    declared
    for declared in FEATURES
    if declared.feature.name in {"log_amount", "hour", "customer_n_1h", "customer_amount_sum_1d", "amount_to_mean_30d", "is_new_merchant"}
)


def write_transaction_bundle(
    folder: Path,
    windows: Sequence[Mapping[str, Any]] = tuple(to_json(DECLARED)),
    curves: tuple[ScoreCurve, ScoreCurve] | tuple[None, None] = (None, None),
    **thresholds: float,
) -> Path:
    """Write a bundle of boosted trees, trained on noise in which large amounts soon after others are fraud.

    The `curves` are those of scores and of expected losses, from which a policy's thresholds follow.
    """
    import xgboost

    rng = np.random.default_rng(2)
    rows = rng.uniform(0, 8, (500, len(DECLARED))).astype(np.float32)
    fraud = rows[:, 0] + rows[:, 2] > 11
    trained = xgboost.train({"max_depth": 3, "objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(rows, fraud), 20)
    write(
        folder,
        BundleSpec(
            **ORIGIN,
            name="finrisk-transaction-anomaly",
            domain="transaction_anomaly",
            features=tuple(declared.feature for declared in DECLARED),
            windows=tuple(windows),
            components=(Trees(bytes(trained.save_raw("json"))),),
            golden_rows=rows[:16],
            thresholds=TRANSACTION_THRESHOLDS | thresholds,
            score_curve=curves[0],
            loss_curve=curves[1],
        ),
    )
    return folder


TRANSACTION_THRESHOLDS = {"anomaly": 0.5, "review": 0.6, "block": 0.95}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path]:
    """Return the files of a self-signed certificate for 127.0.0.1 and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, name, now = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=finrisk test"), datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(
            name, name, key.public_key(), x509.random_serial_number(), now - timedelta(hours=1), now + timedelta(hours=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "server.crt", folder / "server.key"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    files[1].chmod(0o600)
    return files


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """Yield a PostgreSQL server; `new()` returns the URL of a new database."""
    with started() as url:
        server = Server(url)
        yield server
        if TEST_POSTGRES in os.environ:  # one of our own is removed as a whole
            server.clean()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str | Path:
    """Return the place of an empty store, on each of both engines."""
    if request.param == "sqlite":
        return tmp_path / "service" / "store.sqlite"
    server: Server = request.getfixturevalue("postgresql")
    return server.new(empty=False)


@pytest.fixture
def store(store_url: str | Path) -> Iterator[Store]:
    """Yield an empty store, on each of both engines."""
    with closing(store_at(store_url)) as opened_:
        yield opened_


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the folder of each domain's bundle."""
    folder = tmp_path_factory.mktemp("bundles")
    return write_linear_bundles(folder) | {"transaction_anomaly": write_transaction_bundle(folder / "transaction_anomaly")}


class _Client(TestClient):
    """A client that, when closed, makes the previous service current again: BentoML knows one service per process."""

    def __enter__(self) -> TestClient:
        self._before = import_module("_bentoml_sdk.service")._current_service
        return super().__enter__()

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)
        import_module("_bentoml_sdk.service").set_current_service(self._before)


class Serving:
    """A factory of services in this process, each with its own model store and a service store that holds feature snapshots."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self._monkeypatch = monkeypatch

    def __call__(
        self,
        bundles: dict[str, Path],
        absent: dict[str, str] | None = None,
        figures: Mapping[str, packaging.Figures] | None = None,
        challengers: Mapping[str, Path] | None = None,
        snapshots: Sequence[FeatureSnapshot] = SNAPSHOTS,
        evidence: Mapping[str, Mapping[str, Any]] | None = None,
        origins: Mapping[str, Mapping[str, str]] | None = None,
    ) -> TestClient:
        from bentoml._internal.container import BentoMLContainer
        from bentoml._internal.models import ModelStore

        from bento.service import FinRisk

        models = self.home / "models"
        for domain, folder in bundles.items():
            beside = (challengers or {}).get(domain)
            tag = packaging.store_challenger(self.home, domain, beside, folder) if beside else None
            shown, origin = (evidence or {}).get(domain), (origins or {}).get(domain)
            packaging.store_model(self.home, domain, folder, absent or {}, (figures or {}).get(domain, ()), tag, None, shown, origin)
        with closing(open_store(Settings(home=self.home))) as store:
            store.replace_snapshots(snapshots)
        self._monkeypatch.setenv("FINRISK_HOME", str(self.home))
        BentoMLContainer.model_store.set(ModelStore(models))
        for collector in list(REGISTRY._collector_to_names):  # each application registers its metrics anew
            REGISTRY.unregister(collector)
        return _Client(FinRisk.to_asgi(), raise_server_exceptions=False)


@pytest.fixture
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serving]:
    from bentoml._internal.container import BentoMLContainer

    before = BentoMLContainer.model_store.get()
    yield Serving(tmp_path, monkeypatch)
    BentoMLContainer.model_store.set(before)


@pytest.fixture
def client(serving: Serving, bundles: dict[str, Path]) -> Iterator[TestClient]:
    """Yield a client of a service with all models and an empty history of transactions."""
    with serving(bundles) as running:
        yield running


@pytest.fixture(scope="module")
def shared_client(tmp_path_factory: pytest.TempPathFactory, bundles: dict[str, Path]) -> Iterator[TestClient]:
    """Yield a client that a module's tests share where none depends on the history."""
    with pytest.MonkeyPatch.context() as monkeypatch, Serving(tmp_path_factory.mktemp("shared"), monkeypatch)(bundles) as running:
        yield running


@pytest.fixture(scope="session")
def transaction() -> Callable[..., dict[str, Any]]:
    """Return a function that builds the body of a transaction, a number of minutes after `START`, with some fields changed."""

    def body(minutes: float = 0.0, **changes: Any) -> dict[str, Any]:
        moment = (START + timedelta(minutes=minutes)).isoformat()
        return {"user_id": 5, "amount": 120.0, "timestamp": moment, "merchant": "3156", **changes}

    return body


@pytest.fixture(scope="session")
def loan() -> Callable[..., dict[str, Any]]:
    """Return a function that builds the body of a typical loan, with some features changed."""

    def body(**features: Any) -> dict[str, Any]:
        typical = {"loan_amount": 9000, "term_months": 24, "balance_mean_30d": 4000.5, "is_urban": True, "instalment_to_usual_income": 0.2}
        return {"loan_id": "L1", "features": typical | features}

    return body
