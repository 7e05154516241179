"""A shop page's collector, ubi.js, posts to the sidecar: from a browser, across origins."""

from __future__ import annotations

from tests import javascript

PAGE = "https://shop.example"


def test_ubi_js_tells_what_a_shopper_does_and_the_next_search_knows(sidecars, shop, model_dir):
    sidecar = sidecars.start("fake_model:application()", workers=1, model_dir=model_dir,
                             cors_origins=PAGE)
    before = sidecar.search(X_Personalize_User="c-1")
    assert before.outcome == "skipped; reason=no_history"
    told = javascript.run("ubi.mjs", sidecar.url, "c-1", "p3")
    assert (told["query"]["taken"], told["event"]["taken"]) == (1, 1)
    kept = sidecar.request("GET", "/_personalize/users/c-1").json
    assert {(row["event"], row["item_id"], row["query"]) for row in kept["events"]} == {
        ("search", None, "white milk"), ("add_to_cart", "p3", None)}
    after = sidecar.search(X_Personalize_User="c-1")
    assert after.outcome == "applied"
    assert after.ids[0] == "p3"


def test_browser_is_let_through_for_the_shops_pages_alone(sidecars, shop, model_dir):
    """The preflight that a browser sends before ubi.js's request, and the answer to that."""
    sidecar = sidecars.start("fake_model:application()", workers=1, model_dir=model_dir,
                             cors_origins=PAGE)
    event = [{"action_name": "view", "client_id": "c-2", "user_id": "",
              "event_attributes": {"object": {"object_id": "p1"}}}]
    for path in ("/ubi_events", "/ubi_queries", "/_personalize/events"):
        asked = {"Access_Control_Request_Method": "POST",
                 "Access_Control_Request_Headers": "content-type"}
        welcome = sidecar.request("OPTIONS", path, Origin=PAGE, **asked)
        assert welcome.status == 204
        assert welcome.headers["Access-Control-Allow-Origin"] == PAGE
        stranger = sidecar.request("OPTIONS", path, Origin="https://evil.example", **asked)
        assert stranger.headers["Access-Control-Allow-Origin"] is None
    posted = sidecar.request("POST", "/ubi_events", event, Origin=PAGE)
    assert (posted.status, posted.headers["Access-Control-Allow-Origin"]) == (200, PAGE)
    refused = sidecar.request("POST", "/ubi_events", b"[", Origin=PAGE)
    assert (refused.status, refused.headers["Access-Control-Allow-Origin"]) == (400, PAGE)
    closed = sidecar.request("GET", "/_personalize/users/c-2", Origin=PAGE)
    assert closed.headers["Access-Control-Allow-Origin"] is None
