"""One suite for the event log in memory and on OpenSearch: append once, keep the first, forget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
import pytest

from sidecar.records import Event, HttpRequest
from sidecar.settings import Settings
from sidecar.stores.event_log import open_logs
from sidecar.stores.in_memory import MemoryEventLog
from sidecar.stores.protocols import EventLog
from sidecar.stores.upstream import Upstream


@dataclass(frozen=True)
class Subject:
    """A log, and a way to see what is in it: item ids by event id."""

    log: EventLog
    items: Callable[[], dict[str, str | None]]


@pytest.fixture(params=["memory", "opensearch"])
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    if request.param == "memory":
        log = MemoryEventLog()
        yield Subject(log, lambda: {name: event.item_id for name, event in log.events.items()})
        return
    url, prefix = (request.getfixturevalue(name) for name in ("opensearch", "index_prefix"))
    settings = Settings(opensearch_url=url, events_index=f"{prefix}events")
    upstream = Upstream(settings)
    yield Subject(open_logs(settings, upstream).events,
                  lambda: _search(upstream, settings.events_index))
    upstream.close()


def _search(upstream: Upstream, index: str) -> dict[str, str | None]:
    for method, path in (("POST", "_refresh"), ("GET", "_search?size=1000")):
        answer = upstream.fetch(HttpRequest(method, f"/{index}/{path}"), idempotent=True)
        if answer.status == 404:
            return {}
    hits = msgspec.json.decode(answer.body)["hits"]["hits"]
    return {hit["_id"]: hit["_source"].get("event_attributes", {}).get("object", {})
            .get("object_id") for hit in hits}


def event(event_id: str, user_id: str = "u", item_id: str | None = "i") -> Event:
    return Event(user_id, "click", item_id, 1735787045.0, event_id=event_id)


def test_events_are_appended_under_their_ids(subject: Subject) -> None:
    assert subject.log.append([event("a"), event("b", item_id=None)]) == [None, None]
    assert subject.items() == {"a": "i", "b": None}


def test_nothing_to_append_is_no_error(subject: Subject) -> None:
    assert subject.log.append([]) == []


def test_id_that_is_there_keeps_its_first_event(subject: Subject) -> None:
    subject.log.append([event("a")])
    assert subject.log.append([event("a", item_id="j"), event("b"), event("b")]) == [None] * 3
    assert subject.items() == {"a": "i", "b": "i"}


def test_append_may_be_under_way_while_another_is_begun(subject: Subject) -> None:
    first, second = subject.log.begin_append([event("a")]), subject.log.begin_append([event("b")])
    assert (second.result(), first.result()) == ([None], [None])
    assert set(subject.items()) == {"a", "b"}


def test_cancelled_append_may_be_sent_again(subject: Subject) -> None:
    subject.log.begin_append([event("a")]).cancel()
    assert subject.log.append([event("a")]) == [None]
    assert set(subject.items()) == {"a"}


def test_any_event_id_is_taken(subject: Subject) -> None:
    ids = ["e" * 512, "é/..?#", '"', "_x", "-"]
    assert subject.log.append([event(event_id) for event_id in ids]) == [None] * len(ids)
    assert set(subject.items()) == set(ids)


def test_forgetting_deletes_this_users_events_and_no_others(subject: Subject) -> None:
    subject.log.append([event("a", "bob"), event("b", "bob smith"), event("c", "Bob"),
                        event("d", "bob"), event("e", "bob-2")])
    assert subject.log.forget("bob") == 2
    assert set(subject.items()) == {"b", "c", "e"}
    assert subject.log.forget("bob") == 0


def test_forgetting_from_an_empty_log(subject: Subject) -> None:
    assert subject.log.forget("bob") == 0


def test_large_batch_is_aligned_with_its_events(subject: Subject) -> None:
    events = [event(f"e{n}") for n in range(501)]
    assert subject.log.append(events) == [None] * 501
    assert len(subject.items()) == 501


def test_extra_fields_of_any_shape_are_taken(subject: Subject) -> None:
    """One client's text is another's number; neither may be refused for it."""
    shapes = [{"page": 1}, {"page": "one"}, {"page": {"number": 1}}, {"page": [1, "two"]},
              {"page": None}, {"a.b": 1}, {"message": "m", "application": "shop"}]
    events = [dataclasses.replace(event(f"e{n}"), extra={"event_attributes": shape, **shape})
              for n, shape in enumerate(shapes)]
    assert subject.log.append(events) == [None] * len(shapes)
