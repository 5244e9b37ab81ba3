"""Tests of the service's table of domains against the graph's."""

from bento.access.roles import ROUTES
from bento.decisions.domains import DOMAINS
from finrisk_assets.domains import registry


def test_the_service_has_a_route_for_every_domain_of_the_graph() -> None:
    assert set(DOMAINS) == {domain.name for domain in registry.DOMAINS}


def test_the_outcome_fields_are_fields_of_the_answer() -> None:
    for domain in DOMAINS.values():
        answer = domain.scorer.build_answer.__annotations__["return"]
        assert {domain.probability, domain.decision} <= answer.model_fields.keys()


def test_the_scorer_role_may_call_every_route_of_the_table_and_its_batch() -> None:
    routes = {domain.route for domain in DOMAINS.values()}
    allowed = {route.path for route in ROUTES if route.method == "POST" and "scorer" in route.roles}

    assert routes <= allowed
    assert {path.removesuffix("/batch") for path in allowed if path.endswith("/batch")} == routes
