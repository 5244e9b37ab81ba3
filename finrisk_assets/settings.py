"""The FINRISK_* settings. This is the only module that reads the environment; everything else takes a `Settings`.

One source is one ledger: its warehouse, models, runs and service store live together in `FINRISK_HOME/<source>/`, so
that changing the source never mixes two ledgers.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from finrisk_assets.private_files import is_open_to_others

PREFIX = "FINRISK_"

MOVED_TO_POLICY = {
    "FINRISK_MEDIUM_RISK_FROM": "spending_risk.medium_from",
    "FINRISK_HIGH_RISK_FROM": "spending_risk.high_from",
    "FINRISK_REVIEW_CAPACITY": "transaction_anomaly.reviews_per_day",
}
"""Former setting -> the key of the policy that replaced it."""


_POSTGRES = re.compile("postgres(ql)?://", re.IGNORECASE)

DEVICES = ("auto", "cpu", "cuda")
"""Values of the setting `device`."""


class SettingsError(ValueError):
    """A setting that cannot be used: its name, its value and what to set instead."""


@dataclass(frozen=True)
class Settings:
    """The settings, each read from the environment variable ``FINRISK_<NAME>``; a secret also from a file, ``FINRISK_<NAME>_FILE``.

    Attributes
    ----------
    home
        Folder of all files that finrisk writes.
    source
        The source of the ledger: a name of `finrisk_assets.ledger.sources.SOURCES`.
    data_dir
        Folder of the real data sets; for a ``mapped`` source also an address in a bucket.
    mapping
        The YAML file that describes a ``mapped`` source.
    warehouse_url
        The database that holds the tables, ``duckdb://`` or ``postgres://``; empty means a DuckDB file below `home`; see docs/engines.md.
    warehouse_wait_minutes
        How long a run or a command waits for a DuckDB warehouse that another process has open, minutes.
    warehouse_memory_gb
        Memory in GB above which a DuckDB warehouse writes what it works on to a folder beside its file.
    as_of
        Moment at which the ledger is read, UTC: rows dated later are not known yet. Default: the present.
    seed
        Seed of every random draw.
    quarantine_max_share
        Largest share of a table's rows that may fail its contract before the run fails.
    sim_customers, sim_months
        Number of simulated customers, and of months of their history.
    sim_fraud_rate
        Share of the simulated people whose card is stolen in a year; None chooses it by the size of the ledger.
    sim_shock_month, sim_shock_size
        Month of the ledger, counted from 1, from which simulated incomes are lower by a share, and that share; month 0 is no shock.
    sim_economy
        YAML file with the numbers of the simulated economy: base rates and the strength of each effect.
    policy
        The YAML file of the decision policy; None means that of a ``mapped`` source, else the shipped one; see docs/policy.md.
    examined
        Features that a person examined and found free of leakage, as ``<domain>.<column>``, comma-separated; see docs/leakage.md.
    drain_seconds
        Seconds for which the service goes on answering after SIGTERM, no longer ready, before it ends.
    master_key, master_key_file
        The key that encrypts every person's data key in the service's keyring, or the file that holds it; see docs/privacy.md.
    store_url, store_upgrade
        Database URL of the service's store; empty means an SQLite file below `home`. Whether the service may migrate a PostgreSQL store at
        start.
    console
        Whether the service has the console at ``/console``.
    reports
        Folder of the reports on drift and on challengers that the service shows; `finrisk serve` and `finrisk up` set it, and without it
        none is shown.
    dagster_url, mlflow_url, console_url
        Addresses of the pages of Dagster, MLflow and the console, for links from one to another; `finrisk up` sets them, and without them
        no link is shown. The issuer leads people back to the console's.
    mlflow_store_url, mlflow_artifacts
        PostgreSQL database of MLflow's runs and registry, and the address in a bucket of their artifacts; empty means files below `home`.
    objects
        Address in a bucket to which snapshots, champions and marts are copied, such as ``s3://bucket/finrisk``; see docs/object-storage.md.
    export_identifiers
        Whether the marts name customers, accounts, loans and transactions by their identifiers in place of pseudonyms.
    base_image
        The image on which the service's image is built, with `@sha256:…` where its bytes are pinned.
    shadow
        Whether the Bento includes each domain's challenger, and the service scores with it beside the champion.
    threads
        Number of threads of a model's training.
    training_rows
        Rows of a feature table up to which all of them train and evaluate a model; of a larger table, those of a sample of customers.
    spark_training_rows, spark_training_wait_minutes
        On Spark, rows of a feature table above which XGBoost's models are fitted by the workers on the rows of all customers, 0 for never;
        and the minutes without a slot or without progress after which the models of the sample stand.
    spark_submit
        The command with options that starts such a fit, such as ``spark-submit --queue risk``; empty means this Python.
    device
        Where XGBoost fits: ``cpu``, ``cuda``, or ``auto`` for CUDA where XGBoost and the machine have it.
    jwt_issuer, jwt_audience, jwt_jwks
        Issuer and audience of the bearer tokens that the service accepts, and the URL or file of the issuer's public keys.
    jwt_roles_claim, jwt_role_prefix
        The claim that holds the caller's roles, and the prefix of finrisk's role names in it.
    oidc_client_id, oidc_client_secret
        Identifier and secret of the console at the issuer, through which people then sign in; without a secret it is a public client.
    oidc_scopes
        Scopes that the console asks the issuer for, separated by spaces.
    rate_per_second, rate_burst
        Requests per second, and in a burst, of each API key or token subject to one worker.
    unknown_per_second, unknown_burst
        The same for each address that sends no valid credential.
    max_connections, max_connections_per_address
        Connections that one worker keeps open, in all and of each client address. A trusted proxy is bounded by the first alone.
    trusted_proxies
        Addresses or networks of the proxies whose X-Forwarded-For is believed, comma-separated; empty means none.
    kafka, kafka_config
        Addresses of Kafka brokers, comma-separated, and a file of further properties of librdkafka, as for TLS; see docs/streaming.md.
    stream_topic, stream_decisions
        The topic of transactions, whose dead letters go to ``<topic>-dlq``, and the topic of the decisions on them.
    stream_group
        The consumer group of the stream's workers.
    stream_batch
        Messages that a worker decides in one transaction of the store at most.
    stream_host, stream_port
        Address and port where a worker answers /livez, /readyz and /metrics, without a key.
    """

    home: Path = Path(".finrisk")
    source: str = "simulator"
    data_dir: Path = Path("../shared/data")
    mapping: Path | None = None
    warehouse_url: str = field(default="", repr=False)
    warehouse_wait_minutes: float = 60.0
    warehouse_memory_gb: float = 2.0
    as_of: datetime | None = None
    seed: int = 20180401
    quarantine_max_share: float = 0.05
    sim_customers: int = 2000
    sim_months: int = 24
    sim_fraud_rate: float | None = None
    sim_shock_month: int = 0
    sim_shock_size: float = 0.2
    sim_economy: Path | None = None
    policy: Path | None = None
    examined: str = ""
    drain_seconds: float = 2.0
    master_key: str = field(default="", repr=False)
    master_key_file: Path | None = None
    store_url: str = field(default="", repr=False)
    store_upgrade: bool = False
    console: bool = False
    reports: Path | None = None
    dagster_url: str = ""
    mlflow_url: str = ""
    console_url: str = ""
    mlflow_store_url: str = field(default="", repr=False)
    mlflow_artifacts: str = ""
    objects: str = ""
    export_identifiers: bool = False
    base_image: str = "docker.io/library/python:3.11-slim-bookworm"
    shadow: bool = False
    threads: int = 2
    training_rows: int = 1_000_000
    spark_training_rows: int = 0
    spark_training_wait_minutes: float = 10.0
    spark_submit: str = ""
    device: str = "auto"
    jwt_issuer: str = ""
    jwt_audience: str = ""
    jwt_jwks: str = ""
    jwt_roles_claim: str = "roles"
    jwt_role_prefix: str = ""
    oidc_client_id: str = ""
    oidc_client_secret: str = field(default="", repr=False)
    oidc_scopes: str = "openid"
    rate_per_second: float = 100.0
    rate_burst: int = 200
    unknown_per_second: float = 5.0
    unknown_burst: int = 50
    max_connections: int = 512
    max_connections_per_address: int = 128
    trusted_proxies: str = ""
    kafka: str = "127.0.0.1:9092"
    kafka_config: Path | None = None
    stream_topic: str = "financial-transactions"
    stream_decisions: str = "risk-decisions"
    stream_group: str = "finrisk"
    stream_batch: int = 256
    stream_host: str = "127.0.0.1"
    stream_port: int = 3100

    def __post_init__(self) -> None:
        if re.search(r"\?|%[0-9A-Fa-f]{2}", str(self.home)):
            # Dagster writes the paths of its databases into URLs as they are.
            raise SettingsError(
                f"FINRISK_HOME={str(self.home)!r} has a question mark or a code such as %20, which Dagster reads as another path: "
                "name another folder"
            )
        if self.objects and not re.match(r"(s3|gs|abfs)://[^/@:]+(/|$)", self.objects):
            # The value is not repeated: it may hold a credential.
            raise SettingsError("FINRISK_OBJECTS is no address: set one such as s3://bucket/finrisk, without an account or a credential")
        if self.mlflow_artifacts and not re.match(r"(s3|gs)://[^/@:]+(/|$)", self.mlflow_artifacts):
            raise SettingsError("FINRISK_MLFLOW_ARTIFACTS is no address: set one such as s3://bucket/mlflow or gs://bucket/mlflow")
        if self.mlflow_store_url and not _POSTGRES.match(self.mlflow_store_url):
            raise SettingsError("FINRISK_MLFLOW_STORE_URL is no URL of PostgreSQL: set one such as postgresql://mlflow@host/mlflow")
        if self.device not in DEVICES:
            raise SettingsError(f"FINRISK_DEVICE={self.device!r} is no device: set {', '.join(DEVICES[:-1])} or {DEVICES[-1]}")
        for allowed, (is_allowed, names) in _RANGES.items():
            for name in names:
                value = getattr(self, name)
                if value is not None and not is_allowed(value):
                    raise SettingsError(f"{PREFIX}{name.upper()}={value} is out of range: set {allowed}")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from the environment.

        Raises
        ------
        SettingsError
            If a FINRISK_* variable is unknown, or its value cannot be read or is out of range.
        """
        environ = os.environ if environ is None else environ
        settings_by_variable = {PREFIX + field.name.upper(): field for field in fields(cls)}
        values = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value != ""}
        for name in sorted(_secret_files() & values.keys()):
            setting = name.removesuffix("_FILE")
            if setting in values:
                raise SettingsError(f"{setting} and {name} are both set: set one")
            values[setting] = _content(name, values.pop(name))
        moved = sorted(values.keys() & MOVED_TO_POLICY.keys())
        if moved:
            raise SettingsError("; ".join(f"{name} is no setting: set {MOVED_TO_POLICY[name]} in FINRISK_POLICY's file" for name in moved))
        unknown = sorted(values.keys() - settings_by_variable.keys())
        if unknown:
            known = sorted(settings_by_variable.keys() | _secret_files())
            raise SettingsError("; ".join(f"unknown setting {name}{_suggest(name, known)}" for name in unknown))
        return cls(
            **{settings_by_variable[name].name: _read(name, settings_by_variable[name].type, value) for name, value in values.items()}
        )

    @property
    def root(self) -> Path:
        """The folder of this source's ledger, models and service store, absolute.

        Raises
        ------
        schemas.mapping.MappingError
            If the mapping of a ``mapped`` source, whose name the folder has, is invalid.
        """
        return (self.home / self.ledger_name).resolve()

    @property
    def ledger_name(self) -> str:
        """The name of the ledger: that of the source, or the one that its mapping gives to a ``mapped`` source."""
        if self.source != "mapped" or self.mapping is None:
            return self.source
        return _name_in(self.mapping, self.mapping.stat().st_mtime_ns if self.mapping.is_file() else 0)

    @property
    def bentoml_home(self) -> Path:
        """The folder of this source's models and Bentos: the ``BENTOML_HOME`` of every ``bentoml`` command."""
        return self.root / "bentoml"

    @property
    def warehouse(self) -> str:
        """The Ibis URL of the warehouse, its scheme in lower case."""
        scheme, mark, rest = self.warehouse_url.partition("://")
        url = f"{scheme.lower()}{mark}{rest}"
        if url.startswith("pyspark://") and "warehouse=" not in url:
            return f"{url}{'&' if '?' in url else '?'}warehouse={quote(str(self.root / 'spark'))}"
        return url or f"duckdb://{quote(str(self.root / 'warehouse.duckdb'))}"

    @property
    def tracking_uri(self) -> str:
        """The URL of MLflow's tracking and registry store."""
        if self.mlflow_store_url:
            # SQLAlchemy's name of the driver with which the warehouse is on PostgreSQL, too.
            return _POSTGRES.sub("postgresql+psycopg://", self.mlflow_store_url)
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def tracking_artifacts(self) -> str:
        """The address of the artifacts of this source's runs in MLflow."""
        if self.mlflow_artifacts:
            return f"{self.mlflow_artifacts.rstrip('/')}/{self.ledger_name}"
        return (self.root / "mlflow" / "artifacts").as_uri()

    @property
    def mirror(self) -> str | None:
        """The address of this source's copies in a bucket; None where `objects` names none."""
        return f"{self.objects.rstrip('/')}/{self.ledger_name}" if self.objects else None

    @property
    def now(self) -> datetime:
        """The moment at which the ledger is read, naive UTC: `as_of`, or the present."""
        return self.as_of or datetime.now(UTC).replace(tzinfo=None)


@cache
def _name_in(mapping: Path, changed_ns: int) -> str:
    """Return the name that a mapping file gives; it is read once for each of its changes."""
    from schemas.mapping import read_mapping

    return read_mapping(mapping).name


def absolute_paths(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that name files or folders, as absolute paths, for a process that starts in another folder."""
    paths = {PREFIX + field.name.upper() for field in fields(Settings) if "Path" in str(field.type)}
    values = {name: environ[name] for name in paths | _secret_files() | {"FINRISK_JWT_JWKS"} if environ.get(name)}
    return {name: str(Path(value).expanduser().absolute()) for name, value in values.items() if "://" not in value}


def _secret_files() -> set[str]:
    """Return the variables that name a file whose content is a secret setting, such as ``FINRISK_STORE_URL_FILE``."""
    names = {field.name for field in fields(Settings)}
    return {f"{PREFIX}{field.name.upper()}_FILE" for field in fields(Settings) if not field.repr and f"{field.name}_file" not in names}


def _content(name: str, path: str) -> str:
    file = Path(path).expanduser()
    try:
        content, is_open = file.read_text(encoding="utf-8").strip(), is_open_to_others(file)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{name}={path!r} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    if is_open:
        raise SettingsError(f"{name}={path!r} is open to every user of this machine: run `chmod 600 {file}`")
    return content


def _suggest(name: str, known: list[str]) -> str:
    # The common prefix would make every two names alike.
    close = get_close_matches(name.removeprefix(PREFIX), [other.removeprefix(PREFIX) for other in known], 1)
    return f": did you mean {PREFIX}{close[0]}?" if close else f": set one of {', '.join(known)}"


_RANGES: dict[str, tuple[Callable[[float], bool], tuple[str, ...]]] = {
    "a whole number from 0 to 4294967295": (lambda value: 0 <= value < 2**32, ("seed",)),
    "a share from 0 to 1": (lambda value: 0 <= value <= 1, ("quarantine_max_share",)),
    "a share of at least 0 and below 1": (lambda value: 0 <= value < 1, ("sim_fraud_rate", "sim_shock_size")),
    "a whole number of at least 0": (lambda value: value >= 0, ("sim_shock_month", "spark_training_rows")),
    "minutes from 0 to 10080": (lambda value: 0 <= value <= 10080, ("warehouse_wait_minutes",)),
    "seconds from 0 to 3600": (lambda value: 0 <= value <= 3600, ("drain_seconds",)),
    "a number above 0": (
        lambda value: value > 0,
        ("warehouse_memory_gb", "spark_training_wait_minutes", "rate_per_second", "unknown_per_second"),
    ),
    "a whole number of at least 1": (
        lambda value: value >= 1,
        (
            *("sim_customers", "sim_months", "threads", "training_rows", "rate_burst", "unknown_burst"),
            *("max_connections", "max_connections_per_address"),
        ),
    ),
    "messages from 1 to 5000": (lambda value: 1 <= value <= 5000, ("stream_batch",)),
    "a port from 1 to 65535": (lambda value: 1 <= value <= 65535, ("stream_port",)),
}
"""Range of a number in words -> its test, and the settings within that range."""

_SWITCH = {"true": True, "false": False, "1": True, "0": False}


def _read(name: str, kind: Any, value: str) -> Any:
    """Convert the text of one setting to its type."""
    try:
        if kind is int or kind is float:
            return kind(value)
        if kind == float | None:
            return float(value)
        if kind is str:
            return value
        if kind is bool:
            return _SWITCH[value.lower()]
        if "datetime" in str(kind):
            time = datetime.fromisoformat(value)
            return time.astimezone(UTC).replace(tzinfo=None) if time.tzinfo else time
        return Path(value).expanduser()
    except (KeyError, ValueError, OverflowError):
        kinds = {int: "a whole number", float: "a number", float | None: "a number", bool: " or ".join(_SWITCH)}
        wanted = kinds.get(kind, "a time in ISO 8601, such as 2025-07-01T00:00:00")
        raise SettingsError(f"{name}={value!r} cannot be read: set {wanted}") from None
