"""OpenSearch's own client for JavaScript, pointed at the sidecar, notices nothing but the order."""

from __future__ import annotations

from tests import javascript

MILK = {"query": {"match": {"title": "milk"}}}


def test_javascript_client_searches_scrolls_loads_and_reads_errors(proxy, expected_order):
    engine = proxy.engine("one", {**MILK, "size": 100}).ids
    told = javascript.run("search.mjs", proxy.url, f"{proxy.prefix}one", "20")
    assert told["found"] == expected_order(engine, 100)[:20]
    assert told["off"] == engine[:20]
    assert told["status"] == "applied"
    first = int(told["found"][0][1:])
    assert told["size"] == str(9007199254740993 + first)
    assert told["many"] == [200, 404]
    assert (told["total"], told["scrolled"], told["loaded"]) == (160, 160, 120)
    assert told["exists"] is True
    assert told["errors"] == [["ResponseError", 404, "index_not_found_exception"],
                              ["ResponseError", 400, "parsing_exception"]]
