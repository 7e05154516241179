"""While nothing gets written few may wait for it; else as many as come."""

from __future__ import annotations

from contextlib import ExitStack, suppress

import pytest

from sidecar.errors import UpstreamUnavailable
from sidecar.serving.standstill import STILL_S, Standstill

MOST = 2
LATE_S = STILL_S + 0.1


@pytest.fixture
def now() -> list[float]:
    """Hold the time, which tests move."""
    return [100.0]


@pytest.fixture
def standstill(now: list[float]) -> Standstill:
    return Standstill(MOST, clock=lambda: now[0])


def test_any_number_may_wait_while_writes_get_through(standstill: Standstill,
                                                      now: list[float]) -> None:
    with ExitStack() as waiting:
        for _ in range(5):
            waiting.enter_context(standstill.wait())
            now[0] += STILL_S
            standstill.moved()
        standstill.check()


def test_few_may_wait_where_nothing_gets_through(standstill: Standstill,
                                                 now: list[float]) -> None:
    with ExitStack() as waiting:
        for _ in range(MOST + 1):
            waiting.enter_context(standstill.wait())
        standstill.check()
        now[0] += LATE_S
        with pytest.raises(UpstreamUnavailable):
            standstill.check()
        with pytest.raises(UpstreamUnavailable), standstill.wait():
            pytest.fail("one more waits")
        standstill.moved()
        with standstill.wait():
            standstill.check()


def test_failure_that_took_long_counts_until_a_write_gets_through(standstill: Standstill,
                                                                  now: list[float]) -> None:
    def fail(seconds: float) -> None:
        with suppress(UpstreamUnavailable), standstill.wait():
            now[0] += seconds
            raise UpstreamUnavailable("broken")

    def crowd() -> None:
        with ExitStack() as waiting:
            for _ in range(MOST + 1):
                waiting.enter_context(standstill.wait())

    fail(0.1)
    crowd()
    fail(LATE_S)
    with pytest.raises(UpstreamUnavailable):
        crowd()
    standstill.moved()
    crowd()
