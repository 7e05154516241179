"""Fits a stored state to the model in use: a new model means a new hidden state.

The kept events are stepped through the new encoder at a user's first search after the swap. The
result serves at once and is written back off the request's path. A writer that overtook that write
has stepped the state already, so a conflict needs no second try.

Two models may work on one index of states for a while: a canary, a rolling release, workers in the
middle of a swap. Each finds the other's hidden states. So a recomputed state is kept under the
content of its history, not under the state's version, which every write-back raises; and it is
written back once. Neither model computes it again, or overwrites the other's, until a new event
comes.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
from contextlib import suppress
from typing import NamedTuple

from cachetools import LRUCache

from sidecar.records import FloatArray, UserState
from sidecar.serving.models import Ranks
from sidecar.serving.telemetry import Telemetry
from sidecar.stores.protocols import StateStore

log = logging.getLogger(__name__)

KEPT = 4096  # hidden states kept a worker: 1 KB each for two layers of 128
WAITING = 1024  # write-backs waiting; those beyond are dropped: another worker's may come through


class _Key(NamedTuple):
    """What a hidden state depends on: a model, and a history, which changes with every event that
    is counted, and which a user who was forgotten begins again with other events."""

    user_id: str
    event_count: int
    kept: int
    first_id: str
    last_id: str
    model_version: str


class Recomputer:
    """Recomputes a hidden state once a (user, history, model); writes it back once."""

    def __init__(self, states: StateStore, telemetry: Telemetry) -> None:
        self._states = states
        self._telemetry = telemetry
        self._hidden: LRUCache[_Key, FloatArray] = LRUCache(KEPT)
        self._lock = threading.Lock()
        self._waiting: queue.Queue[UserState | None] = queue.Queue(WAITING)
        self._writer: threading.Thread | None = None

    @staticmethod
    def is_fit(state: UserState, ranker: Ranks) -> bool:
        """Return True if nothing has to be recomputed."""
        return state.hidden is not None and state.model_version == ranker.version

    def fit(self, state: UserState, ranker: Ranks) -> UserState:
        """Return the state as ``ranker`` would have left it; the same object if it already is."""
        if self.is_fit(state, ranker):
            return state
        key = _key(state, ranker.version)
        with self._lock:
            hidden = self._hidden.get(key)
        if hidden is not None:
            return dataclasses.replace(state, hidden=hidden, model_version=ranker.version)
        hidden = ranker.advance(None, state.history)
        with self._lock:
            self._hidden[key] = hidden
        fitted = dataclasses.replace(state, hidden=hidden, model_version=ranker.version)
        self._telemetry.state_recomputed()
        self._write_later(fitted)
        return fitted

    def close(self) -> None:
        """Let the writer end after what waits; waits for nothing, and keeps no search waiting."""
        with self._lock:
            has_writer = self._writer is not None
        while has_writer:
            try:
                self._waiting.put_nowait(None)
                return
            except queue.Full:  # the oldest makes room: whoever needs it computes it again
                with suppress(queue.Empty):
                    self._waiting.get_nowait()

    def _write_later(self, state: UserState) -> None:
        with self._lock:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="state-writer",
                                                daemon=True)
                self._writer.start()
        try:
            self._waiting.put_nowait(state)
        except queue.Full:
            log.debug("state write-back dropped")

    def _write(self) -> None:
        while (state := self._waiting.get()) is not None:
            try:
                self._states.put_many([state])
            except Exception as error:  # nobody waits for this write
                log.warning("state write-back failed", extra={"error": repr(error)})


def _key(state: UserState, model_version: str) -> _Key:
    ids = state.history.event_ids
    return _Key(state.user_id, state.event_count, len(state.history), ids[0] if ids else "",
                ids[-1] if ids else "", model_version)
