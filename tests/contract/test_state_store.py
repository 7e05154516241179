"""One suite for the state store in memory and on OpenSearch: versions, conflicts, fresh reads."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from sidecar.errors import VersionConflict
from sidecar.records import History, UserState
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryStateStore
from sidecar.stores.protocols import StateStore
from sidecar.stores.states import OpenSearchStateStore
from sidecar.stores.upstream import Upstream
from tests.http_answers import ask

FULL = History(("i", None), ("view", "search"), (1.5, 1735787045.678), (None, "milk é"),
               ("e-1", "e-2"))
ODD_IDS = ["a/b", "..", ".", "a?b#c", "é漢", "a b", "_under", "%2F", '"quoted"', "e" * 512, "1"]


@pytest.fixture(params=["memory", "opensearch"])
def store(request: pytest.FixtureRequest) -> Iterator[StateStore]:
    if request.param == "memory":
        yield MemoryStateStore()
        return
    url, prefix = (request.getfixturevalue(name) for name in ("opensearch", "index_prefix"))
    settings = Settings(opensearch_url=url, states_index=f"{prefix}states")
    upstream = Upstream(settings)
    yield OpenSearchStateStore(settings, upstream)
    upstream.close()


def deadline() -> float:
    return time.monotonic() + 10.0


def put(store: StateStore, state: UserState) -> UserState:
    written = store.put_many([state])[0]
    assert isinstance(written, UserState), written
    return written


def get(store: StateStore, user_id: str) -> UserState | None:
    return store.begin_get(user_id).result(deadline())


def test_unknown_user_has_no_state(store: StateStore) -> None:
    assert get(store, "nobody") is None
    assert store.get_many(["nobody"]) == [None]
    assert store.get_many(["nobody", "no one"]) == [None, None]
    assert store.get_many([]) == []
    assert store.put_many([]) == []


def test_written_state_is_read_at_once_as_it_was_written(store: StateStore) -> None:
    hidden = np.array([[0.1, -2.5e-8, 3e38], [0.0, 1.0, -1.0]], np.float32)
    written = put(store, UserState("u", FULL, hidden, "model-1", 7))
    for read in (get(store, "u"), *store.get_many(["u"]), store.get_many(["x", "u"])[1]):
        assert read is not None
        assert read.hidden is not None
        np.testing.assert_array_equal(read.hidden, hidden)
        assert dataclasses.replace(read, hidden=None) == dataclasses.replace(written, hidden=None)
    assert written.version >= 0


def test_state_without_hidden_vector_and_events(store: StateStore) -> None:
    written = put(store, UserState("u"))
    assert get(store, "u") == written


def test_any_user_id_is_kept_apart(store: StateStore) -> None:
    written = [put(store, UserState(user_id, FULL)) for user_id in ODD_IDS]
    assert store.get_many(ODD_IDS) == written
    assert [get(store, user_id) for user_id in ODD_IDS] == written
    assert all(store.delete(user_id) for user_id in ODD_IDS)
    assert store.get_many(ODD_IDS) == [None] * len(ODD_IDS)


def test_version_grows_with_every_write(store: StateStore) -> None:
    first = put(store, UserState("u"))
    second = put(store, dataclasses.replace(first, event_count=1))
    assert second.version > first.version
    assert get(store, "u") == second


def test_write_over_an_older_version_is_a_conflict_and_changes_nothing(store: StateStore) -> None:
    first = put(store, UserState("u"))
    second = put(store, dataclasses.replace(first, event_count=1))
    assert isinstance(store.put_many([dataclasses.replace(first, event_count=9)])[0],
                      VersionConflict)
    assert get(store, "u") == second


def test_second_first_write_is_a_conflict(store: StateStore) -> None:
    put(store, UserState("u"))
    assert isinstance(store.put_many([UserState("u")])[0], VersionConflict)


def test_write_over_a_deleted_state_is_a_conflict(store: StateStore) -> None:
    first = put(store, UserState("u"))
    assert store.delete("u")
    assert isinstance(store.put_many([first])[0], VersionConflict)
    again = put(store, UserState("u"))
    assert again.version > first.version


def test_conflict_of_one_leaves_the_others_written(store: StateStore) -> None:
    put(store, UserState("taken"))
    outcomes = store.put_many([UserState("a"), UserState("taken"), UserState("b")])
    assert [type(outcome) for outcome in outcomes] == [UserState, VersionConflict, UserState]
    assert get(store, "a") == outcomes[0]
    assert get(store, "b") == outcomes[2]


def test_deleting_nothing_says_so(store: StateStore) -> None:
    assert not store.delete("nobody")
    put(store, UserState("u"))
    assert store.delete("u")
    assert not store.delete("u")


def test_cancelled_read_disturbs_no_later_one(store: StateStore) -> None:
    written = put(store, UserState("u", FULL))
    for _ in range(5):
        store.begin_get("u").cancel()
    assert get(store, "u") == written


def test_many_reads_may_be_under_way_at_once(store: StateStore) -> None:
    states = [put(store, UserState(f"u{n}", event_count=n)) for n in range(20)]
    pending = [store.begin_get(state.user_id) for state in states]
    assert [read.result(deadline()) for read in reversed(pending)] == states[::-1]


def test_full_window_of_events_survives(store: StateStore) -> None:
    count = 10_000
    history = History(tuple(f"item-{n}" for n in range(count)), ("purchase",) * count,
                      tuple(float(n) for n in range(count)), ("a query",) * count,
                      tuple(f"event-{n}" for n in range(count)))
    written = put(store, UserState("u", history, event_count=count))
    assert get(store, "u") == written


@pytest.mark.parametrize("users", [["u1"], ["u1", "u2"]])
def test_read_waits_for_an_index_that_is_just_being_made(
        opensearch: str, index_prefix: str, users: list[str]) -> None:
    """Another sidecar made it, and its shard is not up yet."""
    index = f"/{index_prefix}states"
    settings = {"number_of_replicas": 0, "routing.allocation.enable": "none"}
    made = ask(opensearch, "PUT", f"{index}?wait_for_active_shards=0", {"settings": settings})
    assert made.status == 200, made.body
    upstream = Upstream(Settings(opensearch_url=opensearch))
    store = OpenSearchStateStore(Settings(opensearch_url=opensearch, states_index=index[1:]),
                                 upstream)
    with ThreadPoolExecutor(2) as pool:
        reads = [pool.submit(store.get_many, users) for _ in range(2)]
        while not (any(read.done() for read in reads) or b"monitor/health" in ask(
                opensearch, "GET", "/_tasks?actions=cluster:monitor/health").body):
            time.sleep(0.01)
        allowed = ask(opensearch, "PUT", f"{index}/_settings",
                      {"index.routing.allocation.enable": "all"})
        assert allowed.status == 200, allowed.body
        assert [read.result(30) for read in reads] == [[None] * len(users)] * 2
    upstream.close()
