"""What the logs do on a real OpenSearch beyond their contract: mappings, refusals, shown orders."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from prometheus_client import REGISTRY

from sidecar.errors import EventError, UpstreamError, UpstreamUnavailable
from sidecar.records import Event, HttpRequest, HttpResponse, UserState
from sidecar.serving.events import EventIntake
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings, variable
from sidecar.stores import query_log
from sidecar.stores.event_log import open_logs
from sidecar.stores.files import read_events
from sidecar.stores.query_log import QueryLog
from sidecar.stores.states import OpenSearchStateStore
from sidecar.stores.upstream import Upstream

RECORD = {"query_id": "q", "query_response_id": "r", "user_query": "milk", "client_id": "c",
          "query_response_hit_ids": ["b", "a"]}
# As the UBI plugin makes it: what it does not name, user_id too, is guessed: text, analysed.
UBI_PLUGIN = {"mappings": {"properties": {"client_id": {"type": "keyword", "ignore_above": 100}}}}


class Node:
    """The node under test, and a sidecar's settings on it."""

    def __init__(self, url: str, prefix: str) -> None:
        self.settings = Settings(opensearch_url=url, states_index=f"{prefix}states",
                                 events_index=f"{prefix}events", queries_index=f"{prefix}queries")
        self.upstream = Upstream(self.settings)
        self.logs = open_logs(self.settings, self.upstream)
        self.states = OpenSearchStateStore(self.settings, self.upstream)

    def ask(self, method: str, path: str, body: object = None) -> HttpResponse:
        payload = None if body is None else msgspec.json.encode(body)
        request = HttpRequest(method, path, (("Content-Type", "application/json"),), payload)
        return self.upstream.fetch(request, idempotent=True)

    def documents(self, index: str) -> dict[str, Any]:
        self.ask("POST", f"/{index}/_refresh")
        hits = msgspec.json.decode(self.ask("GET", f"/{index}/_search?size=100").body)["hits"]
        return {hit["_id"]: hit["_source"] for hit in hits["hits"]}


@pytest.fixture
def node(opensearch: str, index_prefix: str) -> Iterator[Node]:
    node = Node(opensearch, index_prefix)
    yield node
    node.upstream.close()


def event(event_id: str, user_id: str = "u", **extra: Any) -> Event:
    return Event(user_id, "click", "i", 1735787045.0, event_id=event_id, extra=extra)


def test_first_write_makes_the_index_from_its_mapping(node: Node) -> None:
    node.logs.events.append([event("e")])
    node.logs.queries.append([event("q")])
    node.states.put_many([UserState("u")])
    for index in (node.settings.events_index, node.settings.queries_index,
                  node.settings.states_index):
        answer = msgspec.json.decode(node.ask("GET", f"/{index}/_mapping").body)
        assert answer[index]["mappings"]["dynamic"] == "strict"


def test_alias_of_the_operators_own_index_is_left_as_it_is(node: Node) -> None:
    real = f"{node.settings.events_index}-000001"
    node.ask("PUT", f"/{real}", {"aliases": {node.settings.events_index: {}}})
    assert node.logs.events.append([event("e")]) == [None]
    assert set(node.documents(real)) == {"e"}


@pytest.mark.parametrize("is_alias", [False, True])
def test_index_that_was_deleted_comes_back_with_its_mapping(node: Node, is_alias: bool) -> None:
    index = node.settings.events_index
    real = f"{index}-000001" if is_alias else index
    if is_alias:
        node.ask("PUT", f"/{real}", {"aliases": {index: {}}})
    for event_id in ("a", "b"):
        assert node.logs.events.append([event(event_id)]) == [None]
        node.ask("DELETE", f"/{real}")
        real = index
    assert node.logs.events.append([event("c"), event("d")]) == [None, None]
    assert set(node.documents(index)) == {"c", "d"}
    mappings = msgspec.json.decode(node.ask("GET", f"/{index}/_mapping").body)
    assert mappings[index]["mappings"]["dynamic"] == "strict"


def test_state_of_a_deleted_index_starts_anew(node: Node) -> None:
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    for number in (1, 2):
        intake.take([{"user_id": "u", "item_id": str(number), "event": "click"}])
    node.ask("DELETE", f"/{node.settings.states_index}")
    assert intake.take([{"user_id": "u", "item_id": "3", "event": "click"}]).taken == 1
    state = node.states.get_many(["u"])[0]
    assert state is not None
    assert state.history.item_ids == ("3",)


def test_index_whose_alias_cannot_be_made_is_written_to(
        node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """As for an operator who lets the sidecar write, and not make aliases."""
    node.ask("PUT", f"/{node.settings.events_index}-writes", {})  # the name is taken
    assert node.logs.events.append([event("e")]) == [None]
    assert set(node.documents(node.settings.events_index)) == {"e"}
    assert "index is written to without an alias" in caplog.text


def test_event_that_does_not_fit_is_refused_and_leaves_the_others_alone(node: Node) -> None:
    outcomes = node.logs.events.append([
        event("a"), event("b", message={"not": "text"}), event("c", event_attributes={"": 1}),
        event("d", big=2**70)])
    assert [type(outcome) for outcome in outcomes] == [
        type(None), EventError, EventError, type(None)]
    assert "event does not fit the event log" in str(outcomes[1])
    assert set(node.documents(node.settings.events_index)) == {"a", "d"}


@pytest.mark.parametrize(("how", "said"), [
    ("closed", "closed"), ("alias", "no write index"), ("pipeline", "does not exist")])
def test_event_is_not_to_blame_for_an_index_that_takes_none(
        node: Node, how: str, said: str) -> None:
    """Refused as unfit, it would be thrown away by its client; so it is to be sent again."""
    index = node.settings.events_index
    if how == "alias":
        for number in (1, 2):
            node.ask("PUT", f"/{index}-{number}", {"aliases": {index: {}}})
    else:
        node.logs.events.append([event("a")])
        node.ask("PUT", f"/{index}/_settings",
                 {"index.default_pipeline": "absent" if how == "pipeline" else None})
    if how == "closed":
        node.ask("POST", f"/{index}/_close")
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    with pytest.raises(UpstreamError, match=said):
        intake.take([{"user_id": "u", "item_id": "1", "event": "click"}])
    assert node.states.get_many(["u"]) == [None]


def test_refused_event_is_not_in_the_state(node: Node) -> None:
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    answer = intake.take([{"user_id": "u", "item_id": str(number), "event": "click",
                           "message": message} for number, message in enumerate(["ok", {"a": 1}])])
    assert (answer.taken, len(answer.refused)) == (1, 1)
    state = node.states.get_many(["u"])[0]
    assert state is not None
    assert state.history.item_ids == ("0",)


def test_forgetting_in_an_index_that_the_ubi_plugin_made(node: Node) -> None:
    """There user ids are analysed; matching words would delete other people's events."""
    node.ask("PUT", f"/{node.settings.events_index}", UBI_PLUGIN)
    node.logs.events.append([event("a", "bob"), event("b", "bob smith")])
    assert node.logs.forget("bob") == 1
    assert set(node.documents(node.settings.events_index)) == {"b"}


def test_forgetting_where_ids_cannot_be_told_apart_is_refused(node: Node) -> None:
    node.ask("PUT", f"/{node.settings.events_index}",
             {"mappings": {"properties": {"user_id": {"type": "text"}}}})
    node.logs.events.append([event("a", "bob smith")])
    with pytest.raises(UpstreamError, match="user_id is mapped as no keyword"):
        node.logs.forget("bob")


@pytest.mark.parametrize("broken", [
    {"events": {"item_ids": ["a"], "events": []}},
    {"hidden": b64encode(bytes(16)).decode(), "hidden_shape": [-1, -4]}])
def test_unreadable_state_is_replaced_by_the_next_event(node: Node, broken: Any) -> None:
    node.states.put_many([UserState("v")])
    node.ask("PUT", f"/{node.settings.states_index}/_doc/u", {"user_id": "u", **broken})
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    assert intake.take([{"user_id": "u", "item_id": "1", "event": "click"}]).taken == 1
    state = node.states.get_many(["u"])[0]
    assert state is not None
    assert state.history.item_ids == ("1",)


def test_forbidden_index_is_told_with_opensearchs_reason(node: Node) -> None:
    node.states.put_many([UserState("u")])
    node.ask("PUT", f"/{node.settings.states_index}/_settings", {"index.blocks.read": True})
    with pytest.raises(UpstreamError, match=r"opensearch answered 403: .*blocked by"):
        node.states.begin_get("u").result(time.monotonic() + 5)


@pytest.mark.parametrize("index", ["events_index", "states_index"])
def test_full_disk_is_told_at_once_and_keeps_no_thread(node: Node, index: str) -> None:
    """At a disk's flood stage OpenSearch makes its indices read-only, with the status of a rush."""
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    click = {"user_id": "u", "item_id": "1", "event": "click"}
    assert intake.take([click]).taken == 1
    settings = f"/{getattr(node.settings, index)}/_settings"
    node.ask("PUT", settings, {"index.blocks.read_only_allow_delete": True})
    began = time.monotonic()
    with pytest.raises(UpstreamError, match="flood-stage watermark"):
        intake.take([click])
    assert time.monotonic() - began < 5.0
    node.ask("PUT", settings, {"index.blocks.read_only_allow_delete": None})
    assert intake.take([click]).taken == 1


def test_events_that_fail_are_one_line_a_second_without_a_user_and_counted(
        node: Node, caplog: pytest.LogCaptureFixture) -> None:
    node.ask("PUT", f"/{node.settings.states_index}",
             {"mappings": {"properties": {"user_id": {"type": "long"}}}})
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    before = REGISTRY.get_sample_value("personalize_events_total", {"outcome": "failed"}) or 0.0
    for number in range(5):
        with pytest.raises(UpstreamError, match="state was not written"):
            intake.take([{"user_id": "somebody", "item_id": str(number), "event": "click"}] * 2)
    after = REGISTRY.get_sample_value("personalize_events_total", {"outcome": "failed"})
    assert after == before + 10
    lines = [vars(record) for record in caplog.records if record.message == "events not taken"]
    assert 1 <= len(lines) < 5
    assert "failed to parse field [user_id] of type [long]" in lines[0]["error"]
    assert "somebody" not in str(lines)


def test_shown_order_is_logged_behind_the_searchs_back(node: Node) -> None:
    log = QueryLog(node.settings, node.upstream)
    log.append(RECORD)
    log.append({"query_id": "q2"})
    log.close()
    documents = node.documents(node.settings.queries_index)
    assert len(documents) == 2
    assert documents["r"] | {"timestamp": None} == RECORD | {"timestamp": None}
    assert log.dropped == 0


def test_clients_entry_and_shown_order_of_one_query_stand_side_by_side(node: Node) -> None:
    log = QueryLog(node.settings, node.upstream)
    log.append(RECORD)
    log.close()
    node.logs.queries.append([event("q", query_id="q")])
    assert set(node.documents(node.settings.queries_index)) == {"q", "r"}


def test_entry_that_does_not_fit_is_counted_and_the_next_is_logged(node: Node) -> None:
    log = QueryLog(node.settings, node.upstream)
    log.append(RECORD | {"message": {"not": "text"}})
    log.append(RECORD | {"query_response_id": "s"})
    log.close()
    assert log.dropped == 1
    assert set(node.documents(node.settings.queries_index)) == {"s"}


def test_opensearch_that_is_away_costs_entries_and_no_search(node: Node) -> None:
    settings = Settings(opensearch_url="http://127.0.0.1:9")
    log = QueryLog(settings, Upstream(settings))
    for _ in range(query_log.WAITING):
        log.append(RECORD)
    log.close()
    assert log.dropped == query_log.WAITING


def test_full_queue_drops_and_counts(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    gathers, may_write = threading.Event(), threading.Event()

    def gather(_: float) -> None:
        gathers.set()
        may_write.wait(10)

    monkeypatch.setattr(query_log, "WAITING", 2)
    monkeypatch.setattr(query_log, "time", SimpleNamespace(time=time.time, sleep=gather))
    log = QueryLog(node.settings, node.upstream)
    log.append({"query_response_id": "0"})
    assert gathers.wait(10)  # the writer has taken the first
    for number in range(1, 5):
        log.append({"query_response_id": str(number)})
    assert log.dropped == 2
    may_write.set()
    log.close()
    assert len(node.documents(node.settings.queries_index)) == 3


def test_closed_log_that_was_never_used_is_no_error(node: Node) -> None:
    QueryLog(node.settings, node.upstream).close()


def test_node_that_is_away_is_unavailable() -> None:
    settings = Settings(opensearch_url="http://127.0.0.1:9")
    upstream = Upstream(settings)
    states = OpenSearchStateStore(settings, upstream)
    with pytest.raises(UpstreamUnavailable):
        states.begin_get("u").result(time.monotonic() + 1)
    with pytest.raises(UpstreamUnavailable):
        states.put_many([UserState("u")])
    with pytest.raises(UpstreamUnavailable):
        open_logs(settings, upstream).events.append([event("e")])


def test_lines_of_the_readme_write_an_events_file(node: Node, tmp_path: Path) -> None:
    """What a shop trains on again: the events and the searches that the sidecar has logged."""
    intake = EventIntake(node.settings, node.states, node.logs, lambda: None, Telemetry())
    intake.take([{"user_id": "u", "item_id": "007", "event": "click", "ts": 1735787045}])
    intake.take_queries([{"query_id": "q", "user_query": "milk", "client_id": "u"}])
    text = Path("README.md").read_text(encoding="utf-8")
    lines = dedent(text.partition("<<'EOF'\n")[2].partition("   EOF\n")[0])
    for name, own in (("ubi_events", node.settings.events_index),
                      ("ubi_queries", node.settings.queries_index)):
        assert name in lines
        lines = lines.replace(name, own)
        node.ask("POST", f"/{own}/_refresh")
    done = subprocess.run(
        [sys.executable, "-"], input=lines, text=True, capture_output=True, check=True,
        env={**os.environ, variable("opensearch_url"): node.settings.opensearch_url})
    file = tmp_path / "logged.jsonl"
    file.write_text(done.stdout)
    rows = read_events(file)
    assert sorted((event.event, event.item_id, event.query) for event in rows) == [
        ("click", "007", None), ("search", None, "milk")]
    assert not rows.refused
