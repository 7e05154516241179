"""What may wait for OpenSearch holds most of the threads, and leaves the others alone."""

from __future__ import annotations

import threading

import pytest

from sidecar.web.conversation import may_wait
from sidecar.web.places import Places

PATIENCE_S = 2.0


@pytest.fixture
def now() -> list[float]:
    """Hold the time, which tests move."""
    return [100.0]


@pytest.fixture
def places(now: list[float]) -> Places:
    """Give three places, all taken."""
    places = Places(3, PATIENCE_S, clock=lambda: now[0])
    assert all(places.enter() for _ in range(3))
    return places


def test_nobody_waits_where_nothing_has_moved_for_long(places: Places, now: list[float]) -> None:
    now[0] += PATIENCE_S
    assert not places.enter()
    places.leave()
    assert places.enter()


def test_place_that_gets_free_goes_to_who_waits(places: Places) -> None:
    entered: list[bool] = []
    waits = threading.Thread(target=lambda: entered.append(places.enter()))
    waits.start()
    places.leave()
    waits.join(PATIENCE_S / 2)
    assert entered == [True]


@pytest.mark.parametrize(("count", "given"), [(0, 1), (1, 1), (16, 16)])
def test_there_is_a_place_at_least_and_none_too_many(count: int, given: int) -> None:
    places = Places(count, 0.1, least_s=0.005)
    assert [places.enter() for _ in range(given + 1)] == [True] * given + [False]
    places.leave()
    assert places.enter()
    assert not places.enter()


@pytest.mark.parametrize(("target", "waits"), [
    (b"/_personalize/health/live", False), (b"/_personalize/health/live?x", False),
    (b"/metrics", False), (b"/_personalize/health/ready", True), (b"/i/_search", True),
    (b"/metrics/_search", True)])
def test_what_may_wait_for_opensearch_needs_a_place(target: bytes, waits: bool) -> None:
    assert may_wait(target) is waits
