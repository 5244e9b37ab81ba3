"""Tests of every route under every role, on the real application, against the table in docs/access.md."""

import re
import time
from contextlib import closing

import pytest
from sqlalchemy import select
from starlette.applications import Starlette
from starlette.routing import Mount

from bento.access import api_keys
from bento.access.api_keys import KEY_REFRESH_S
from bento.access.roles import OPEN, ROUTES
from bento.context import ROLES
from bento.store.session import open_store
from bento.store.tables import audit
from bento.store.unit_of_work import now_us
from finrisk_assets.settings import Settings
from tests.docs.access_page import read_access_table


def real_routes(app):
    """Return method and path of every route of the application, whatever library added it."""
    while not isinstance(app, Starlette):
        app = app.app
    return set(_walked(app.routes))


def _walked(routes, prefix=""):
    for route in routes:
        path = prefix + route.path
        if isinstance(route, Mount):
            yield from _walked(route.routes, path) if route.routes else [("GET", path + "/{file}")]
        else:
            yield from ((method, path) for method in (route.methods or {"GET"}) - {"HEAD"})


def without_parameters(routes):
    """Return the routes with the names of their parameters removed."""
    return {(method, re.sub(r"\{[^}]*\}", "{}", path)) for method, path in routes}


def open_beside():
    """Open the store of the service that runs, as an operator's command does."""
    return closing(open_store(Settings.from_environment()))


@pytest.fixture(scope="module")
def callers(shared_client):
    """Return the headers of one caller of each role, with real keys, and of a caller without a key."""
    texts = {}
    with open_beside() as store, store.writing() as connection:
        for role in sorted(ROLES):
            _, texts[role] = api_keys.create_key(connection, store.keyring.mac, role, [role], now=now_us())
    time.sleep(KEY_REFRESH_S + 0.1)  # the worker reads them
    return {role: {"X-API-Key": key} for role, key in texts.items()} | {"nobody": {}}


def test_every_real_route_stands_in_the_table(shared_client):
    missing = without_parameters(real_routes(shared_client.app)) - without_parameters((line.method, line.path) for line in ROUTES)
    assert missing == set(), "add them to bento/access/roles.py and docs/access.md"


def test_every_line_of_the_table_is_a_route(shared_client):
    without = without_parameters((line.method, line.path) for line in ROUTES) - without_parameters(real_routes(shared_client.app))
    assert without == set()


# Before the refusals of the whole table below: of a flood only the first ones are audited.
def test_refusals_are_counted_and_audited_without_what_was_sent(shared_client, callers):
    from bento.service import FinRisk

    secret = "Z" * 43
    assert shared_client.get("/v1/models", headers={"X-API-Key": f"finrisk_{'0' * 16}_{secret}"}).status_code == 401
    assert shared_client.delete("/v1/people/x", headers=callers["scorer"]).status_code == 403

    with open_beside() as store, store.reading() as connection:
        recorded = connection.execute(select(audit)).all()
    refusals = {(row.action, row.caller.split(":")[0]) for row in recorded if row.action.startswith("refuse.")}
    assert refusals >= {("refuse.bad_key", "address"), ("refuse.role", "key")}
    assert all(re.fullmatch(r"(key:[0-9a-f]{16}|address:[0-9a-f]{32})", row.caller) for row in recorded if row.action.startswith("refuse."))
    assert secret not in str(recorded)
    counted = {tuple(sample.labels.values()) for family in FinRisk.counters.registry.collect() for sample in family.samples}
    assert counted >= {("bad_key",), ("role",)}


@pytest.mark.parametrize("who", [*sorted(ROLES), "nobody"])
@pytest.mark.parametrize(("method", "path"), sorted(read_access_table()))
def test_a_route_answers_whom_the_table_names(shared_client, callers, method, path, who):
    roles = read_access_table()[method, path]
    body = {"json": {}} if method == "POST" else {}

    response = shared_client.request(method, re.sub(r"\{[^}]*\}", "nobody-of-that-name", path), headers=callers[who], **body)

    if roles == OPEN or who in roles:
        assert response.status_code not in (401, 403)
    elif who == "nobody":
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
    else:
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "forbidden"
