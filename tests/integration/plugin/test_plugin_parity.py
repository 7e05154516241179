"""The same searches through the proxy and by way of the plugin: same order, scores, explanation.

The searches are the proxy's differential list (``../proxy/requests``): those that a search
pipeline can take, which leaves out other paths, other formats and broken bodies.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

FILES = ("bodies", "queries", "parameters")
LISTS = Path(__file__).parents[1] / "proxy" / "requests"
PIPELINES = {"by_id": "_id", "by_field": "item_id"}
CONTROLS = {"session_id": "s1", "weight": 0.5, "explain": True}
# Parameters that change what an answer looks like, where the two ways differ by design.
NOT_COMPARED = {"format", "source", "source_content_type", "filter_path", "personalize",
                "search_pipeline", "verbose_pipeline", "scroll"}
# Reasons that only the proxy can have: it sees bytes, the plugin sees a parsed search.
OF_THE_PROXY = {"format", "unreadable", "not_a_search", "filter_path"}


@dataclass
class Search:
    """One search of the list, for one index."""

    target: str
    body: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.target} {json.dumps(self.body)[:300]}"


def searches(name: str, index: str, item_id: str) -> list[Search]:
    found = []
    for line in (LISTS / f"{name}.ndjson").read_text().splitlines():
        row = json.loads(line.replace("{i}", index))
        path, _, query = row["target"].partition("?")
        parameters = {key for key, _ in parse_qsl(query, keep_blank_values=True)}
        body = row.get("body") or {}
        is_plain = path == f"/{index}/_search" and "text" not in row and not row.get("headers")
        is_other = (parameters | set(body)) & NOT_COMPARED or is_written_oddly(body)
        if is_plain and not is_other and not hides_ids(row, item_id):
            found.append(Search(row["target"], body))
    return found


def is_written_oddly(body: dict[str, Any]) -> bool:
    """Tell page numbers that the proxy leaves to OpenSearch, whose plugin gets them read."""
    return any(isinstance(body.get(name), str) and not body[name].isdecimal()
               for name in ("from", "size"))


def hides_ids(row: dict[str, Any], item_id: str) -> bool:
    """Tell hits without ``_id``: the plugin needs the item field then, the proxy has it always,
    but not where the client asks for that field itself.
    """
    text = json.dumps(row)
    return "_none_" in text and (item_id == "_id" or "docvalue_fields" in text)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("index", ["one", "many", "narrow"])
@pytest.mark.parametrize("name", FILES)
def test_plugin_answers_as_the_proxy_does_on_one_node(one_node, name, index, pipeline,
                                                      record_property):
    compare(one_node, name, index, pipeline, record_property)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize("name", FILES)
def test_plugin_answers_as_the_proxy_does_on_two_nodes(two_nodes, name, pipeline, record_property):
    compare(two_nodes, name, "many", pipeline, record_property)


@pytest.mark.parametrize("pipeline", PIPELINES)
@pytest.mark.parametrize(("index", "firsts"), [("many", (0, 7, 95, 120)), ("narrow", (0, 35, 40))])
def test_point_in_time_is_answered_as_by_the_proxy_and_its_id_kept(one_node, index, firsts,
                                                                   pipeline):
    """``narrow`` allows no window as wide as the default."""
    one_node.put_pipeline(pipeline, {"item_id_field": PIPELINES[pipeline]})
    pit = one_node.call("POST", f"/{index}/_search/point_in_time?keep_alive=1m").json["pit_id"]
    for first in firsts:
        body = {"query": {"match": {"title": "milk"}}, "from": first, "size": 10,
                "pit": {"id": pit, "keep_alive": "1m"}}
        proxy = one_node.search_by_proxy(body, "/_search", **CONTROLS)
        plugin = one_node.search(pipeline, body, "/_search", **CONTROLS)
        assert difference(proxy, plugin) == ""
        assert plugin.json["pit_id"] == pit


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_pages_show_every_hit_once_over_the_windows_edge(one_node, pipeline):
    """Pages neither repeat nor drop a hit, across the window's edge, however they are fetched."""
    one_node.put_pipeline(pipeline, {"item_id_field": PIPELINES[pipeline]})
    body = {"query": {"match": {"title": "milk"}}, "_source": ["title"]}
    shown = []
    for first in range(0, 160, 7):
        page = {**body, "from": first, "size": 7}
        shown += one_node.search(pipeline, page, window_size=40).ids
    assert len(shown) == len(set(shown)) == 160


@pytest.mark.parametrize("size", [1, 7, 40, 150])
def test_walk_by_search_after_shows_every_hit_once(one_node, size):
    one_node.put_pipeline("by_field", {"item_id_field": "item_id"})
    body = {"query": {"match_all": {}}, "size": size, "sort": ["_score", {"item_id": "asc"}]}
    first = page = one_node.search("by_field", body, "/many/_search")
    shown = []
    while page.ids:
        shown += page.ids
        last = page.json["hits"]["hits"][-1]["sort"]
        page = one_node.search("by_field", {**body, "search_after": last}, "/many/_search")
    assert len(shown) == len(set(shown)) == 160
    assert first.json["ext"]["personalize"]["applied"] is (size > 1)


def compare(shop, name, index, pipeline, record_property):
    shop.put_pipeline(pipeline, {"item_id_field": PIPELINES[pipeline]})
    different, applied = [], 0
    all_of_them = searches(name, index, PIPELINES[pipeline])
    for search in all_of_them:
        search.target += ("&" if "?" in search.target else "?") + "preference=same"
        proxy = shop.search_by_proxy(search.body, search.target, **CONTROLS)
        plugin = shop.search(pipeline, search.body, search.target, **CONTROLS)
        applied += proxy.headers["X-Personalize-Status"] == "applied"
        wrong = difference(proxy, plugin)
        if wrong:
            different.append((wrong, str(search), proxy.body[-500:], plugin.body[-500:]))
    record_property("compared", len(all_of_them))
    record_property("applied", applied)
    print(f"{len(all_of_them)} searches compared, {applied} of them reordered, "
          f"{len(different)} different")
    assert not different, "\n".join(map(str, different))
    assert applied > len(all_of_them) // 4


def difference(proxy: Any, plugin: Any) -> str:
    """Return what tells the two apart; empty if nothing does."""
    if proxy.status != plugin.status:
        return f"status {proxy.status} and {plugin.status}"
    if proxy.status != 200:
        return ""
    mine, theirs = steady(plugin.exact), steady(proxy.exact)
    told, status = mine.pop("ext")["personalize"], proxy.headers["X-Personalize-Status"]
    explained = (theirs.pop("ext", None) or {}).get("personalize")
    if mine != theirs:
        return "hits" if mine["hits"] != theirs["hits"] else "what surrounds the hits"
    if not mine["hits"]["hits"]:
        return ""  # an empty page is no_hits, or an order that shows nothing
    if status == "applied":
        return "" if told == explained else f"explanation {told} {explained}"
    reason = status.partition("reason=")[2]
    if told["applied"] or (reason not in OF_THE_PROXY and told["reason"] != reason):
        return f"told {told['reason']} and {reason}"
    return ""


def steady(answer: Any) -> Any:
    """Drop what differs from one call to the next."""
    text = json.dumps(answer)
    text = re.sub(r'("(?:took|time_in_nanos|query|fetch|expand|can_match|dfs_pre_query)": )\d+',
                  r"\g<1>0", text)
    return json.loads(text)
