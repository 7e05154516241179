"""One user's state on its way, while OpenSearch searches."""

from __future__ import annotations

import time

from sidecar.errors import Skip, UpstreamError, UpstreamTimeout
from sidecar.records import NEVER_WRITTEN, SkipReason, UserState
from sidecar.stores.protocols import PendingState, StateStore
from sidecar.stores.upstream import Exchange

REREAD_S = 0.002  # between reads while a demanded state version is not there yet


class StateRead:
    """A read that has been sent, and is sent again for a version that is not there yet; used by one
    thread."""

    def __init__(self, states: StateStore, user_id: str | None) -> None:
        """Send the read; for nobody (None) there is nothing to read."""
        self._states = states
        self._user_id = user_id
        self._pending: PendingState | None = None if user_id is None else states.begin_get(user_id)
        self._early: tuple[UserState | None, Exception | None] | None = None

    def receive_before(self, exchange: Exchange, patience_s: float) -> UserState | None:
        """Return the state if it comes before the answer to ``exchange`` does.

        Its decoding then costs no latency, as OpenSearch is still searching. Never raises: raised
        here, an error would cost the answer that is still to come. It shows in ``at_least``.
        """
        pending = self._pending
        if pending is None or not pending.comes_before(exchange):
            return None
        self._pending = None
        try:
            state = pending.result(time.monotonic() + patience_s)
        except Exception as error:
            self._early = (None, error)
            return None
        self._early = (state, None)
        return state

    def at_least(self, version: int | None, deadline: float) -> UserState | None:
        """Return the state once it has reached ``version`` (None: any); None if there is none.

        Raises:
            Skip: TIMEOUT, STATE_UNAVAILABLE; STATE_BEHIND at the deadline (an instant on
                ``time.monotonic``'s clock); ANONYMOUS where a version of nobody's is demanded.
        """
        state = self._result(deadline, SkipReason.TIMEOUT)
        while version is not None and _version(state) < version:
            if self._user_id is None:
                raise Skip(SkipReason.ANONYMOUS)
            if time.monotonic() + REREAD_S >= deadline:
                raise Skip(SkipReason.STATE_BEHIND)
            time.sleep(REREAD_S)
            self._pending = self._states.begin_get(self._user_id)
            state = self._result(deadline, SkipReason.STATE_BEHIND)
        return state

    def cancel(self) -> None:
        """Give the read up; harmless when it has ended."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.cancel()

    def _result(self, deadline: float, when_late: SkipReason) -> UserState | None:
        early, self._early = self._early, None
        pending, self._pending = self._pending, None
        try:
            if early is None:
                return None if pending is None else pending.result(deadline)
            state, error = early
            if error is not None:
                raise error
            return state
        except UpstreamTimeout as late:
            raise Skip(when_late, "history read") from late
        except UpstreamError as failure:
            raise Skip(SkipReason.STATE_UNAVAILABLE, str(failure)) from failure


def _version(state: UserState | None) -> int:
    return NEVER_WRITTEN if state is None else state.version
