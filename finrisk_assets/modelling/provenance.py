"""Where a model comes from: hashes of the data and the code it was made of, the libraries, and rows to remember it by."""

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finrisk_assets.modelling.bundle import Rows

if TYPE_CHECKING:
    import pandas as pd

PACKAGE = Path(__file__).parents[1]
LIBRARIES = ("numpy", "pandas", "scikit-learn", "xgboost")
GOLDEN = 48


def libraries() -> dict[str, str]:
    """Versions of what a model is computed with."""
    return {name: version(name) for name in LIBRARIES}


def data_sha256(frame: "pd.DataFrame") -> str:
    """Hash of a table's column names and values, in its order of rows."""
    from pandas.util import hash_pandas_object

    digest = hashlib.sha256(repr([(name, str(kind)) for name, kind in frame.dtypes.items()]).encode())
    digest.update(hash_pandas_object(frame, index=False, categorize=False).to_numpy().tobytes())
    return digest.hexdigest()


def code_sha256(package: str) -> str:
    """Hash of the code that a domain's model is made by: its own package, the features', the modelling tools' and the classifier."""
    digest = hashlib.sha256()
    folders = [PACKAGE / name for name in (package, "features", "modelling")]
    for files in (*(sorted(folder.rglob("*.py")) for folder in folders), [PACKAGE / "classifier.py"]):
        for file in files:
            digest.update(f"{file.relative_to(PACKAGE).as_posix()}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def golden_rows(rows: Rows, margin: np.ndarray, n: int = GOLDEN) -> Rows:
    """Rows spread evenly over the order of their margins, from the lowest to the highest, to be scored at every load."""
    order = np.argsort(margin, kind="stable")
    return rows[order[np.unique(np.linspace(0, len(order) - 1, n).round().astype(int))]]
