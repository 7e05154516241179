"""Shown orders around the end of their log: written, or counted as dropped."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from sidecar.settings import Settings
from sidecar.stores import query_log
from sidecar.stores.documents import BulkItem
from sidecar.stores.query_log import QueryLog

SETTINGS = Settings()


class Index:
    """The index of queries; answers once ``may_answer`` is set, as it is at first."""

    def __init__(self):
        self.written = 0
        self.is_asked, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def begin_bulk(self, lines, count):
        self.is_asked.set()
        assert self.may_answer.wait(20)
        self.written += count
        return SimpleNamespace(result=lambda: [BulkItem(201)] * count)


@pytest.fixture
def index(monkeypatch):
    made = Index()
    monkeypatch.setattr(query_log, "GATHER_S", 0.0)
    monkeypatch.setattr(query_log, "Documents", lambda *_: made)
    return made


def test_entry_that_comes_after_the_end_is_counted_as_dropped(index):
    told = []
    log = QueryLog(SETTINGS, None, told.append)
    log.append({"query_id": "1"})
    log.close()
    log.append({"query_id": "2"})
    assert (index.written, log.dropped, told) == (1, 1, [1])


def test_log_that_was_never_used_takes_nothing_after_its_end(index):
    log = QueryLog(SETTINGS, None)
    log.close()
    log.append({"query_id": "1"})
    log.close()
    assert (index.written, log.dropped) == (0, 1)


@pytest.mark.parametrize("is_full", [True, False])
def test_what_is_not_written_in_time_is_counted_as_dropped(index, monkeypatch, is_full):
    monkeypatch.setattr(query_log, "CLOSE_S", 0.05)
    monkeypatch.setattr(query_log, "WAITING", 2 if is_full else 3)
    index.may_answer.clear()
    log, running = QueryLog(SETTINGS, None), set(threading.enumerate())
    log.append({"query_id": "1"})
    assert index.is_asked.wait(20)
    (writer,) = set(threading.enumerate()) - running
    for number in (2, 3):
        log.append({"query_id": str(number)})
    log.close()
    assert log.dropped == 2
    index.may_answer.set()
    writer.join(20)
    assert not writer.is_alive()
    assert (index.written, log.dropped) == (1, 2)


def test_each_entry_is_written_or_counted_whoever_closes_meanwhile(index):
    for _ in range(20):
        index.written = 0
        log = QueryLog(SETTINGS, None)

        def fill(log=log):
            for number in range(50):
                log.append({"query_id": str(number)})

        filling = [threading.Thread(target=fill) for _ in range(3)]
        for thread in filling:
            thread.start()
        log.close()
        for thread in filling:
            thread.join(20)
        assert index.written + log.dropped == 150
