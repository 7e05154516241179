"""Write-backs of recomputed states, where OpenSearch takes them slowly."""

from __future__ import annotations

import threading

import pytest

from sidecar.records import History, UserState
from sidecar.serving import recompute
from sidecar.serving.recompute import Recomputer
from sidecar.serving.telemetry import Telemetry
from sidecar.stores.in_memory import MemoryStateStore


class Ranker:
    """A model whose hidden state is the number of events."""

    version = "v1"

    def advance(self, hidden, history):
        return len(history)


class Hanging(MemoryStateStore):
    """A store that hangs until it is let go on."""

    def __init__(self):
        super().__init__()
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def put_many(self, states):
        self.is_asked.set()
        assert self.may_answer.wait(20)
        return [None] * len(states)


def state(user_id):
    return UserState(user_id, history=History(("a",), ("click",), (1.0,), (None,), ("e",)),
                     event_count=1, model_version="v0")


@pytest.fixture
def full(monkeypatch):
    """A store that hangs, and a recomputer whose queue is full of write-backs to it."""
    monkeypatch.setattr(recompute, "WAITING", 2)
    states, running = Hanging(), set(threading.enumerate())
    recomputer = Recomputer(states, Telemetry())
    recomputer.fit(state("u0"), Ranker())
    assert states.is_asked.wait(20)
    (writer,) = set(threading.enumerate()) - running
    for number in (1, 2):
        recomputer.fit(state(f"u{number}"), Ranker())
    yield states, recomputer, writer
    states.may_answer.set()


def test_end_keeps_no_search_waiting_for_opensearch(full):
    _, recomputer, _ = full
    closing = threading.Thread(target=recomputer.close)
    closing.start()
    searching = threading.Thread(target=recomputer.fit, args=(state("v"), Ranker()))
    searching.start()
    for thread in (searching, closing):
        thread.join(2)
        assert not thread.is_alive()


def test_writer_ends_though_its_queue_was_full(full):
    states, recomputer, writer = full
    closing = threading.Thread(target=recomputer.close)
    closing.start()
    states.may_answer.set()
    for thread in (closing, writer):
        thread.join(20)
        assert not thread.is_alive()
