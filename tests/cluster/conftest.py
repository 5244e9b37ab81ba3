"""Fixtures of the tests on a cluster of Spark."""

import pytest

from tests.conftest import require


@pytest.fixture(scope="session", autouse=True)
def java() -> None:
    require("java")
