"""What a search's answer tells of itself, and what is remembered from one search to the next."""

from __future__ import annotations

import re

from sidecar.records import SkipReason
from sidecar.serving.expiring import MOST, Expiring
from sidecar.serving.outcomes import Outcome
from sidecar.serving.telemetry import Telemetry


def told(outcome: Outcome) -> dict[str, str]:
    return dict(outcome.headers())


def test_outcome_tells_status_state_and_times():
    outcome = Outcome(Telemetry())
    with outcome.stage("upstream"):
        pass
    first = outcome.times_ms["upstream"]
    with outcome.stage("upstream"):
        pass
    assert outcome.times_ms["upstream"] > first, "a stage passed twice adds up"
    assert told(outcome)["X-Personalize-Status"] == "applied"
    assert "X-Personalize-State" not in told(outcome)
    outcome.state = 7
    outcome.skipped(SkipReason.TIMEOUT)
    assert told(outcome)["X-Personalize-Status"] == "skipped; reason=timeout"
    assert told(outcome)["X-Personalize-State"] == "7"
    assert re.fullmatch(
        r"parse;dur=0\.000, upstream;dur=[\d.]+, history;dur=0\.000, rank;dur=0\.000, "
        r"write;dur=0\.000, total;dur=[\d.]+",
        told(outcome)["Server-Timing"])


def test_one_applied_search_of_several_is_applied_else_the_first_reason_counts():
    skipped, applied = Outcome(Telemetry()), Outcome(Telemetry())
    for reason in (SkipReason.SORT, SkipReason.SIZE_ZERO):
        skipped.joined(reason)
        applied.joined(reason)
    part = Outcome(Telemetry())
    part.state, part.times_ms = 3, {"rank": 0.5, "write": 0.25}
    applied.joined(None, part)
    applied.joined(None, part)
    applied.joined(SkipReason.SORT)
    assert skipped.reason is SkipReason.SORT
    assert (applied.reason, applied.state) == (None, 3)
    assert applied.times_ms == {"rank": 1.0, "write": 0.5}, "each search's times add up"


def test_memory_forgets_and_never_grows():
    memory: Expiring[int] = Expiring(60)
    memory.put("a", 1)
    assert (memory.get("a"), memory.get("b")) == (1, None)
    for number in range(MOST + 1):
        memory.put(str(number), number)
    assert memory.get(str(MOST)) == MOST
    assert memory.get("a") is None
    brief: Expiring[int] = Expiring(-1)
    brief.put("a", 1)
    assert brief.get("a") is None
