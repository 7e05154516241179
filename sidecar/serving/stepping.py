"""How does the encoder follow a history that has grown? One step per event, for many users at once.

Pure except for the model that it is given.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from sidecar.records import FloatArray, History, UserState
from sidecar.serving.histories import Growth
from sidecar.serving.models import Ranks

log = logging.getLogger(__name__)


@runtime_checkable
class StepsMany(Protocol):
    """A ranker that steps many users in one pass, which costs little more than one user."""

    def advance_many(self, hiddens: Sequence[FloatArray | None],
                     histories: Sequence[History]) -> list[FloatArray]:
        """Return ``advance`` of each pair, in order."""
        ...


def step(ranker: Ranks | None, states: Sequence[UserState],
         growths: Sequence[Growth]) -> list[UserState]:
    """Return the states with their grown histories and the encoder's hidden states after them.

    A hidden state of this model is stepped on over the new events. If an event came late, or the
    state is another model's, the encoder starts over from the kept events. Without a model, or if
    it fails, hidden is None, and the reader that needs it steps the kept events.

    An event on an item that is not in the table yet is stepped as one without an item, and stays so
    in the hidden state until something makes the encoder start over. The other signals know the
    item as soon as the table does. Starting over for it would cost a whole history's steps per
    event, also if a shop's events name items that its catalogue will never hold.
    """
    hiddens: list[FloatArray | None] = [None] * len(states)
    if ranker is not None:
        starts, paths = [], []
        for state, growth in zip(states, growths, strict=True):
            start, path = _way(ranker.version, state, growth)
            starts.append(start)
            paths.append(path)
        hiddens = _advanced(ranker, starts, paths)
    return [dataclasses.replace(
        state, history=growth.history, hidden=hidden,
        model_version=None if ranker is None or hidden is None else ranker.version,
        event_count=state.event_count + growth.added)
        for state, growth, hidden in zip(states, growths, hiddens, strict=True)]


def _way(version: str, state: UserState, growth: Growth) -> tuple[FloatArray | None, History]:
    """Return where the encoder starts, and the events it has to step over."""
    if state.model_version == version and state.hidden is not None and growth.appended is not None:
        return state.hidden, growth.appended
    return None, growth.history


def _advanced(ranker: Ranks, starts: Sequence[FloatArray | None],
              paths: Sequence[History]) -> list[FloatArray | None]:
    if isinstance(ranker, StepsMany) and len(starts) > 1:
        try:
            return list(ranker.advance_many(starts, paths))
        except Exception:  # one user's events may be at fault: the others step on, one by one
            log.exception("encoder steps of many users failed")
    return [_one(ranker, start, path) for start, path in zip(starts, paths, strict=True)]


def _one(ranker: Ranks, start: FloatArray | None, path: History) -> FloatArray | None:
    try:
        return ranker.advance(start, path)
    except Exception:  # an event is kept even if a model cannot step over it
        log.exception("encoder step failed")
        return None
