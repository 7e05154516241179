"""The encoder follows a grown history: a step an event, many users at once where it can."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sidecar.records import (
    Candidates,
    FloatArray,
    History,
    QueryContext,
    Ranking,
    UserState,
)
from sidecar.serving.histories import Growth
from sidecar.serving.models import Items
from sidecar.serving.stepping import step


class Summing:
    """Adds up item numbers; item 13 is more than it can take."""

    items: Items
    version = "m1"

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        if "13" in events.item_ids:
            raise ValueError("no such item")
        start = 0.0 if hidden is None else float(hidden[0, 0])
        return np.array([[start + sum(int(item or 0) for item in events.item_ids)]], np.float32)

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        raise NotImplementedError

    def prepare(self, state: UserState) -> None:
        raise NotImplementedError

    def warm_up(self) -> None:
        raise NotImplementedError


class SummingMany(Summing):
    """The same for many users at once; counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def advance_many(self, hiddens: Sequence[FloatArray | None],
                     histories: Sequence[History]) -> list[FloatArray]:
        self.calls += 1
        return [self.advance(hidden, events)
                for hidden, events in zip(hiddens, histories, strict=True)]


def history(*items: int) -> History:
    count = len(items)
    return History(tuple(map(str, items)), ("view",) * count, tuple(map(float, range(count))),
                   (None,) * count, tuple(f"e{item}" for item in items))


def state(value: float | None, version: str | None = "m1") -> UserState:
    hidden = None if value is None else np.array([[value]], np.float32)
    return UserState("u", history(1), hidden, version, 1)


def grown(appended: History | None, *kept: int) -> Growth:
    return Growth(history(*kept), appended, 1, frozenset())


STATES = [state(100.0), state(100.0), state(100.0, "m0"), state(None, None)]
GROWTHS = [grown(history(5), 1, 5), grown(None, 1, 5), grown(history(5), 1, 5),
           grown(history(5), 1, 5)]
EXPECTED = [105.0, 6.0, 6.0, 6.0]  # on from there; late; another model's; none yet


@pytest.mark.parametrize("ranker", [Summing(), SummingMany()], ids=["one by one", "many"])
def test_hidden_goes_on_or_starts_over(ranker: Summing) -> None:
    stepped = step(ranker, STATES, GROWTHS)
    assert [float(after.hidden[0, 0]) for after in stepped if after.hidden is not None] == EXPECTED
    assert all(after.model_version == "m1" and after.event_count == 2 for after in stepped)
    assert all(after.history == history(1, 5) for after in stepped)


def test_many_users_are_one_call() -> None:
    ranker = SummingMany()
    step(ranker, STATES, GROWTHS)
    assert ranker.calls == 1


def test_one_user_needs_no_batch() -> None:
    ranker = SummingMany()
    step(ranker, STATES[:1], GROWTHS[:1])
    assert ranker.calls == 0


@pytest.mark.parametrize("ranker", [Summing(), SummingMany()], ids=["one by one", "many"])
def test_user_that_the_model_cannot_step_waits_and_the_others_do_not(ranker: Summing) -> None:
    broken, good = step(ranker, STATES[:2], [grown(history(13), 1, 13), GROWTHS[0]])
    assert (broken.hidden, broken.model_version) == (None, None)
    assert broken.history == history(1, 13)
    assert good.hidden is not None
    assert float(good.hidden[0, 0]) == 105.0


def test_without_a_model_hidden_waits() -> None:
    assert [after.hidden for after in step(None, STATES, GROWTHS)] == [None] * 4


def test_nobody_to_step() -> None:
    assert step(SummingMany(), [], []) == []
