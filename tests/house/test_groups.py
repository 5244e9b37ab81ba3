"""Tests of how the suite is divided between processes."""

import os

import pytest


def test_a_group_is_known_to_the_scheduler(request: pytest.FixtureRequest) -> None:
    """Otherwise each process makes the fixtures that a group shares, such as a trained ledger."""
    if "PYTEST_XDIST_WORKER" not in os.environ or not request.config.getoption("loadgroup", False):
        pytest.skip("the tests run in one process, or by another scheduler")
    assert "@" in request.node.nodeid
