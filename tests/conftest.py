"""Fixtures for every test: where the real data is, and a home of its own."""

import os
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
