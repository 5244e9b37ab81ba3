"""Fixtures of the tests on a cluster of Spark."""

import pytest

from tests.conftest import require


@pytest.fixture(scope="session")
def java() -> None:
    require("java")
