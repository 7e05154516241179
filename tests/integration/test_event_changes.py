"""New events come out of a real OpenSearch: once, whoever wrote them, from an instant on."""

from __future__ import annotations

import pytest

from sidecar.records import Event
from sidecar.settings import Settings
from sidecar.stores.event_changes import EventChanges, ItemEvent
from sidecar.stores.event_log import open_logs
from sidecar.stores.upstream import Upstream

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
