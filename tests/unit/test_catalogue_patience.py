"""How long does loading a catalogue wait for an OpenSearch that is overloaded or away?"""

from __future__ import annotations

import pytest
from opensearchpy.exceptions import TransportError

from sidecar.errors import UpstreamUnavailable
from sidecar.stores import catalogue_versions
from sidecar.stores.catalogue_versions import ATTEMPTS, patiently


@pytest.fixture
def waits_s(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits_s: list[float] = []
    monkeypatch.setattr(catalogue_versions.time, "sleep", waits_s.append)
    return waits_s


def failing(times: int, status: int = 503) -> list[TransportError | str]:
    return [*(TransportError(status, "busy") for _ in range(times)), "answer"]


def taken(outcomes: list[TransportError | str]) -> str:
    outcome = outcomes.pop(0)
    if isinstance(outcome, TransportError):
        raise outcome
    return outcome


def test_busy_node_is_asked_again_with_growing_waits(waits_s: list[float]) -> None:
    outcomes = failing(3)
    assert patiently(lambda: taken(outcomes)) == "answer"
    assert waits_s == sorted(waits_s)
    assert len(waits_s) == 3


def test_node_that_stays_busy_is_given_up_after_its_last_attempt_at_once(
        waits_s: list[float]) -> None:
    outcomes = failing(ATTEMPTS)
    with pytest.raises(UpstreamUnavailable, match="busy"):
        patiently(lambda: taken(outcomes))
    assert outcomes == ["answer"]
    assert len(waits_s) == ATTEMPTS - 1
    assert 90 < sum(waits_s) < 155, "some two minutes"


def test_refusal_is_not_waited_for(waits_s: list[float]) -> None:
    outcomes = failing(1, status=400)
    with pytest.raises(TransportError):
        patiently(lambda: taken(outcomes))
    assert waits_s == []
