"""Where a model comes from: hashes of the data and the code it was made of, the settings, the libraries, and rows to remember it by.

What goes into a bundle is the same wherever the same data and code are (`data_sha256`, `code_sha256`, `libraries`, `golden_rows`). What
changes from commit to commit or from computer to computer (`Origin`) stands beside it, as tags of the registered version.
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
GOLDEN = 48
UNKNOWN = "unknown"
"""Stands where there is no git, or no uv.lock: the code was installed, not checked out."""


class OriginError(ValueError):
    """A registered version that does not say where it comes from, with what it lacks."""


@dataclass(frozen=True)
class Origin:
    """What a registered version was made of, each a tag of the version: everything that training it again needs.

    Attributes
    ----------
    snapshot
        Hash of the kept feature table (`finrisk_assets.ledger.snapshots`).
    data_sha256, code_sha256, seed
        As in the bundle.
    lock_sha256
        Of ``uv.lock``, which names every library to the byte.
    git_commit, git_dirty
        The commit that was checked out, and ``true`` where files differed from it; both ``unknown`` without git.
    settings
        As JSON: see `settings_of`.
    python, libraries, machine
        Versions (the libraries as JSON), and the processor with the kernels that linear algebra chose for it.
    raw
        As JSON, raw table -> hash of its kept landing.
    mapping_sha256
        Of the YAML file that describes a ``mapped`` source; empty elsewhere.
    dvc
        As JSON, raw file -> the hash that its ``.dvc`` file names; empty braces where none is tracked by DVC.
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

    def tags(self) -> dict[str, str]:
        """As tags of a registered version; what is empty is left out."""
        return {name: value for name, value in asdict(self).items() if value}

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> "Origin":
        """Read it back from a version's tags.

        Raises
        ------
        OriginError
            If the version was registered without them.
        """
        known = {field.name: tags[field.name] for field in fields(cls) if field.name in tags}
        try:
            return cls(**known)
        except TypeError:
            lacking = [name for name in ("snapshot", "code_sha256", "lock_sha256", "settings", "git_commit") if name not in known]
            raise OriginError(f"it has no tag {', '.join(lacking)}: it was registered before versions recorded their origin") from None


def code_and_machine(settings: "Settings") -> dict[str, str]:
    """The part of an `Origin` that is the same for every model trained by this code, with these settings, on this machine."""
    commit, dirty = git_commit(REPOSITORY)
    return {
        "lock_sha256": lock_sha256(),
        "git_commit": commit,
        "git_dirty": dirty,
        "settings": settings_of(settings),
        "python": platform.python_version(),
        "libraries": json.dumps(libraries(), sort_keys=True),
        "machine": machine(),
        "mapping_sha256": _sha256(settings.mapping) if settings.source == "mapped" and settings.mapping else "",
    }


def libraries() -> dict[str, str]:
    """Versions of what a model is computed with."""
    return {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return version(f"{name}-cpu")  # the same library, without the code for GPUs


def machine() -> str:
    """The processor's architecture, and the kernels that linear algebra chose for it: their last bits may differ from others'."""
    import scipy.linalg  # noqa: F401  (loads its linear algebra, so that it can be asked)
    from threadpoolctl import threadpool_info

    kernels = sorted({str(pool["architecture"]) for pool in threadpool_info() if pool.get("user_api") == "blas" and "architecture" in pool})
    return " ".join([platform.machine(), *kernels])


def settings_of(settings: "Settings") -> str:
    """The settings as JSON, without paths and connections: numbers, the moment at which the ledger is read, the source's name."""
    kept = {field.name: getattr(settings, field.name) for field in fields(settings)}
    kept |= {"as_of": settings.now.isoformat()}
    return json.dumps({name: value for name, value in kept.items() if name in ("source", "as_of") or isinstance(value, int | float)})


def with_settings(settings: "Settings", recorded: str) -> "Settings":
    """These settings with the recorded values of `settings_of`; one that has gone since is left out."""
    known = {field.name for field in fields(settings)}
    values: dict[str, Any] = {name: value for name, value in json.loads(recorded).items() if name in known}
    return replace(settings, **(values | {"as_of": datetime.fromisoformat(values["as_of"])}))


@contextmanager
def fixed_threads() -> Iterator[None]:
    """Train on one thread wherever a library would take as many as there are, so that sums are added up in the same order everywhere.

    Floating-point sums depend on their order: on two threads, logistic regressions differed in their last bits from those on one.
    scikit-learn's histograms do not, but on a few thousand rows their threads wait for each other longer than they work (four times slower
    on two shared cores). XGBoost takes its number from its own parameter.
    """
    import scipy.linalg  # noqa: F401  (limits hold for what is loaded)
    import sklearn.ensemble  # noqa: F401
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        yield


def git_commit(folder: Path) -> tuple[str, str]:
    """The commit that a checkout is at, and ``true`` or ``false`` for whether its files differ from it; `UNKNOWN` twice without git."""

    def git(*arguments: str) -> str:
        # Without optional locks: a look at the tree must not stand in the way of another git command.
        command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top).resolve() != folder.resolve():  # installed below somebody else's checkout
            return UNKNOWN, UNKNOWN
        return commit, "true" if git("status", "--porcelain") else "false"
    except (OSError, subprocess.SubprocessError, ValueError):
        return UNKNOWN, UNKNOWN


def lock_sha256() -> str:
    """Hash of ``uv.lock``; `UNKNOWN` where there is none."""
    lock = REPOSITORY / "uv.lock"
    return _sha256(lock) if lock.is_file() else UNKNOWN


def data_sha256(frame: "pd.DataFrame") -> str:
    """Hash of a table's column names and values, in its order of rows."""
    from pandas.util import hash_pandas_object

    digest = hashlib.sha256(repr([(name, str(kind)) for name, kind in frame.dtypes.items()]).encode())
    digest.update(hash_pandas_object(frame, index=False, categorize=False).to_numpy().tobytes())
    return digest.hexdigest()


def code_sha256(package: str) -> str:
    """Return the hash of the code that a domain's model is made by.

    That is the domain's own package, the features', the bundle's and the modelling tools', the classifier, the vocabulary, and the stage
    that trains.
    """
    digest = hashlib.sha256()
    folders = [PACKAGE / "domains" / package, *(PACKAGE / room for room in ("features", "scoring", "modelling")), REPOSITORY / "schemas"]
    single = [PACKAGE / "domains" / "classifier.py", PACKAGE / "graph" / "stages" / "model.py"]
    for files in (*(sorted(folder.rglob("*.py")) for folder in folders), single):
        for file in files:
            digest.update(f"{file.relative_to(REPOSITORY).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def golden_rows(rows: Rows, margin: np.ndarray, n: int = GOLDEN) -> Rows:
    """Rows spread evenly over the order of their margins, from the lowest to the highest, to be scored at every load."""
    order = np.argsort(margin, kind="stable")
    return rows[order[np.unique(np.linspace(0, len(order) - 1, n).round().astype(int))]]


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
