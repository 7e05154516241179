"""New events are counted on top of a model's counts, as an evaluation would have counted them."""

from __future__ import annotations

import time

import numpy as np
import pytest

from sidecar.errors import UpstreamUnavailable
from sidecar.ranking.kinds import strength
from sidecar.ranking.statistics import ItemStatistics
from sidecar.records import ItemEvent
from sidecar.serving import popularity as popularity_module
from sidecar.serving.instants import PERIOD_S, seconds_to_next
from sidecar.serving.popularity import PATIENCE_S, PopularityRefresh
from sidecar.stores.changes import Hit
from sidecar.stores.event_changes import _item_event
from tests.shops import LEARNT, fresh_ranker

DAY_S = 86_400.0


class Log:
    """Events of which each reader reads those of an instant on, once."""

    def __init__(self):
        self.events = []
        self.since = []
        self.reader = None  # another than one of the events

    def open(self, since):
        self.since.append(since)
        return self.reader or Reader(self, since)


class Reader:
    def __init__(self, log, since):
        self.log, self.since, self.read = log, since, 0

    def poll(self):
        new, self.read = self.log.events[self.read:], len(self.log.events)
        yield [event for event in new if event.ts >= self.since]


@pytest.fixture
def log():
    return Log()


@pytest.fixture
def ranker():
    return fresh_ranker()


@pytest.fixture
def popularity(log, ranker):
    return PopularityRefresh(log.open, lambda: ranker, refresh_s=60.0)


def test_new_events_are_counted_as_in_an_evaluation(log, ranker, popularity):
    clock = ranker.knowledge.statistics.clock
    ids = ranker.items.ids
    log.events = [ItemEvent(ids[3], "purchase", clock + DAY_S),
                  ItemEvent(ids[3], "view", clock + 2 * DAY_S),
                  ItemEvent("unknown", "purchase", clock + 2 * DAY_S),
                  ItemEvent(ids[4], "purchase", clock - DAY_S)]
    expected = ranker.knowledge.statistics.copy()
    expected.advance(clock + 2 * DAY_S, np.array([3, 3]), np.array([1, 2]) * DAY_S + clock,
                     np.array([strength("purchase"), strength("view")]), np.array([True, False]))
    assert popularity.refresh() == 2
    found, later = ranker.knowledge.statistics, clock + 10 * DAY_S
    for name, values in expected.at(later).items():
        np.testing.assert_allclose(found.at(later)[name], values, rtol=1e-6, err_msg=name)


def test_event_in_another_systems_words_counts_as_the_same(log, ranker, popularity):
    """Only its weak half had been counted: a shop's best sellers fell."""
    log.events = [ItemEvent(ranker.items.ids[3], word, LEARNT + DAY_S)
                  for word in ("purchase", "Purchase", "transaction")]
    before, now = ranker.knowledge.statistics, LEARNT + 2 * DAY_S
    assert popularity.refresh() == 3
    more = ranker.knowledge.statistics.at(now)["strong"][3] - before.at(now)["strong"][3]
    assert (more > 2.5 * 0.5).all()


def test_event_is_counted_once(log, ranker, popularity):
    log.events = [ItemEvent(ranker.items.ids[0], "purchase", LEARNT + 300 * DAY_S)]
    assert popularity.refresh() == 1
    after = ranker.knowledge.statistics
    assert popularity.refresh() == 0
    assert ranker.knowledge.statistics is after


def test_event_of_a_clock_that_is_years_ahead_counts_for_nothing(log, ranker, popularity):
    """Other programs write to the log too, as browsers tell them."""
    before, item = ranker.knowledge.statistics, ranker.items.ids[3]
    log.events = [ItemEvent(item, "purchase", time.time() + 20 * 365 * DAY_S)]
    assert popularity.refresh() == 0
    assert ranker.knowledge.statistics is before
    log.events.append(ItemEvent(item, "purchase", time.time()))
    assert popularity.refresh() == 1
    now = ranker.knowledge.statistics.at(time.time())["strong"][3]
    assert (now > before.at(time.time())["strong"][3]).all()


def test_search_under_way_keeps_the_counts_it_began_with(log, ranker, popularity):
    before = ranker.knowledge
    strong = before.statistics.strong.copy()
    log.events = [ItemEvent(ranker.items.ids[0], "purchase", LEARNT + 300 * DAY_S)]
    popularity.refresh()
    assert ranker.knowledge is not before
    assert np.array_equal(before.statistics.strong, strong)


class Breaking:
    """Pages, and then the index cannot be asked."""

    def __init__(self, *pages):
        self.pages = pages

    def poll(self):
        yield from self.pages
        raise UpstreamUnavailable("gone")


def test_pages_of_one_look_are_counted_in_one_copy(ranker, monkeypatch):
    """A copy of a million products' counts is 57 MB."""
    copies, copy = [], ItemStatistics.copy
    monkeypatch.setattr(ItemStatistics, "copy", lambda self: copies.append(1) or copy(self))
    event = ItemEvent(ranker.items.ids[3], "view", LEARNT + DAY_S)
    reader = Breaking([event], [], [event], [event])
    popularity = PopularityRefresh(lambda since: reader, lambda: ranker)
    before = ranker.knowledge.statistics.at(LEARNT + DAY_S)["weak"][3, 1]
    with pytest.raises(UpstreamUnavailable):
        popularity.refresh()
    assert len(copies) == 1
    after = ranker.knowledge.statistics.at(LEARNT + DAY_S)["weak"][3, 1]
    assert after - before == pytest.approx(3 * strength("view"), rel=1e-5)


def test_new_model_counts_from_its_own_instant(log, ranker):
    others = [fresh_ranker(), ranker]
    popularity = PopularityRefresh(log.open, lambda: others[0])
    popularity.refresh()
    others.pop(0)
    popularity.refresh()
    assert log.since == [ranker.knowledge.statistics.clock] * 2


@pytest.fixture
def swap(log):
    """A model in use, popularity that follows it, and a model to come."""
    in_use = [fresh_ranker()]
    popularity = PopularityRefresh(log.open, lambda: in_use[0])
    popularity.refresh()
    return in_use, popularity, fresh_ranker()


def bought(ranker):
    return float(ranker.knowledge.statistics.at(LEARNT + DAY_S)["strong"][3, 0])


def test_model_to_come_has_the_counts_before_it_is_switched_in(log, swap):
    in_use, popularity, new = swap
    event = ItemEvent(new.items.ids[3], "purchase", LEARNT + DAY_S)
    log.events = [event] * 50
    before = bought(new)
    popularity.prepare(new)
    assert bought(new) == pytest.approx(before + 50, rel=1e-4)
    popularity.refresh()  # the one in use is not forgotten meanwhile
    assert bought(in_use[0]) == pytest.approx(before + 50, rel=1e-4)
    in_use[0] = new
    assert popularity.refresh() == 0
    log.events = [*log.events, event]
    assert popularity.refresh() == 1
    assert len(log.since) == 2


def test_swap_is_not_held_up_and_no_page_is_lost_or_counted_twice(log, swap, monkeypatch):
    in_use, popularity, new = swap
    page = [ItemEvent(new.items.ids[3], "purchase", LEARNT + DAY_S)]
    before, log.reader = bought(new), Paged([page] * 4)
    clock = iter([0.0, 0.0, 0.0, PATIENCE_S + 1.0])
    with monkeypatch.context() as patched:
        patched.setattr(popularity_module.time, "monotonic", lambda: next(clock))
        popularity.prepare(new)
    assert bought(new) == pytest.approx(before + 2, rel=1e-4)
    in_use[0] = new
    assert popularity.refresh() == 2
    assert bought(new) == pytest.approx(before + 4, rel=1e-4)


def test_events_that_cannot_be_read_keep_no_model_waiting(log, swap, caplog):
    _, popularity, new = swap
    log.reader = Breaking()
    popularity.prepare(new)
    assert "popularity not prepared" in caplog.text


class Paged:
    """A page counts as read once the next is asked for."""

    def __init__(self, pages):
        self.pages = pages

    def poll(self):
        while self.pages:
            yield self.pages[0]
            self.pages = self.pages[1:]


def test_workers_that_started_apart_look_at_the_same_instants():
    """Apart by up to ten seconds, they had shown pages of two orders while others bought."""
    started = np.random.default_rng(0).uniform(1_800_000_000, 1_800_000_000 + PERIOD_S, 20)
    looks = {round(now + seconds_to_next(now, PERIOD_S), 3) for now in started}
    assert looks == {1_800_000_000 + PERIOD_S}


def test_without_a_model_nothing_is_read(log):
    assert PopularityRefresh(log.open, lambda: None).refresh() == 0
    assert log.since == []


@pytest.mark.parametrize("source", [
    {}, {"action_name": "click", "timestamp": "2026-01-01T00:00:00Z"},
    {"action_name": "click", "timestamp": "soon",
     "event_attributes": {"object": {"object_id": "a"}}},
    {"action_name": None, "timestamp": 0, "event_attributes": {"object": {"object_id": "a"}}},
    {"action_name": "click", "event_attributes": {"object": {"object_id": "a"}}},
    {"action_name": "click", "timestamp": 0, "event_attributes": {"object": "a"}}])
def test_documents_that_say_nothing_of_an_item_are_left_out(source):
    assert _item_event(Hit("1", source, (1,))) is None


@pytest.mark.parametrize(("written", "ts"), [
    ("2026-01-01T00:00:00.500Z", 1767225600.5), (1767225600500, 1767225600.5)])
def test_times_are_read_as_ubi_writes_them(written, ts):
    source = {"action_name": "click", "timestamp": written,
              "event_attributes": {"object": {"object_id": 7}}}
    assert _item_event(Hit("1", source, (1,))) == ItemEvent("7", "click", ts)
