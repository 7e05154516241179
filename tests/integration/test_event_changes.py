"""New events come out of a real OpenSearch: once, whoever wrote them, from an instant on."""

from __future__ import annotations

import time

import pytest

from sidecar.records import Event, ItemEvent
from sidecar.settings import Settings
from sidecar.stores.event_changes import EventChanges
from sidecar.stores.event_log import open_logs
from sidecar.stores.ubi import timestamp
from sidecar.stores.upstream import Upstream
from tests.http_answers import ask

SINCE = 1_700_000_000.0


@pytest.fixture
def settings(opensearch, index_prefix):
    return Settings(opensearch_url=opensearch, events_index=f"{index_prefix}events",
                    queries_index=f"{index_prefix}queries")


@pytest.fixture
def upstream(settings):
    made = Upstream(settings)
    yield made
    made.close()


def read(changes):
    return [event for page in changes.poll() for event in page]


def test_events_are_read_once_and_only_those_of_the_instant_and_later(settings, upstream):
    changes = EventChanges(settings, upstream, SINCE)
    assert read(changes) == []  # there is no index yet
    events = open_logs(settings, upstream).events
    events.append([Event("u", "click", "early", SINCE - 1.0, event_id="1"),
                   Event("u", "click", "a", SINCE, event_id="2"),
                   Event("u", "search", None, SINCE + 1.0, "milk", event_id="3"),
                   Event("u", "purchase", "b", SINCE + 2.5, event_id="4")])
    assert read(changes) == [ItemEvent("a", "click", SINCE),
                                       ItemEvent("b", "purchase", SINCE + 2.5)]
    assert read(changes) == []
    events.append([Event("v", "view", "c", SINCE + 9.0, event_id="5")])
    assert read(changes) == [ItemEvent("c", "view", SINCE + 9.0)]


def test_nothing_is_read_twice_after_shards_were_gone_for_a_while(settings, upstream):
    """As they are after a restart, until they have recovered: a count cannot tell repetitions."""
    changes = EventChanges(settings, upstream, SINCE)
    open_logs(settings, upstream).events.append([Event("u", "click", "a", SINCE, event_id="1")])
    assert len(read(changes)) == 1
    index, = changes.uuids
    where = "index.routing.allocation.require._name"
    node = settings.opensearch_url
    ask(node, "POST", f"/{index}/_close")
    ask(node, "PUT", f"/{index}/_settings", {where: "nowhere"})
    ask(node, "POST", f"/{index}/_open?wait_for_active_shards=0")
    assert read(changes) == []
    ask(node, "PUT", f"/{index}/_settings", {where: None})
    ask(node, "GET", f"/_cluster/health/{index}?wait_for_status=yellow&timeout=30s")
    assert read(changes) == []
    open_logs(settings, upstream).events.append([Event("u", "click", "b", SINCE, event_id="2")])
    assert read(changes) == [ItemEvent("b", "click", SINCE)]


def test_log_that_is_reindexed_behind_its_alias_is_not_read_twice(settings, upstream):
    """Its new index tells all that happened once more, and what happens from then on."""
    node, now = settings.opensearch_url, time.time()
    aside = f"{settings.events_index}-again"
    changes = EventChanges(settings, upstream, SINCE)
    events = open_logs(settings, upstream).events
    events.append([Event("u", "click", "a", now - 60.0, event_id="1")])
    assert len(read(changes)) == 1
    index, = changes.uuids
    ask(node, "POST", "/_reindex?refresh=true",
        {"source": {"index": index}, "dest": {"index": aside}})
    ask(node, "DELETE", f"/{index}")
    ask(node, "POST", "/_aliases",
        {"actions": [{"add": {"index": aside, "alias": settings.events_index}}]})
    assert read(changes) == []
    events.append([Event("u", "click", "b", now - 30.0, event_id="2")])
    assert [event.item_id for event in read(changes)] == ["b"]
    assert read(changes) == []


def test_index_that_a_rollover_made_is_read(settings, upstream):
    node, now = settings.opensearch_url, time.time()
    changes = EventChanges(settings, upstream, SINCE)
    open_logs(settings, upstream).events.append([Event("u", "click", "a", now, event_id="1")])
    assert len(read(changes)) == 1
    rolled = f"{settings.events_index}-rolled"
    ask(node, "POST", f"/{rolled}/_doc", {
        "action_name": "click", "timestamp": timestamp(time.time()),
        "event_attributes": {"object": {"object_id": "b"}}})
    ask(node, "POST", "/_aliases", {"actions": [
        {"add": {"index": rolled, "alias": f"{settings.events_index}-all"}},
        {"add": {"index": next(iter(changes.uuids)), "alias": f"{settings.events_index}-all"}}]})
    changes._alias = f"{settings.events_index}-all"
    assert [event.item_id for event in read(changes)] == ["b"]
