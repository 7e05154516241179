"""The intake over in-memory stores and a small fake model whose hidden state can be read."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from prometheus_client import REGISTRY

from sidecar.errors import EventError, UpstreamError, UpstreamUnavailable
from sidecar.records import (
    Candidates,
    Event,
    FloatArray,
    History,
    QueryContext,
    Ranking,
    UserState,
)
from sidecar.serving import event_writer
from sidecar.serving.events import CHUNK_EVENTS, EventIntake, Refusal
from sidecar.serving.models import Items
from sidecar.serving.telemetry import WITHOUT_EFFECT, Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import Appended, MemoryEventLog, MemoryStateStore
from sidecar.stores.protocols import Logs

NOW = 1_760_000_000.0


class Numbered:
    """A table of the items 0 to 99."""

    def __len__(self) -> int:
        return 100

    def rows(self, item_ids: Iterable[str | None]) -> npt.NDArray[np.int64]:
        rows = np.array([int(item_id or -1) for item_id in item_ids], np.int64)
        return np.where(rows < len(self), rows, -1)

    def upsert(self, rows: Sequence[Mapping[str, Any]], *, anew: bool = False) -> int:
        raise NotImplementedError


class ChainRanker:
    """A model whose hidden state depends on every event, its item and their order."""

    items: Items

    def __init__(self, version: str = "m1", weight: float = 0.5) -> None:
        self.version = version
        self.weight = weight
        self.items = Numbered()
        self.steps = 0

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        """h ← weight · h + item, for each event."""
        value = 0.0 if hidden is None else float(hidden[0, 0])
        for item_id in events.item_ids:
            value = self.weight * value + float(item_id or 0)
            self.steps += 1
        return np.array([[value]], np.float32)

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        raise NotImplementedError

    def warm_up(self) -> None:
        raise NotImplementedError


class World:
    """An intake with everything around it, in memory."""

    def __init__(self, **settings: Any) -> None:
        self.ranker: ChainRanker | None = ChainRanker()
        self.states = MemoryStateStore()
        self.events = MemoryEventLog()
        self.queries = MemoryEventLog()
        self.now = NOW
        self.intake = self.with_stores(self.states, self.events, **settings)

    def with_stores(self, states: Any, events: Any, **settings: Any) -> EventIntake:
        return EventIntake(Settings(**settings), states, Logs(events, self.queries),
                           lambda: self.ranker, Telemetry(), lambda: self.now)

    def state(self, user_id: str = "u") -> UserState:
        state = self.states.begin_get(user_id).result(0.0)
        assert state is not None
        return state

    def hidden(self, user_id: str = "u") -> float:
        hidden = self.state(user_id).hidden
        assert hidden is not None
        return float(hidden[0, 0])


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_writer, "PATIENCE_S", 0.5)


def raw(number: int, user_id: str = "u", **fields: Any) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": str(number), "event": "click", "ts": NOW - 1000 + number,
            "event_id": f"{user_id}-{number}", **fields}


def chain(*numbers: int) -> float:
    value = 0.0
    for number in numbers:
        value = 0.5 * value + number
    return value


def test_batch_is_taken_logged_and_stepped(world: World) -> None:
    answer = world.intake.take([raw(1), raw(2), raw(3, "v")])
    assert (answer.taken, answer.refused, answer.duplicates) == (3, (), 0)
    assert answer.states == {"u": world.state("u").version, "v": world.state("v").version}
    assert world.state().history.item_ids == ("1", "2")
    assert world.hidden() == chain(1, 2)
    assert world.state().model_version == "m1"
    assert world.state().event_count == 2
    assert set(world.events.events) == {"u-1", "u-2", "v-3"}


def without_effect() -> dict[str, float]:
    return {word: REGISTRY.get_sample_value("personalize_events_without_effect_total",
                                            {"reason": word}) or 0.0 for word in WITHOUT_EFFECT}


def test_events_that_do_nothing_are_counted_once_and_no_others(world: World) -> None:
    def counted(*events: dict[str, Any]) -> tuple[float, ...]:
        before = without_effect()
        answer = world.intake.take(events)
        found = tuple(count - before[word] for word, count in without_effect().items())
        assert (answer.taken, answer.without_effect) == (len(events), sum(found))
        return found

    search = raw(1, item_id=None, query="milk", event="search", event_id="s")
    nothing = raw(2, item_id=None, event="page_view", event_id="n")
    unknown = raw(3, item_id="991", event_id="x")
    seen = raw(4, item_id="4", event="impression", event_id="i")
    assert counted(raw(1), search, seen) == (0, 0)
    assert counted(raw(5), nothing, unknown, unknown) == (1, 1)
    assert counted(unknown) == (0, 0)  # sent again
    world.ranker = None
    assert counted(raw(6, item_id="992", event_id="y")) == (0, 0)  # no model to know any item


def test_batch_longer_than_a_history_keeps_its_newest_events_without_times(world: World) -> None:
    kept = Settings().history_events
    count = kept + 3 * CHUNK_EVENTS
    answer = world.intake.take([{"user_id": "u", "item_id": str(k), "event": "view"}
                                for k in range(count)])
    assert answer.taken == world.state().event_count == count
    assert world.state().history.item_ids == tuple(
        str(k) for k in range(count - kept, count))


def test_next_event_is_one_step_from_the_stored_vector(world: World) -> None:
    world.intake.take([raw(number) for number in range(1, 50)])
    assert world.ranker is not None
    world.ranker.steps = 0
    world.intake.take([raw(50)])
    assert world.ranker.steps == 1
    assert world.hidden() == pytest.approx(chain(*range(1, 51)))


def test_bad_events_are_refused_one_by_one(world: World) -> None:
    answer = world.intake.take([raw(1), {"user_id": "u"}, 7, raw(2), EventError("line is broken")])
    assert answer.taken == 2
    assert answer.refused == (
        Refusal(1, "event is missing; give event (short form) or action_name (UBI form)"),
        Refusal(2, "event is 7, must be an object"), Refusal(4, "line is broken"))
    assert world.hidden() == chain(1, 2)


def test_empty_batch_is_answered(world: World) -> None:
    answer = world.intake.take([])
    assert (answer.taken, answer.refused, answer.states, answer.duplicates) == (0, (), {}, 0)


def test_duplicates_are_counted_and_change_nothing(world: World) -> None:
    world.intake.take([raw(1), raw(2)])
    before = world.state()
    answer = world.intake.take([raw(2), raw(1)])
    assert (answer.taken, answer.duplicates) == (2, 2)
    assert answer.states == {"u": before.version}
    assert world.state() is before


def test_event_without_id_is_recognised_by_its_content(world: World) -> None:
    event = {"user_id": "u", "item_id": "1", "event": "click", "ts": NOW}
    world.intake.take([event])
    assert world.intake.take([event]).duplicates == 1
    assert len(world.events.events) == 1


def test_late_event_takes_its_place_and_the_vector_follows(world: World) -> None:
    world.intake.take([raw(1), raw(3)])
    world.intake.take([raw(2)])
    assert world.state().history.item_ids == ("1", "2", "3")
    assert world.hidden() == chain(1, 2, 3)


def test_event_older_than_a_full_window_is_logged_only() -> None:
    world = World(history_events=2)
    world.intake.take([raw(5), raw(6)])
    before = world.state()
    answer = world.intake.take([raw(1)])
    assert (answer.taken, answer.states) == (1, {"u": before.version})
    assert world.state() is before
    assert "u-1" in world.events.events


def test_impression_is_logged_and_not_kept(world: World) -> None:
    answer = world.intake.take([raw(1, event="impression")])
    assert (answer.taken, answer.states) == (1, {"u": -1})
    assert set(world.events.events) == {"u-1"}


def test_without_a_model_events_are_kept_and_the_vector_waits(world: World) -> None:
    ranker, world.ranker = world.ranker, None
    world.intake.take([raw(1)])
    assert world.state().hidden is None
    assert world.state().model_version is None
    world.ranker = ranker
    world.intake.take([raw(2)])
    assert world.hidden() == chain(1, 2)


def test_vector_does_not_outlive_events_it_has_not_seen(world: World) -> None:
    """With the model gone for a while, its last vector would be a step behind."""
    world.intake.take([raw(1)])
    ranker, world.ranker = world.ranker, None
    world.intake.take([raw(2)])
    assert world.state().hidden is None
    world.ranker = ranker
    world.intake.take([raw(3)])
    assert world.hidden() == chain(1, 2, 3)


def test_new_model_steps_the_kept_events_anew(world: World) -> None:
    world.intake.take([raw(1), raw(2)])
    world.ranker = ChainRanker("m2", weight=0.1)
    world.intake.take([raw(3)])
    assert world.hidden() == pytest.approx((0.1 * 1 + 2) * 0.1 + 3)
    assert world.state().model_version == "m2"


def test_model_that_cannot_step_loses_no_event(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(hidden: FloatArray | None, events: History) -> FloatArray:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(world.ranker, "advance", broken)
    assert world.intake.take([raw(1)]).taken == 1
    assert world.state().hidden is None
    assert world.state().history.item_ids == ("1",)


def test_query_log_entry_is_a_search_in_the_history(world: World) -> None:
    answer = world.intake.take_queries([
        {"query_id": "q-1", "user_query": "milk", "client_id": "u", "timestamp": NOW}])
    assert answer.taken == 1
    assert world.state().history.queries == ("milk",)
    assert world.state().history.events == ("search",)
    assert set(world.queries.events) == {"q-1"}
    assert world.events.events == {}


def test_batch_larger_than_a_chunk_is_taken_whole(world: World) -> None:
    numbers = range(1, CHUNK_EVENTS + 2)
    answer = world.intake.take([raw(number) for number in numbers])
    assert answer.taken == CHUNK_EVENTS + 1
    assert world.state().event_count == CHUNK_EVENTS + 1
    assert answer.states == {"u": world.state().version}


class FlakyLog(MemoryEventLog):
    """Answers from a script first: one entry a call, itself a list of outcomes or an error."""

    def __init__(self, *script: Exception | Mapping[str, Exception]) -> None:
        super().__init__()
        self.script: Iterator[Exception | Mapping[str, Exception]] = iter(script)

    def begin_append(self, events: Sequence[Event]) -> Appended:
        return Appended(self.append(events))

    def append(self, events: Sequence[Event]) -> list[Exception | None]:
        step = next(self.script, {})
        if isinstance(step, Exception):
            raise step
        good = [event for event in events if event.event_id not in step]
        super().append(good)
        return [step.get(event.event_id or "") for event in events]


def test_event_that_the_log_refuses_leaves_no_trace_in_the_state(world: World) -> None:
    intake = world.with_stores(world.states, FlakyLog({"u-2": EventError("does not fit")}))
    answer = intake.take([raw(1), raw(2), raw(3, "v")])
    assert (answer.taken, answer.refused) == (2, (Refusal(1, "does not fit"),))
    assert world.state().history.item_ids == ("1",)


def test_overloaded_log_is_asked_again_for_what_is_missing(world: World) -> None:
    busy = {"u-2": UpstreamUnavailable("busy")}
    flaky = FlakyLog(busy, busy)
    assert world.with_stores(world.states, flaky).take([raw(1), raw(2)]).taken == 2
    assert set(flaky.events) == {"u-1", "u-2"}


def test_log_that_stays_overloaded_acknowledges_nothing(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_writer, "PATIENCE_S", 0.0)
    busy = FlakyLog(*[{"u-1": UpstreamUnavailable("busy")}] * 100)
    with pytest.raises(UpstreamUnavailable, match="event log is overloaded; send the events again"):
        world.with_stores(world.states, busy).take([raw(1)])
    assert world.states.get_many(["u"]) == [None]


def test_log_that_may_not_be_written_is_an_error_at_once(world: World) -> None:
    intake = world.with_stores(world.states, FlakyLog({"u-1": UpstreamError("forbidden")}))
    with pytest.raises(UpstreamError, match="forbidden"):
        intake.take([raw(1)])


class FlakyStates(MemoryStateStore):
    """Fails at the given calls: before or after the write took place."""

    def __init__(self, *, fail_reads: int = 0, fail_before: int = 0, fail_after: int = 0) -> None:
        super().__init__()
        self.left = {"read": fail_reads, "before": fail_before, "after": fail_after}

    def _fail(self, moment: str) -> None:
        if self.left[moment]:
            self.left[moment] -= 1
            raise UpstreamUnavailable("node is gone")

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        self._fail("read")
        return super().get_many(user_ids)

    def put_many(self, states: Sequence[UserState]) -> list[UserState | Exception]:
        self._fail("before")
        written = super().put_many(states)
        self._fail("after")
        return written


@pytest.mark.parametrize("moment", ["fail_reads", "fail_before", "fail_after"])
def test_retry_heals_a_failure_at_any_moment(world: World, moment: str) -> None:
    world.states = FlakyStates(**{moment: 1})
    intake = world.with_stores(world.states, world.events)
    batch = [raw(1), raw(2), raw(3, "v")]
    with pytest.raises(UpstreamUnavailable):
        intake.take(batch)
    answer = intake.take(batch)
    assert answer.taken == 3
    assert world.hidden() == chain(1, 2)
    assert world.state().event_count == 2
    assert set(world.events.events) == {"u-1", "u-2", "v-3"}


class RivalStates(MemoryStateStore):
    """Somebody else writes between each of the first reads and the write after it."""

    def __init__(self, rivals: Sequence[Callable[[], object]]) -> None:
        super().__init__()
        self.rivals = iter(rivals)

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        states = super().get_many(user_ids)
        rival = next(self.rivals, None)
        if rival is not None:
            rival()
        return states


def test_overtaken_write_is_done_again_on_the_newer_state(world: World) -> None:
    states = RivalStates([])
    world.states = states
    rival, intake = (world.with_stores(states, world.events) for _ in range(2))
    states.rivals = iter([lambda: rival.take([raw(1)]), None, lambda: rival.take([raw(2)])])
    answer = intake.take([raw(3), raw(9, "v")])
    assert world.state().history.item_ids == ("1", "2", "3")
    assert world.hidden() == chain(1, 2, 3)
    assert answer.states["u"] == world.state().version


def test_event_without_a_time_is_the_latest_whoever_writes_first(world: World) -> None:
    states = RivalStates([])
    world.states = states
    rival, intake = (world.with_stores(states, world.events) for _ in range(2))
    rival.take([raw(1)])

    def overtake() -> None:
        world.now += 0.01  # came later, and is written before
        rival.take([raw(2, ts=None)])

    states.rivals = iter([overtake])
    assert world.ranker is not None
    world.ranker.steps = 0
    intake.take([raw(3, ts=None)])
    assert world.state().history.item_ids == ("1", "2", "3")
    assert world.state().history.ts == (NOW - 999, NOW + 0.01, NOW + 0.01)
    assert world.ranker.steps == 3  # the rival's, one for nothing, and one on from the rival's
    assert world.hidden() == chain(1, 2, 3)


def test_a_clock_that_is_ahead_does_not_move_what_others_did(world: World) -> None:
    world.intake.take([raw(1, ts=NOW + 3600)])
    world.intake.take([raw(2, ts=None)])
    assert world.state().history.item_ids == ("2", "1")
    assert world.state().history.ts == (NOW, NOW + 3600)


def test_rival_with_the_same_event_makes_it_a_duplicate(world: World) -> None:
    states = RivalStates([])
    world.states = states
    rival, intake = (world.with_stores(states, world.events) for _ in range(2))
    states.rivals = iter([lambda: rival.take([raw(1)])])
    answer = intake.take([raw(1)])
    assert (answer.taken, answer.duplicates) == (1, 1)
    assert world.state().event_count == 1


def test_state_that_never_comes_free_is_given_up(
        world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_writer, "PATIENCE_S", 0.05)
    states = RivalStates([])
    world.states = states
    rival, intake = (world.with_stores(states, world.events) for _ in range(2))
    numbers = itertools.count(1)
    busy = itertools.chain.from_iterable(
        [lambda: rival.take([raw(next(numbers))]), None] for _ in itertools.repeat(0))
    states.rivals = busy
    with pytest.raises(UpstreamUnavailable, match="written by too many at once"):
        intake.take([raw(0)])


def test_many_threads_lose_no_event(world: World) -> None:
    """More writers than one user usually has; each waits for its turn and none is lost."""
    numbers = range(1, 81)
    barrier = threading.Barrier(8)

    def write(mine: Sequence[int]) -> None:
        barrier.wait()
        for number in mine:
            world.intake.take([raw(number)])

    threads = [threading.Thread(target=write, args=(numbers[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.state().history.item_ids == tuple(str(number) for number in numbers)
    assert world.hidden() == pytest.approx(chain(*numbers))
    assert world.state().event_count == 80


def test_delivery_in_any_order_gives_the_same_state(world: World) -> None:
    other = World()
    numbers = [3, 1, 2, 5, 4, 5, 1]
    world.intake.take([raw(number) for number in numbers])
    for number in reversed(numbers):
        other.intake.take([raw(number)])
    assert dataclasses.replace(world.state(), hidden=None, version=0) == dataclasses.replace(
        other.state(), hidden=None, version=0)
    assert world.hidden() == other.hidden()
