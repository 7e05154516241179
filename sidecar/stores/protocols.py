"""What the main path needs from its stores; each has an OpenSearch form and an in-memory twin.

One suite (``tests/contract``) runs on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sidecar.records import Event, UserState
from sidecar.stores.upstream import Exchange


class PendingState(Protocol):
    """A state read that is on its way."""

    def result(self, deadline: float) -> UserState | None:
        """Return the state, or None if the user has none.

        Args:
            deadline: instant on ``time.monotonic``'s clock.

        Raises:
            UpstreamTimeout: the deadline passed.
            UpstreamError: the store could not be asked.
        """
        ...

    def comes_before(self, exchange: Exchange) -> bool:
        """Wait until the state's answer, or the other exchange's, begins; True if the state's."""
        ...

    def cancel(self) -> None:
        """Give the read up; its connection is not left half read."""
        ...


class StateStore(Protocol):
    """One document a user. Reads are realtime: they see the last acknowledged write."""

    def begin_get(self, user_id: str) -> PendingState:
        """Send the read and return at once; errors surface in ``result``."""
        ...

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        """Read several users at once, in the order asked for."""
        ...

    def put_many(self, states: Sequence[UserState]) -> list[UserState | Exception]:
        """Write states, each only if its ``version`` is still the stored one (-1: only if absent).

        Returns, aligned with the input, the state with its new version, or a ``VersionConflict``
        or ``UpstreamError`` for that state alone.
        """
        ...

    def delete(self, user_id: str) -> bool:
        """Forget a user; False if there was nothing to forget."""
        ...


class PendingAppend(Protocol):
    """A log entry, or many, on the way."""

    def result(self) -> list[Exception | None]:
        """Return, aligned with the events, None or why an event is not in the log.

        An ``EventError`` is the log's last word on an event; an ``UpstreamUnavailable`` may pass.

        Raises:
            UpstreamError: the log could not be asked; any part of the events may be in it.
        """
        ...

    def cancel(self) -> None:
        """Wait no longer; any part of the events may be in the log."""
        ...


class EventLog(Protocol):
    """The append-only log of raw events, for training."""

    def begin_append(self, events: Sequence[Event]) -> PendingAppend:
        """Send events, each under its ``event_id``, and return at once; errors surface in
        ``result``. An id that is already there is no error, and its first event stays.
        """
        ...

    def append(self, events: Sequence[Event]) -> list[Exception | None]:
        """Append events and wait for it; see ``begin_append`` and ``PendingAppend.result``."""
        ...

    def forget(self, user_id: str) -> int:
        """Delete a user's events; returns how many there were."""
        ...


@dataclass(frozen=True, slots=True)
class Logs:
    """The two logs that UBI knows: what shoppers did, and what they searched for."""

    events: EventLog
    queries: EventLog

    def forget(self, user_id: str) -> int:
        """Delete a user's entries of both; returns how many there were."""
        return self.events.forget(user_id) + self.queries.forget(user_id)
