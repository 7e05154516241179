"""The stores' in-memory twins: the same promises, kept by a dictionary and a lock.

Tests use them where OpenSearch would add nothing; ``tests/contract`` runs one suite on both.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.errors import VersionConflict
from sidecar.records import NEVER_WRITTEN, Event, UserState
from sidecar.stores.upstream import Exchange


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read that is done already."""

    state: UserState | None

    def result(self, deadline: float) -> UserState | None:  # noqa: ARG002 - it is there already
        """Return the state as it was when the read began."""
        return self.state

    def comes_before(self, exchange: Exchange) -> bool:  # noqa: ARG002 - it is there already
        """Return True."""
        return True

    def cancel(self) -> None:
        """Nothing is under way."""


class MemoryStateStore:
    """States in a dictionary; thread-safe, of one process. See ``StateStore``."""

    def __init__(self) -> None:
        self._states: dict[str, UserState] = {}
        self._next_version = 0
        self._lock = threading.Lock()

    def begin_get(self, user_id: str) -> ReadState:
        """Read a state."""
        return ReadState(self._states.get(user_id))

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        """Read several users, in the order asked for."""
        return [self._states.get(user_id) for user_id in user_ids]

    def put_many(self, states: Sequence[UserState]) -> list[UserState | Exception]:
        """Write states, each only over the version that it was read at."""
        with self._lock:
            return [self._put(state) for state in states]

    def delete(self, user_id: str) -> bool:
        """Forget a user; False if there was nothing to forget."""
        with self._lock:
            self._next_version += 1  # as OpenSearch numbers a deletion too
            return self._states.pop(user_id, None) is not None

    def _put(self, state: UserState) -> UserState | Exception:
        stored = self._states.get(state.user_id)
        if state.version != (NEVER_WRITTEN if stored is None else stored.version):
            return VersionConflict(f"state is no longer at version {state.version}; read it again")
        written = dataclasses.replace(state, version=self._next_version, primary_term=1)
        self._next_version += 1
        self._states[state.user_id] = written
        return written


@dataclass(frozen=True, slots=True)
class Appended:
    """An append that is done already."""

    outcomes: list[Exception | None]

    def result(self) -> list[Exception | None]:
        """Return what became of each event."""
        return self.outcomes

    def cancel(self) -> None:
        """Nothing is under way."""


class MemoryEventLog:
    """Events by id; thread-safe, of one process. See ``EventLog``."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self._lock = threading.Lock()

    def begin_append(self, events: Sequence[Event]) -> Appended:
        """Append events."""
        return Appended(self.append(events))

    def append(self, events: Sequence[Event]) -> list[Exception | None]:
        """Append events; an id that is already there keeps its first event."""
        with self._lock:
            for event in events:
                self.events.setdefault(event.event_id or "", event)
        return [None] * len(events)

    def forget(self, user_id: str) -> int:
        """Delete a user's events; returns how many there were."""
        with self._lock:
            ids = [event_id for event_id, event in self.events.items()
                   if event.user_id == user_id]
            for event_id in ids:
                del self.events[event_id]
        return len(ids)
