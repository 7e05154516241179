"""A worker searches a few times before its first client does: the first search costs three times
the next.

These searches go the whole way, to OpenSearch and back, so that connections are open and every
function has run. They are ranked for a made-up shopper and leave no trace: no count, no log entry
and no index of the sidecar has them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from sidecar.errors import SidecarError
from sidecar.records import History, HttpRequest, SkipReason, StreamedResponse, UserState
from sidecar.search.targets import Endpoint
from sidecar.serving.models import Ranks
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.search_path import SearchPath
from sidecar.serving.telemetry import Telemetry
from sidecar.stores.protocols import PendingState, StateStore
from sidecar.stores.upstream import Exchange
from sidecar.web.services import Services

log = logging.getLogger(__name__)

SEARCHES = 10
REACHABLE_S = 1.0  # an OpenSearch that takes longer to say its name is not asked for more
MOST_S = 3.0  # no search is begun later
USER = "personalize-warm-up"
_BODY = b'{"query":{"match_all":{}},"size":10}'


def warm_up(services: Services) -> int:
    """Search; return how many searches were answered. Never raises: warmth is a courtesy."""
    ranker = services.models()
    if ranker is None or not len(ranker.items):
        return 0
    began, answered = time.monotonic(), 0
    states = _MadeUp(services.states, _shopper(ranker))
    personalizer = Personalizer(services.settings, states, services.models, _Uncounted())
    try:
        services.upstream.fetch(HttpRequest("GET", "/", services.upstream.own_headers),
                                idempotent=True, deadline=began + REACHABLE_S)
        path = SearchPath(services.settings, services.upstream, personalizer)
        for _ in range(SEARCHES):
            if time.monotonic() - began > MOST_S:
                break
            reply = path.answer(Endpoint.SEARCH, _request(services))
            if isinstance(reply, StreamedResponse):
                b"".join(reply.chunks)
            answered += reply.status == 200
    except SidecarError as error:  # the first search will be told, if it is still so
        log.debug("not warmed up", extra={"error": repr(error)})
    except Exception:
        log.exception("warm-up failed")
    finally:
        personalizer.close()
    return answered


def _request(services: Services) -> HttpRequest:
    index = quote(services.settings.products_index, safe=",*")
    return HttpRequest("POST", f"/{index}/_search", (
        *services.upstream.own_headers, ("Content-Type", "application/json"),
        ("X-Personalize", "on"), ("X-Personalize-User", USER)), _BODY)


def _shopper(ranker: Ranks) -> UserState:
    """Return the state of somebody who took the catalogue's first items."""
    ids = tuple(getattr(ranker.items, "ids", ())[:3])
    history = History(ids, ("purchase",) * len(ids), tuple(map(float, range(len(ids)))),
                      (None,) * len(ids), ("warm-up",) * len(ids))
    return UserState(USER, history, ranker.advance(None, history), ranker.version, len(ids))


class _Uncounted(Telemetry):
    """Counts and times nothing."""

    def searched(self, reason: SkipReason | None) -> None:
        """Nothing."""

    def timed(self, stage: str, milliseconds: float) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A read of nobody's state that gives another."""

    read: PendingState
    state: UserState

    def result(self, deadline: float) -> UserState | None:
        self.read.result(deadline)
        return self.state

    def comes_before(self, exchange: Exchange) -> bool:
        return self.read.comes_before(exchange)

    def cancel(self) -> None:
        self.read.cancel()


class _MadeUp:
    """Asks the store and gives the made-up state, whatever the answer."""

    def __init__(self, states: StateStore, state: UserState) -> None:
        self._states = states
        self._state = state

    def begin_get(self, user_id: str) -> PendingState:
        return _Pending(self._states.begin_get(user_id), self._state)

    def get_many(self, user_ids: Sequence[str]) -> list[UserState | None]:
        return [self._state for _ in user_ids]

    def put_many(self, states: Sequence[UserState]) -> list[UserState | Exception]:
        return list(states)

    def delete(self, user_id: str) -> bool:
        return user_id == USER
