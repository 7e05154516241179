"""Searches with a pipeline of the client's choice, through the proxy: the same answer as without.

The only processors that a node from Maven Central has are the plugin's own, so they stand for any
pipeline's: they widen the request, reorder the hits and add to the answer's ext.
"""

from __future__ import annotations

import re

import pytest

from tests.http_answers import ask

QUERY = {"query": {"match": {"title": "milk"}}, "size": 20, "ext": {"ubi": {"client_id": "u1"}}}
TIMES = re.compile(rb'("took"|"duration_millis"|"phase_took"):(\d+|\{[^}]*\})')


def inline(shop):
    usual = {"endpoint": shop.sidecar, "timeout_ms": 10_000}
    return {"request_processors": [{"personalize": usual}],
            "response_processors": [{"personalize": usual}]}


def by_both_ways(shop, body, target, **headers):
    """Return the answer of the node itself and the one through the proxy, times taken out."""
    direct = ask(shop.nodes[0], "POST", target, body)
    proxied = ask(shop.sidecar, "POST", target, body, **headers)
    assert (direct.status, proxied.status) == (200, 200), (direct.body, proxied.body)
    return direct, proxied


@pytest.mark.parametrize("parameters", [
    "search_pipeline=mine", "search_pipeline=mine&verbose_pipeline=true", "search_pipeline=_none"])
def test_named_pipeline_runs_as_it_does_without_the_proxy(one_node, parameters):
    one_node.put_pipeline("mine")
    direct, proxied = by_both_ways(one_node, QUERY, f"/one/_search?{parameters}",
                                   X_Personalize="off")
    assert TIMES.sub(b"", proxied.body) == TIMES.sub(b"", direct.body)
    assert ("personalize" in proxied.json.get("ext", {})) == ("mine" in parameters)
    assert ("processor_results" in proxied.json) == ("verbose" in parameters)


@pytest.mark.parametrize("is_inline", [True, False])
def test_pipeline_named_or_written_in_the_body_runs(one_node, is_inline):
    one_node.put_pipeline("mine")
    body = {**QUERY, "search_pipeline": inline(one_node) if is_inline else "mine"}
    direct, proxied = by_both_ways(one_node, body, "/one/_search", X_Personalize="off")
    assert TIMES.sub(b"", proxied.body) == TIMES.sub(b"", direct.body)
    assert proxied.json["ext"]["personalize"]["applied"]


def test_indexs_default_pipeline_and_the_proxys_own_order_go_together(one_node):
    """The proxy orders what the pipeline gives; no hit is lost, and the pipeline's ext is kept."""
    one_node.put_pipeline("mine")
    body = {**QUERY, "size": 100}
    direct, proxied = by_both_ways(one_node, body, "/one/_search?search_pipeline=mine",
                                   X_Personalize_User="u1")
    assert proxied.headers["X-Personalize-Status"] == "applied"
    assert sorted(proxied.ids) == sorted(direct.ids)
    assert proxied.json["ext"]["personalize"]["applied"]
