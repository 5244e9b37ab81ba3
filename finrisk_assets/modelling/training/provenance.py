"""The provenance of a model: hashes of its data and code, its settings and libraries, and golden rows.

A bundle contains what is the same wherever the same data and code are (`data_sha256`, `code_sha256`, `library_versions`,
`pick_golden_rows`). What changes from commit to commit or from computer to computer (`Origin`) is stored as tags of the registered version.
"""

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from finrisk_assets.scoring.spec import Rows

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.settings import Settings

PACKAGE = Path(__file__).parents[2]
REPOSITORY = PACKAGE.parent
LIBRARIES = ("numpy", "pandas", "scikit-learn", "xgboost")
N_GOLDEN_ROWS = 48
"""Golden rows in a bundle."""
UNKNOWN = "unknown"
"""Value without git or uv.lock, where the code was installed and not checked out."""


class OriginError(ValueError):
    """A registered version without its origin; the message names the missing tags."""


@dataclass(frozen=True)
class Origin:
    """The origin of a registered version, with everything needed to train it again; each field is a tag of the version.

    Attributes
    ----------
    snapshot
        Hash of the stored feature table (`finrisk_assets.ledger.snapshots`).
    data_sha256, code_sha256, seed
        As in the bundle.
    lock_sha256
        Hash of ``uv.lock``, which pins every library to the byte.
    git_commit, git_dirty
        The commit that was checked out, and ``true`` where files differed from it; both ``unknown`` without git.
    settings
        As JSON: see `settings_to_json`.
    python, libraries, machine
        Versions (the libraries as JSON), and the processor with the kernels that linear algebra chose for it.
    raw
        As JSON, raw table -> hash of its stored landing.
    mapping_sha256
        Hash of the YAML file that describes a ``mapped`` source; empty elsewhere.
    dvc
        As JSON, raw file -> the hash in its ``.dvc`` file; empty braces where DVC tracks none.
    """

    snapshot: str
    data_sha256: str
    code_sha256: str
    seed: str
    lock_sha256: str
    git_commit: str
    git_dirty: str
    settings: str
    python: str
    libraries: str
    machine: str
    raw: str = "{}"
    mapping_sha256: str = ""
    dvc: str = "{}"

    def to_tags(self) -> dict[str, str]:
        """Return the tags of a registered version; empty values are left out."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> "Origin":
        """Return the origin that a version's tags hold.

        Raises
        ------
        OriginError
            If the version was registered without them.
        """
        present = {field.name: tags[field.name] for field in fields(cls) if field.name in tags}
        try:
            return cls(**present)
        except TypeError:
            missing = [name for name in ("snapshot", "code_sha256", "lock_sha256", "settings", "git_commit") if name not in present]
            raise OriginError(f"it has no tag {', '.join(missing)}: it was registered before versions recorded their origin") from None


def describe_environment(settings: "Settings") -> dict[str, str]:
    """Return the part of an `Origin` that is the same for all models of this code, these settings and this machine."""
    commit, dirty = read_git_commit(REPOSITORY)
    return {
        "lock_sha256": lock_sha256(),
        "git_commit": commit,
        "git_dirty": dirty,
        "settings": settings_to_json(settings),
        "python": platform.python_version(),
        "libraries": json.dumps(library_versions(), sort_keys=True),
        "machine": describe_machine(),
        "mapping_sha256": _sha256(settings.mapping) if settings.source == "mapped" and settings.mapping else "",
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that compute a model."""
    return {name: _library_version(name) for name in LIBRARIES}


def _library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return version(f"{name}-cpu")  # the same library, without the code for GPUs


def describe_machine() -> str:
    """Return the processor's architecture, and the kernels that linear algebra chose for it, because last bits may depend on them."""
    import scipy.linalg  # noqa: F401  (loads its linear algebra, which threadpool_info lists)
    from threadpoolctl import threadpool_info

    kernels = sorted({str(pool["architecture"]) for pool in threadpool_info() if pool.get("user_api") == "blas" and "architecture" in pool})
    return " ".join([platform.machine(), *kernels])


def settings_to_json(settings: "Settings") -> str:
    """Return the settings as JSON, without paths and connections: numbers, the time at which the ledger is read, the source's name."""
    values = {field.name: getattr(settings, field.name) for field in fields(settings)}
    values |= {"as_of": settings.now.isoformat()}
    return json.dumps({name: value for name, value in values.items() if name in ("source", "as_of") or isinstance(value, int | float)})


def restore_settings(settings: "Settings", recorded: str) -> "Settings":
    """Return these settings with the recorded values of `settings_to_json`; recorded settings that no longer exist are ignored."""
    known = {field.name for field in fields(settings)}
    values: dict[str, Any] = {name: value for name, value in json.loads(recorded).items() if name in known}
    return replace(settings, **(values | {"as_of": datetime.fromisoformat(values["as_of"])}))


@contextmanager
def limit_threads() -> Iterator[None]:
    """Train on one thread wherever a library would take all, so that sums are added in the same order on every machine.

    Floating-point sums depend on their order: on two threads, logistic regressions differed in their last bits from those on one.
    scikit-learn's histograms do not, but on a few thousand rows their threads wait for each other longer than they work (four times slower
    on two shared cores). XGBoost takes its number of threads from its own parameter.
    """
    import scipy.linalg  # noqa: F401  (limits hold for loaded libraries)
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def read_git_commit(folder: Path) -> tuple[str, str]:
    """Return the commit of a checkout, and ``true`` or ``false`` for whether its files differ from it; `UNKNOWN` twice without git."""

    def git(*arguments: str) -> str:
        # Optional locks would block other git commands.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != folder.resolve():  # installed below another project's checkout
            return UNKNOWN, UNKNOWN
        return commit, "true" if git("status", "--porcelain") else "false"
    except (OSError, subprocess.SubprocessError, ValueError):
        return UNKNOWN, UNKNOWN


def lock_sha256() -> str:
    """Return the hash of ``uv.lock``; `UNKNOWN` where there is none."""
    lock = REPOSITORY / "uv.lock"
    return _sha256(lock) if lock.is_file() else UNKNOWN


def data_sha256(frame: "pd.DataFrame") -> str:
    """Return the hash of a table's column names and values, in the order of its rows."""
    from pandas.util import hash_pandas_object

    digest = hashlib.sha256(repr([(name, str(kind)) for name, kind in frame.dtypes.items()]).encode())
    digest.update(hash_pandas_object(frame, index=False, categorize=False).to_numpy().tobytes())
    return digest.hexdigest()


def code_sha256(package: str) -> str:
    """Return the hash of the source files that determine a domain's model."""
    digest = hashlib.sha256()
    # The domain's own package, and the shared code that its features, labels and training run through: the definitions and windows of
    # features, the parts of a bundle, the candidates, metrics and conversions of modelling, the base classes of domains, the ledger's
    # categories, the vocabulary of the tables, and the stage that trains. Settings and data have tags of their own (`Origin`).
    folders = [PACKAGE / "domains" / package, *(PACKAGE / room for room in ("features", "scoring", "modelling")), REPOSITORY / "schemas"]
    single = [
        PACKAGE / "domains" / "base.py",
        PACKAGE / "domains" / "classifier.py",
        PACKAGE / "ledger" / "categories.py",
        PACKAGE / "graph" / "stages" / "model.py",
    ]
    for files in (*(sorted(folder.rglob("*.py")) for folder in folders), single):
        for file in files:
            digest.update(f"{file.relative_to(REPOSITORY).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def pick_golden_rows(rows: Rows, margin: np.ndarray, n: int = N_GOLDEN_ROWS) -> Rows:
    """Return rows spread evenly over the order of their margins, from the lowest to the highest, to score at every load."""
    order = np.argsort(margin, kind="stable")
    return rows[order[np.unique(np.linspace(0, len(order) - 1, n).round().astype(int))]]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
