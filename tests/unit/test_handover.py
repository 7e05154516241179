"""Who may leave at a reload, and when; ages are as gunicorn counts workers."""

from __future__ import annotations

import os

import pytest

from sidecar.web import handover as module
from sidecar.web.handover import Handover


@pytest.fixture
def handover():
    """Workers 1 and 2 are to be replaced by two new ones."""
    made = Handover()
    made.begin(last_age=2, count=2)
    return made


def test_worker_may_go_at_once_where_nothing_is_reloaded():
    assert Handover().may_go(1)


def test_old_workers_go_once_every_new_one_serves(handover):
    assert not handover.may_go(1)
    handover.arrive(4)
    handover.arrive(4)
    assert not handover.may_go(2)
    handover.arrive(3)
    assert handover.may_go(1)
    assert handover.may_go(2)


def test_new_worker_may_always_go(handover):
    assert handover.may_go(3)


@pytest.mark.parametrize(("age", "is_over"), [(3, True), (2, False)])
def test_end_of_a_new_worker_ends_the_handover_and_that_of_an_old_one_does_not(
        handover, age, is_over):
    handover.leave(age)
    assert handover.may_go(1) is is_over


def test_stop_ends_the_handover(handover):
    handover.end()
    assert handover.may_go(1)


def test_stuck_new_workers_are_not_waited_for_for_ever(handover, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", -1.0)
    handover.begin(last_age=2, count=2)
    assert handover.may_go(1)


def test_next_reload_begins_anew(handover):
    handover.arrive(3)
    handover.arrive(4)
    handover.begin(last_age=4, count=1)
    assert not handover.may_go(3)
    handover.arrive(5)
    assert handover.may_go(4)


def test_arrival_in_another_process_is_seen(handover):
    handover.arrive(3)
    pid = os.fork()
    if not pid:
        handover.arrive(4)
        os._exit(0)
    os.waitpid(pid, 0)
    assert handover.may_go(1)
