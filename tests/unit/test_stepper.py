"""Hidden states are stepped alike one by one and many at once, event by event and all together."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sidecar.ranking.encoder import CELLS, Encoder, EncoderConfig, KindCodes
from sidecar.ranking.items import ItemTable
from sidecar.ranking.stepper import Stepper
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import FloatArray, History

KINDS = KindCodes(("view", "purchase"))
ROWS = [{"item_id": f"i{n}", "title": f"milk {word}", "brand": word, "categories": [word]}
        for n, word in enumerate(("white", "brown", "oat", "soy", "goat", "rice"))]


@pytest.fixture(scope="module")
def items() -> ItemTable:
    table = ItemTable(Vocabulary.fit(ROWS), width=8)
    table.upsert(ROWS)
    table.vectors[:] = np.random.default_rng(1).normal(size=table.vectors.shape)
    return table


@pytest.fixture(params=CELLS)
def stepper(request: pytest.FixtureRequest, items: ItemTable) -> Stepper:
    torch.manual_seed(0)
    config = EncoderConfig(items=6, brands=6, categories=6, width=8, hidden=5, layers=2,
                           cell=request.param)
    return Stepper(Encoder(config).eval(), items, KINDS)


def history(*numbers: int, start: float = 1.5e9) -> History:
    """Events about items by number; 9 is an item that nobody knows, 8 a search."""
    return History(
        tuple(None if n == 8 else f"i{n}" for n in numbers),
        tuple("search" if n == 8 else "purchase" if n % 2 else "view" for n in numbers),
        tuple(start + 40_000.0 * k * k for k in range(len(numbers))),
        tuple("oat milk" if n == 8 else None for n in numbers),
        tuple(f"e{n}" for n in numbers))


def part(whole: History, start: int, stop: int) -> History:
    return whole.take(slice(start, stop))


def close(one: FloatArray, two: FloatArray) -> None:
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)


def test_event_by_event_is_the_same_as_all_at_once(stepper: Stepper) -> None:
    """The gap to the event before survives between two calls."""
    whole = history(1, 8, 9, 2, 3)
    hidden = None
    for k in range(len(whole)):
        hidden = stepper.advance(hidden, part(whole, k, k + 1))
    assert hidden is not None
    close(hidden, stepper.advance(None, whole))


def test_many_users_are_stepped_as_each_alone(stepper: Stepper) -> None:
    old = [None, stepper.advance(None, history(4, 5, start=1.4e9)), None, None,
           stepper.advance(None, history(2, start=1.45e9))]
    new = [history(1), history(8), history(1, 2, 3), history(), history(3)]
    together = stepper.advance_many(old, new)
    for k in range(len(new)):
        close(together[k], stepper.advance(old[k], new[k]))


def test_time_since_the_last_event_changes_the_state(stepper: Stepper) -> None:
    before = stepper.advance(None, history(1))
    soon, late = (stepper.advance(before, history(2, start=1.5e9 + gap)) for gap in (60.0, 1e7))
    assert not np.allclose(soon[:-1], late[:-1])


def test_last_row_tells_the_instant_to_a_hundredth_of_a_second(stepper: Stepper) -> None:
    ts = 1_760_012_345.67
    hidden = stepper.advance(None, history(1, start=ts))
    assert float(hidden[-1, 0]) * 86_400 + float(hidden[-1, 1]) == pytest.approx(ts, abs=0.01)


def test_nothing_new_gives_back_what_was(stepper: Stepper) -> None:
    before = stepper.advance(None, history(1))
    assert stepper.advance(before, history()) is before
    assert not stepper.advance(None, history()).any()
    assert stepper.advance_many([], []) == []


def test_hidden_of_another_shape_starts_over(stepper: Stepper) -> None:
    other = np.ones((7, 3), np.float32)
    close(stepper.advance(other, history(1, 2)), stepper.advance(None, history(1, 2)))


def test_what_is_handed_in_is_left_as_it_was(stepper: Stepper) -> None:
    before = stepper.advance(None, history(1))
    copy = before.copy()
    stepper.advance_many([before, before], [history(2), history(3)])
    np.testing.assert_array_equal(before, copy)
