"""What is no search may hold most of the threads, and waits for a moment where they are taken."""

from __future__ import annotations

import threading

import pytest

from sidecar.web.passing_room import WAIT_S, PassingRoom

PLACES = 3


@pytest.fixture
def now() -> list[float]:
    """Hold the time, which tests move."""
    return [100.0]


@pytest.fixture
def room(now: list[float]) -> PassingRoom:
    """Give a room of three places, all taken."""
    room = PassingRoom(4, clock=lambda: now[0])
    assert all(room.enter() for _ in range(PLACES))
    return room


def test_nobody_waits_where_nothing_has_moved_for_long(room: PassingRoom,
                                                       now: list[float]) -> None:
    now[0] += WAIT_S
    assert not room.enter()
    room.leave()
    assert room.enter()


def test_place_that_gets_free_goes_to_who_waits(room: PassingRoom) -> None:
    entered: list[bool] = []
    waits = threading.Thread(target=lambda: entered.append(room.enter()))
    waits.start()
    room.leave()
    waits.join(WAIT_S / 2)
    assert entered == [True]


def test_one_thread_has_a_place() -> None:
    assert PassingRoom(1).enter()
