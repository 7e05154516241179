"""The main path's middle, with a store and a ranker whose behaviour each test chooses."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sidecar.errors import Skip, UpstreamTimeout, UpstreamUnavailable, VersionConflict
from sidecar.records import (
    NEVER_WRITTEN,
    Candidates,
    FloatArray,
    History,
    QueryContext,
    Ranking,
    SkipReason,
    UserState,
)
from sidecar.serving import pressure
from sidecar.serving.personalizer import Personalizer, Ticket
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryStateStore

USER = "shopper-4711"
HISTORY = History(("a",), ("click",), (1.0,), (None,), ("e1",))
CANDIDATES = Candidates(("a", "b", "c"), np.array([3.0, 2.0, 1.0], np.float32))


class Read:
    """A read whose answer is computed when it is asked for."""

    def __init__(self, answer: Callable[[float], UserState | None]) -> None:
        self.answer = answer
        self.is_cancelled = False

    def result(self, deadline: float) -> UserState | None:
        return self.answer(deadline)

    def comes_before(self, exchange: object) -> bool:
        return True

    def cancel(self) -> None:
        self.is_cancelled = True


class States:
    """Hands out the given answers in turn, the last one for ever; records what is written."""

    def __init__(self, *answers: Callable[[float], UserState | None] | UserState | None) -> None:
        self.answers = list(answers)
        self.reads: list[Read] = []
        self.written: list[UserState] = []
        self.is_written = threading.Event()

    def begin_get(self, user_id: str) -> Read:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.reads.append(Read(answer if callable(answer) else lambda deadline: answer))
        return self.reads[-1]

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        raise NotImplementedError

    def put_many(self, states: Sequence[UserState]) -> list[UserState | Exception]:
        self.written.extend(states)
        self.is_written.set()
        return [VersionConflict("overtaken") for _ in states]

    def delete(self, user_id: str) -> bool:
        raise NotImplementedError


class Reversing:
    """A ranker that turns the engine's order round."""

    version = "v1"
    items: list[str] = []  # noqa: RUF012 (never written)

    def __init__(self) -> None:
        self.states: list[UserState | None] = []
        self.prepared: list[UserState] = []
        self.advanced = 0

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        self.states.append(state)
        count = len(candidates)
        return Ranking(np.arange(count)[::-1], np.arange(count, dtype=np.float32),
                       state_version=-1 if state is None else state.version,
                       model_version=self.version)

    def prepare(self, state: UserState) -> None:
        self.prepared.append(state)

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        self.advanced += 1
        return np.full((1, 4), len(events), np.float32)

    def warm_up(self) -> None:
        pass


def state(version: int = 7, model: str = "v1", history: History = HISTORY) -> UserState:
    return UserState(USER, history, np.zeros((1, 4), np.float32), model, 1, version, 1)


def context(user_id: str | None = USER, min_state: int | None = None) -> QueryContext:
    return QueryContext(user_id, "milk", now=10.0, min_state=min_state)


def personalizer(states: States, ranker: Reversing | None = None,
                 settings: Settings | None = None) -> Personalizer:
    chosen = ranker if ranker is not None else Reversing()
    return Personalizer(settings or Settings(), states, lambda: chosen, Telemetry())


def soon(seconds: float = 2.0) -> float:
    return time.monotonic() + seconds


def skip_of(chosen: Personalizer, asked: QueryContext, deadline: float) -> SkipReason:
    with pytest.raises(Skip) as caught:
        chosen.order(chosen.begin(asked), CANDIDATES, deadline)
    return caught.value.reason


def received(chosen: Personalizer) -> Ticket:
    """Begin a search whose history comes while OpenSearch searches."""
    ticket = chosen.begin(context())
    chosen.receive_before(ticket, None)
    return ticket


def test_known_user_gets_the_rankers_order():
    chosen = personalizer(States(state()))
    ticket = chosen.begin(context())
    ranking = chosen.order(ticket, CANDIDATES, soon())
    assert ranking.order.tolist() == [2, 1, 0]
    assert ticket.state_version == ranking.state_version == 7
    assert ticket.times_ms["rank"] > 0.0


def test_history_read_is_sent_before_the_hits_are_there():
    """That is what lets it run beside the upstream search."""
    states = States(state())
    personalizer(states).begin(context())
    assert len(states.reads) == 1


@pytest.mark.parametrize(("states", "asked", "reason"), [
    (States(state()), context(user_id=None), SkipReason.ANONYMOUS),
    (States(None), context(), SkipReason.NO_HISTORY),
    (States(state(history=History())), context(), SkipReason.NO_HISTORY),
])
def test_search_without_history_keeps_engine_order(states, asked, reason):
    assert skip_of(personalizer(states), asked, soon()) is reason


def test_search_of_a_stranger_is_not_read_for():
    states = States(state())
    skip_of(personalizer(states), context(user_id=None), soon())
    assert states.reads == []


@pytest.mark.parametrize("asked", [context(user_id=None), context()])
def test_strangers_are_ranked_where_the_operator_says_so(asked):
    ranker = Reversing()
    chosen = personalizer(States(None), ranker, Settings(without_history="model"))
    assert chosen.order(chosen.begin(asked), CANDIDATES, soon()).order.tolist() == [2, 1, 0]
    assert ranker.states == [None]


def test_missing_model_is_named_and_nothing_is_read():
    states = States(state())
    without = Personalizer(Settings(), states, lambda: None, Telemetry())
    assert skip_of(without, context(), soon()) is SkipReason.NO_MODEL
    assert states.reads == []


def test_gated_model_is_not_asked_again_until_it_is_replaced():
    """The gate is a release's, not a search's: later searches need not fetch a window for it."""
    rankers = [Reversing()]
    states = States(state())
    chosen = Personalizer(Settings(), states, lambda: rankers[0], Telemetry())
    rankers[0].rank = refuses(SkipReason.GATED)
    assert skip_of(chosen, context(), soon()) is SkipReason.GATED
    assert chosen.begin(context()).refusal is SkipReason.GATED
    assert len(states.reads) == 1
    rankers[0] = Reversing()
    chosen.order(chosen.begin(context()), CANDIDATES, soon())


def refuses(reason):
    def rank(*_):
        raise Skip(reason)
    return rank


def test_no_hits_are_no_ranking():
    chosen = personalizer(States(state()))
    with pytest.raises(Skip, match="no_hits"):
        chosen.order(chosen.begin(context()), Candidates((), np.zeros(0, np.float32)), soon())


def fails_with(error: Exception) -> Callable[[float], UserState | None]:
    def answer(deadline: float) -> UserState | None:
        raise error
    return answer


def test_ranker_prepares_for_a_history_while_opensearch_searches():
    ranker = Reversing()
    received(personalizer(States(state()), ranker))
    assert [(found.version, found.history) for found in ranker.prepared] == [(7, HISTORY)]


def test_history_that_is_to_be_recomputed_is_not_prepared_for():
    ranker = Reversing()
    received(personalizer(States(state(model="v0")), ranker))
    assert not ranker.prepared


def test_ranker_that_cannot_prepare_may_still_rank():
    ranker = Reversing()
    ranker.prepare = lambda state: {}[state]
    chosen = personalizer(States(state()), ranker)
    assert chosen.order(received(chosen), CANDIDATES, soon()).order.tolist() == [2, 1, 0]


@pytest.mark.parametrize(("error", "reason"), [
    (UpstreamTimeout("late"), SkipReason.TIMEOUT),
    (UpstreamUnavailable("gone"), SkipReason.STATE_UNAVAILABLE),
    (RuntimeError("a bug"), SkipReason.RANKING_ERROR),
])
def test_failed_history_read_is_a_skip(error, reason):
    assert skip_of(personalizer(States(fails_with(error))), context(), soon()) is reason


def test_slow_ranking_costs_its_deadline_and_no_more():
    ranker = Reversing()
    release = threading.Event()
    ranker.rank = lambda candidates, state, context: release.wait(60)
    assert skip_of(personalizer(States(state()), ranker), context(),
                   soon(0.05)) is SkipReason.TIMEOUT  # while it still ranks
    release.set()


def test_quick_ranker_ranks_in_the_requests_own_thread_until_it_is_slow_once():
    ranker, threads = Reversing(), []
    usual, pause = ranker.rank, [0.0]

    def rank(*args):
        threads.append(threading.current_thread())
        time.sleep(pause[0])
        return usual(*args)

    ranker.rank = rank
    chosen = personalizer(States(state()), ranker)
    for _ in range(20):
        chosen.order(chosen.begin(context()), CANDIDATES, soon())
    here = [thread is threading.current_thread() for thread in threads]
    assert here == [False] * 8 + [True] * 12
    pause[0] = 0.2
    chosen.order(chosen.begin(context()), CANDIDATES, soon(1.5))
    assert skip_of(chosen, context(), soon(0.1)) is SkipReason.TIMEOUT
    assert threads[-1] is not threading.current_thread()


def test_ranking_in_the_requests_thread_that_comes_too_late_is_a_timeout(monkeypatch):
    ranker = Reversing()
    asked = personalizer(States(state()), ranker)
    for _ in range(20):
        asked.order(asked.begin(context()), CANDIDATES, soon())
    quick, slow = ranker.rank, threading.Event()

    def late(*given):
        slow.wait(0.05)
        return quick(*given)

    monkeypatch.setattr(ranker, "rank", late)
    assert skip_of(asked, context(), soon(0.04)) is SkipReason.TIMEOUT


def test_history_that_comes_first_is_taken_in_while_opensearch_searches():
    states = States(state())
    chosen = personalizer(states)
    ticket = received(chosen)
    states.reads[0].answer = lambda deadline: pytest.fail("asked for again")
    assert chosen.order(ticket, CANDIDATES, soon()).state_version == 7


@pytest.mark.parametrize(("error", "reason"), [
    (UpstreamTimeout("late"), SkipReason.TIMEOUT),
    (UpstreamUnavailable("gone"), SkipReason.STATE_UNAVAILABLE),
    (RuntimeError("a bug"), SkipReason.RANKING_ERROR)])
def test_history_that_breaks_off_while_opensearch_searches_is_a_skip(error, reason):
    def fail(deadline):
        raise error

    chosen = personalizer(States(fail))
    ticket = received(chosen)
    with pytest.raises(Skip) as caught:
        chosen.order(ticket, CANDIDATES, soon())
    assert caught.value.reason is reason


def test_slow_ranking_does_not_hold_other_searches():
    ranker = Reversing()
    usual, release = ranker.rank, threading.Event()
    ranker.rank = lambda candidates, state, context: release.wait(5)
    chosen = personalizer(States(state()), ranker)
    skip_of(chosen, context(), soon(0.02))
    ranker.rank = usual
    assert chosen.order(chosen.begin(context()), CANDIDATES, soon()).order.tolist() == [2, 1, 0]
    release.set()


@pytest.mark.parametrize("order", [[0, 1], [0, 1, 1], [0, 1, 3], [-1, 0, 1]])
def test_order_that_is_no_permutation_is_refused(order):
    """A ranker's bug may cost the personal order; it must never lose or repeat a hit."""
    ranker = Reversing()
    ranker.rank = lambda *_: Ranking(np.array(order), np.zeros(3, np.float32))
    assert skip_of(personalizer(States(state()), ranker), context(),
                   soon()) is SkipReason.RANKING_ERROR


def test_ranking_error_says_neither_who_nor_what(caplog):
    ranker = Reversing()
    ranker.rank = lambda *_: 1 / 0
    with caplog.at_level(logging.INFO, "sidecar"):
        skip_of(personalizer(States(state()), ranker), context(), soon())
    assert [record.message for record in caplog.records] == ["search not personalised"]
    assert caplog.records[0].reason == "ranking_error"
    assert caplog.records[0].exc_info is not None
    assert USER not in caplog.text
    assert "milk" not in caplog.text


def test_many_faults_make_one_line_a_second(caplog):
    chosen = personalizer(States(fails_with(UpstreamUnavailable("gone"))))
    began = time.monotonic()
    for _ in range(50):
        skip_of(chosen, context(), soon())
    assert 1 <= len(caplog.records) <= 1 + (time.monotonic() - began)


def test_demanded_state_is_waited_for():
    states = States(None, state(version=3), state(version=8))
    chosen = personalizer(states)
    ranking = chosen.order(chosen.begin(context(min_state=8)), CANDIDATES, soon())
    assert ranking.state_version == 8
    assert len(states.reads) == 3


def test_demanded_state_that_never_comes_is_a_skip():
    assert skip_of(personalizer(States(state(version=3))), context(min_state=4),
                   soon(0.05)) is SkipReason.STATE_BEHIND


def test_version_that_events_answer_where_nothing_is_kept_demands_nothing():
    assert skip_of(personalizer(States(None)), context(min_state=NEVER_WRITTEN),
                   soon()) is SkipReason.NO_HISTORY


def test_searches_beyond_the_limit_are_not_personalised():
    chosen = personalizer(States(state()), settings=Settings(max_searches=2))
    first, second = chosen.begin(context()), chosen.begin(context())
    assert skip_of(chosen, context(), soon()) is SkipReason.OVERLOAD
    chosen.order(first, CANDIDATES, soon())
    second.cancel()
    chosen.order(chosen.begin(context()), CANDIDATES, soon())


def test_searches_are_not_personalised_while_requests_wait_for_threads(monkeypatch):
    chosen = personalizer(States(state()), settings=Settings(timeout_ms=150))
    chosen.pressure.waited(0.7)  # one late request is no rush
    chosen.order(chosen.begin(context()), CANDIDATES, soon())
    for _ in range(50):
        chosen.pressure.waited(0.04)
    assert skip_of(chosen, context(), soon()) is SkipReason.OVERLOAD
    for _ in range(50):
        chosen.pressure.waited(0.01)
    chosen.order(chosen.begin(context()), CANDIDATES, soon())
    for _ in range(50):
        chosen.pressure.waited(0.2)
    monkeypatch.setattr(pressure, "FRESH_S", 0.0)  # the rush was long ago
    chosen.order(chosen.begin(context()), CANDIDATES, soon())


def test_slots_come_back_whatever_happens():
    chosen = personalizer(States(None), settings=Settings(max_searches=1))
    for _ in range(3):
        assert skip_of(chosen, context(), soon()) is SkipReason.NO_HISTORY
    chosen.begin(context())  # forgotten by its holder
    assert skip_of(chosen, context(), soon()) is SkipReason.NO_HISTORY


def test_cancelled_search_cancels_its_read():
    states = States(state())
    ticket = personalizer(states).begin(context())
    ticket.cancel()
    ticket.cancel()
    assert states.reads[0].is_cancelled


def test_state_of_another_model_is_recomputed_once_and_written_back():
    states, ranker = States(state(model="v0")), Reversing()
    chosen = personalizer(states, ranker)
    for _ in range(3):
        chosen.order(chosen.begin(context()), CANDIDATES, soon())
    assert ranker.advanced == 1
    assert all(s is not None and s.model_version == "v1" for s in ranker.states)
    assert states.is_written.wait(5)
    assert [s.version for s in states.written] == [7]


def test_state_with_another_event_is_recomputed_again():
    grown = History(("a", "b"), ("click",) * 2, (1.0, 2.0), (None,) * 2, ("e1", "e2"))
    states, ranker = States(state(7, "v0"), state(8, "v0", grown)), Reversing()
    chosen = personalizer(states, ranker)
    for _ in range(2):
        chosen.order(chosen.begin(context()), CANDIDATES, soon())
    assert ranker.advanced == 2


class WrittenBack(MemoryStateStore):
    """Counts writes, and waits for them."""

    def __init__(self):
        super().__init__()
        self.writes = 0

    def put_many(self, states):
        written = super().put_many(states)
        self.writes += 1
        return written

    def wait_for(self, writes):
        until = time.monotonic() + 20
        while self.writes < writes and time.monotonic() < until:
            time.sleep(0.01)


def test_two_models_over_one_index_of_states_recompute_and_write_once_each():
    """Each finds the other's hidden state, under a version that the other's write-back raised."""
    states = WrittenBack()
    states.put_many([dataclasses.replace(state(model="v0"), version=NEVER_WRITTEN)])
    running = set(threading.enumerate())
    rankers = [Reversing(), Reversing()]
    rankers[1].version = "v2"
    sidecars = [personalizer(states, ranker) for ranker in rankers]
    for turn in range(4):
        for place, sidecar in enumerate(sidecars):
            sidecar.order(sidecar.begin(context()), CANDIDATES, soon())
            if turn == 0:
                states.wait_for(writes=2 + place)  # the first is the test's
    for sidecar in sidecars:
        sidecar.close()
    for thread in set(threading.enumerate()) - running:
        thread.join(20)
    assert [ranker.advanced for ranker in rankers] == [1, 1]
    assert states.writes == 3
    for ranker in rankers:
        assert all(seen.model_version == ranker.version for seen in ranker.states)
