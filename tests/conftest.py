"""Fixtures for every test: where the real data is, and a home of its own."""

import os
import shutil
from pathlib import Path

import pytest

from finrisk_assets.settings import Settings


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the real data sets, or a skip with the reason."""
    folder = Path(os.environ.get("FINRISK_DATA_DIR") or Settings().data_dir)
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FINRISK_DATA_DIR to its folder")
    return folder.resolve()


def require(program: str) -> str:
    """The path of a program, or a skip with the reason; in CI, where everything is to be there, a failure."""
    found = shutil.which(program)
    if found is None:
        message = f"{program} is not installed"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    return str(found)
