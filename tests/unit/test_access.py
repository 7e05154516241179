"""Who may use the sidecar's own paths: a secret for administration, CORS for shop pages."""

from __future__ import annotations

import pytest
from werkzeug.test import Client
from werkzeug.wrappers import Response

from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.web.access import guarded

SECRET = "Basic YWRtaW46c8OpY3JldA=="
SHOP = "https://shop.example"
GUARDED = ["/_personalize/users/u1", "/_personalize/rescore", "/_personalize/later"]
OPEN = ["/_personalize/events", "/ubi_events", "/ubi_queries", "/_personalize/health/live",
        "/_personalize/health/ready", "/metrics"]
EVENT_PATHS = OPEN[:3]


def own(environ, start_response):
    response = Response("done", 201, {"Content-Type": "text/plain"})
    return response(environ, start_response)


def client(**settings) -> Client:
    return Client(guarded(Settings(**settings), own, Telemetry()), Response)


def test_without_settings_nothing_stands_between():
    assert guarded(Settings(), own, Telemetry()) is own


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("given", [None, "", "Basic", SECRET[:-1], SECRET + "=", SECRET.lower(),
                                   "Bearer \xe9"])
def test_guarded_path_is_refused_without_the_secret(path, given):
    headers = {} if given is None else {"Authorization": given}
    answer = client(admin_authorization=SECRET).get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="personalize"'
    assert answer.json["status"] == 401
    assert answer.json["error"]["type"] == "security_exception"
    assert "SIDECAR_ADMIN_AUTHORIZATION" in answer.json["error"]["reason"]
    assert SECRET not in answer.text


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST"])
def test_guarded_path_is_answered_with_the_secret(path, method):
    answer = client(admin_authorization=SECRET).open(
        path, method=method, headers={"Authorization": SECRET})
    assert (answer.status_code, answer.text) == (201, "done")


@pytest.mark.parametrize("path", OPEN)
def test_open_path_needs_no_secret(path):
    assert client(admin_authorization=SECRET).post(path).status_code == 201


def test_refused_head_has_no_body():
    answer = client(admin_authorization=SECRET).head(GUARDED[0])
    assert (answer.status_code, answer.data) == (401, b"")


@pytest.mark.parametrize("path", EVENT_PATHS)
@pytest.mark.parametrize(("allowed", "origin", "told"), [
    (SHOP, SHOP, SHOP), (f"https://a.example, {SHOP}", SHOP, SHOP), ("*", SHOP, "*"),
    (SHOP, "https://evil.example", None), (SHOP, "https://shop.example.evil", None),
    (SHOP, None, None)])
def test_page_of_a_known_origin_may_post_events(path, allowed, origin, told):
    """As a browser asks: a preflight, then the request itself."""
    headers = {"Origin": origin} if origin else {}
    asked = client(cors_origins=allowed)
    preflight = asked.options(path, headers={
        **headers, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type"})
    assert preflight.status_code == 204
    assert preflight.headers.get("Access-Control-Allow-Origin") == told
    assert preflight.headers["Vary"] == "Origin"
    if told:
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "content-type" in preflight.headers["Access-Control-Allow-Headers"]
    posted = asked.post(path, headers=headers)
    assert (posted.status_code, posted.text) == (201, "done")
    assert posted.headers.get("Access-Control-Allow-Origin") == told
    assert posted.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in posted.headers


@pytest.mark.parametrize("path", GUARDED)
def test_pages_may_not_use_other_paths(path):
    answer = client(cors_origins="*", admin_authorization=SECRET).options(path, headers={
        "Origin": SHOP, "Access-Control-Request-Method": "DELETE"})
    assert answer.status_code == 401
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_options_that_is_no_preflight_reaches_the_application():
    assert client(cors_origins="*").options("/ubi_events").status_code == 201
