"""Tests of the edge: ambiguous headers, media types, pages of other origins, paths that name customers, and headers of responses."""

import pytest

from tests.service.envelopes import read_error

CASHFLOW, LOANS = "/v1/cashflow", "/v1/loan-default"
FORM = "application/x-www-form-urlencoded"
KNOWN = {"customer_id": 123}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Content-Type", (FORM, "application/json")),
        ("Content-Type", ("application/vnd.bentoml+pickle", "application/json")),
        ("Content-Type", ("application/json", "application/json")),
        ("Content-Length", ("20", "3")),
        ("Authorization", ("Bearer a", "Bearer b")),
        ("X-API-Key", ("a", "b")),
        ("Idempotency-Key", ("a", "b")),
        ("Host", ("localhost", "evil.example")),
        ("X-Request-ID", ("a", "b")),
        ("Content-Encoding", ("identity", "identity")),
        ("Origin", ("http://testserver", "https://evil.example")),
        ("Sec-Fetch-Site", ("cross-site", "none")),
    ],
)
def test_a_header_that_is_sent_twice_is_refused(shared_client, name, values):
    content = b"customer_id=123" if FORM in values else b'{"customer_id": 123}'

    response = shared_client.post(CASHFLOW, content=content, headers=[(name, value) for value in values])

    assert "several times" in read_error(response, 400, "bad_request")["message"]


@pytest.mark.parametrize(
    "media_type", [FORM, "multipart/form-data; boundary=a", "application/vnd.bentoml+pickle", "application/json, text/plain"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", CASHFLOW), ("PUT", CASHFLOW), ("GET", "/v1/models"), ("DELETE", "/v1/people/nobody")]
)
def test_a_body_of_another_media_type_reaches_no_route(shared_client, method, path, media_type):
    response = shared_client.request(method, path, content=b"--a\r\n", headers={"content-type": media_type})

    read_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", ""])
@pytest.mark.parametrize(("method", "path"), [("POST", CASHFLOW), ("GET", "/v1/models")])
def test_a_body_of_another_coding_reaches_no_route(shared_client, method, path, coding):
    response = shared_client.request(method, path, json=KNOWN, headers={"content-encoding": coding})

    assert "without Content-Encoding" in read_error(response, 415, "unsupported_media_type")["message"]
    assert shared_client.post(CASHFLOW, json=KNOWN, headers={"content-encoding": "Identity"}).status_code == 200


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/healthz", "/", "/docs", "/static/docs.css", "/openapi.json", "/v1/models", "/v1/risk-scores/123"]
)
def test_head_has_the_status_and_headers_of_get_and_no_body(shared_client, path):
    answers = [shared_client.request(method, path, headers={"x-request-id": "1"}) for method in ("HEAD", "GET")]

    assert answers[0].status_code == answers[1].status_code == 200
    assert answers[0].headers == answers[1].headers
    assert answers[0].content == b""


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "OPTIONS", "PUT", "POST", "BREW"])
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/", "/v1/models"])
def test_a_route_has_no_other_methods(shared_client, method, path):
    response = shared_client.request(method, path)

    read_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-site", "origin": "http://other.testserver"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    ],
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/models"), ("POST", CASHFLOW), ("DELETE", "/v1/people/nobody"), ("GET", "/v1/none")]
)
def test_a_page_of_another_origin_is_refused(shared_client, method, path, headers):
    body = {"json": KNOWN} if method == "POST" else {}

    response = shared_client.request(method, path, headers={"host": "localhost:3000"} | headers, **body)

    assert "another origin" in read_error(response, 403, "forbidden")["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {},
    ],
)
def test_the_service_s_own_page_and_programs_are_answered(shared_client, headers):
    headers |= {"host": "localhost:3000"}

    assert shared_client.get("/v1/models", headers=headers).status_code == 200
    assert shared_client.post(CASHFLOW, json=KNOWN, headers=headers).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", "/static/docs.css", "/livez"])
def test_a_link_to_the_page_is_followed(shared_client, path):
    assert shared_client.get(path, headers={"sec-fetch-site": "cross-site"}).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/models"), ("GET", "/v1/model-metrics"), ("GET", "/v1/risk-scores/123"), ("GET", "/v1/risk-scores/nobody"),
        ("GET", "/v1/audit"), ("GET", "/v1/people/nobody/export"), ("DELETE", "/v1/people/nobody"), ("GET", "/openapi.json"),
        ("GET", "/docs.json"), ("GET", "/schema.json"), ("GET", "/livez"), ("GET", "/readyz"), ("GET", "/v1/none"), ("PUT", CASHFLOW),
        ("POST", CASHFLOW), ("POST", LOANS), ("POST", f"{CASHFLOW}/batch"), ("POST", "/v1/feedback"),
    ],
)  # fmt: skip
def test_no_data_stays_in_a_cache_or_is_run_as_a_page(shared_client, method, path):
    response = shared_client.request(method, path, **({"json": KNOWN} if method == "POST" else {}))

    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert response.headers.get_list("content-security-policy") == ["default-src 'none'; frame-ancestors 'none'"]


@pytest.mark.parametrize("path", ["/", "/docs", "/static/docs.js", "/static_content/swagger-ui.css"])
def test_the_page_and_its_files_may_be_cached_and_are_what_they_say(shared_client, path):
    response = shared_client.get(path)

    assert "cache-control" not in response.headers
    assert response.headers["x-content-type-options"] == "nosniff"
    assert ("default-src 'self'" in response.headers["content-security-policy"]) is (path in ("/", "/docs"))
    assert shared_client.put(path).headers["cache-control"] == "no-store", "an answer that is none is not kept"


def test_a_customer_whose_name_looks_like_a_route_is_handed_over_and_erased_and_nobody_else(client, transaction):
    named = {"5/export": "5%2Fexport", "5": "5", "5%2Fexport": "5%252Fexport", "a b": "a%20b"}
    for number, customer in enumerate(named):
        assert client.post("/v1/transactions", json=transaction(number, user_id=customer)).status_code == 200

    for path in ("/v1/people/5/export", "/v1/people/5%2fexport%2fexport", "/v1%2Fpeople/5", "/v1/people%2F5", "/v1/%70eople/5"):
        assert client.delete(path).status_code in (404, 405), path
    for customer, segment in named.items():
        exported = client.get(f"/v1/people/{segment}/export")
        assert exported.status_code == 200, customer
        assert exported.json()["customer_id"] == customer
    for customer, segment in named.items():
        assert client.delete(f"/v1/people/{segment}").status_code == 200, customer
        assert client.get(f"/v1/people/{segment}/export").status_code == 404


@pytest.mark.parametrize("segment", ["%FF", "%ED%A0%80", "a/b", ""])
def test_a_name_that_is_none_is_not_found(shared_client, segment):
    assert shared_client.get(f"/v1/people/{segment}/export").status_code == 404


@pytest.mark.parametrize("segment", ["%00", "%20", "%E2%80%8B"])
def test_a_name_of_which_nobody_sees_anything_is_refused(shared_client, segment):
    assert shared_client.get(f"/v1/people/{segment}/export").status_code == 422
