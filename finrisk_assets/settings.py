"""The FINRISK_* settings. This is the only module that reads the environment; everything else takes a `Settings`.

One source is one ledger: its warehouse, models, runs and service store live together in `FINRISK_HOME/<source>/`, so
that changing the source never mixes two ledgers.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PREFIX = "FINRISK_"


class SettingsError(ValueError):
    """A setting that cannot be used, with its name, its value and what would do."""


@dataclass(frozen=True)
class Settings:
    """What can be set from outside, each by the environment variable ``FINRISK_<NAME>``.

    Attributes
    ----------
    home
        Where everything the product writes lives.
    source
        The source of the ledger: ``simulator``, ``handbook``, ``berka``, ``taiwan``, ``karlan_zinman`` or ``mapped``.
    data_dir
        Where the real data sets are.
    mapping
        The YAML file that describes a ``mapped`` source.
    warehouse_url
        The Ibis connection that holds the tables; empty means a DuckDB file below `home`.
    as_of
        The moment at which the ledger is read: what is dated later is in the future. Default: now, in UTC.
    seed
        Seed of everything that is drawn at random.
    quarantine_max_share
        Largest share of a table's rows that may fail its contract before the run fails.
    sim_customers, sim_months
        Size of the simulated population.
    sim_economy
        A YAML file with any other number of the simulated economy: base rates and the strength of each effect.
    medium_risk_from, high_risk_from
        Probabilities from which spending is of MEDIUM and of HIGH risk.
    review_capacity
        Alerts that an analyst team can look at in a day; the anomaly threshold follows from it.
    examined
        Features that a person has looked into and found honest, as ``<domain>.<column>`` with commas between; see docs/leakage.md.
    shadow
        Whether the Bento takes each domain's challenger along, and the service scores with it beside the champion.
    threads
        Threads of a model's training.
    """

    home: Path = Path(".finrisk")
    source: str = "simulator"
    data_dir: Path = Path("../shared/data")
    mapping: Path | None = None
    warehouse_url: str = ""
    as_of: datetime | None = None
    seed: int = 20180401
    quarantine_max_share: float = 0.05
    sim_customers: int = 2000
    sim_months: int = 24
    sim_economy: Path | None = None
    medium_risk_from: float = 0.4
    high_risk_from: float = 0.7
    review_capacity: int = 100
    examined: str = ""
    shadow: bool = False
    threads: int = 2

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings from the environment.

        Raises
        ------
        SettingsError
            If a FINRISK_* variable is unknown or its value cannot be read.
        """
        environ = os.environ if environ is None else environ
        known = {PREFIX + field.name.upper(): field for field in fields(cls)}
        given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value != ""}
        unknown = sorted(given.keys() - known.keys())
        if unknown:
            raise SettingsError(f"unknown setting {', '.join(unknown)}; known are {', '.join(sorted(known))}")
        return cls(**{known[name].name: _read(name, known[name].type, value) for name, value in given.items()})

    @property
    def root(self) -> Path:
        """The folder of this source's ledger, absolute."""
        return (self.home / self.source).resolve()

    @property
    def warehouse(self) -> str:
        return self.warehouse_url or f"duckdb://{self.root / 'warehouse.duckdb'}"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow' / 'mlflow.db'}"

    @property
    def now(self) -> datetime:
        """`as_of`, or the present in naive UTC."""
        return self.as_of or datetime.now(UTC).replace(tzinfo=None)


_SWITCH = {"true": True, "false": False, "1": True, "0": False}


def _read(name: str, kind: Any, value: str) -> Any:
    """Turn the text of one setting into its type."""
    try:
        if kind is int or kind is float:
            return kind(value)
        if kind is str:
            return value
        if kind is bool:
            return _SWITCH[value.lower()]
        if "datetime" in str(kind):
            moment = datetime.fromisoformat(value)
            return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
        return Path(value).expanduser()
    except KeyError:
        raise SettingsError(f"{name}={value!r} cannot be read: say {' or '.join(_SWITCH)}") from None
    except ValueError as error:
        raise SettingsError(f"{name}={value!r} cannot be read: {error}") from None
