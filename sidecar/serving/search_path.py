"""The main path: one search, from what the client sent to what it gets.

plan → the history read and the upstream search, side by side → order → splice. If ranking fails,
that becomes a skip: the client gets the engine's order and the reason. If OpenSearch refuses, the
client gets OpenSearch's words, as the answer to its own request.
"""

from __future__ import annotations

import logging
import socket

from sidecar.errors import SidecarError, UnreadableError, UpstreamError
from sidecar.records import HttpRequest, SkipReason
from sidecar.search import headers
from sidecar.search.plans import plan_search
from sidecar.search.requests import without_controls
from sidecar.search.targets import Endpoint
from sidecar.serving.hit_cache import HitCache
from sidecar.serving.instants import shared_instant
from sidecar.serving.multi_searches import MultiSearches
from sidecar.serving.outcomes import Outcome
from sidecar.serving.passing import Reply, passed
from sidecar.serving.personal_searches import PersonalSearches
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.shown import ShownLog
from sidecar.serving.templates import Templates
from sidecar.settings import Settings
from sidecar.stores.upstream import Upstream

log = logging.getLogger(__name__)


class SearchPath:
    """Answers searches; one a process, used by all its threads."""

    def __init__(self, settings: Settings, upstream: Upstream, personalizer: Personalizer,
                 shown: ShownLog | None = None, hits: HitCache | None = None) -> None:
        self._settings = settings
        self._upstream = upstream
        self._personal = PersonalSearches(settings, upstream, personalizer, shown, hits)
        multi = MultiSearches(self._personal)
        templates = Templates(self._personal, multi)
        self._handlers = {Endpoint.SEARCH: self._search, Endpoint.MULTI_SEARCH: multi.reply,
                          Endpoint.TEMPLATE: templates.reply,
                          Endpoint.MULTI_TEMPLATE: templates.reply_to_many}

    def answer(self, kind: Endpoint, request: HttpRequest,
               client: socket.socket | None = None) -> Reply:
        """Answer a search.

        Args:
            kind: which kind of search; not OTHER.
            request: as the client sent it, less the headers of its connection.
            client: the client's socket, watched while OpenSearch works.

        Raises:
            ControlError: a personalization control with a value that it cannot have.
            UpstreamError: OpenSearch could not be asked.
            ClientGone: the client hung up.
        """
        outcome = self._personal.outcome()
        try:
            return self._answer(kind, request, outcome, client)
        except UpstreamError:
            outcome.failed()
            raise

    def _answer(self, kind: Endpoint, request: HttpRequest, outcome: Outcome,
                client: socket.socket | None) -> Reply:
        try:
            with outcome.stage("parse"):
                plain = headers.decompressed(request, self._settings.max_body_bytes)
        except UnreadableError:
            outcome.skipped(SkipReason.UNREADABLE)
            return passed(self._upstream, without_controls(request), outcome, client)
        try:
            return self._handlers[kind](plain, outcome, client)
        except SidecarError:
            raise
        except Exception:  # the main path's edge: a fault of ours passes the search through
            log.exception("search not taken apart")
            outcome.skipped(SkipReason.UNREADABLE)
            return passed(self._upstream, without_controls(plain), outcome, client)

    def _search(self, request: HttpRequest, outcome: Outcome,
                client: socket.socket | None) -> Reply:
        with outcome.stage("parse"):
            plan = plan_search(request, self._settings, shared_instant())
        if plan.skip is None:
            return self._personal.reply(plan, outcome, client)
        outcome.skipped(plan.skip)
        return self._personal.shared.passed(plan, outcome, client)

    def other(self, request: HttpRequest, client: socket.socket | None = None) -> Reply:
        """Let a request through that is no search; raises as ``answer``, less ``ControlError``."""
        outcome = Outcome(None)
        outcome.skipped(SkipReason.NOT_A_SEARCH)
        return passed(self._upstream, without_controls(request), outcome, client,
                      idempotent=request.method in ("GET", "HEAD", "OPTIONS"),
                      timeout_s=self._settings.pass_timeout_s)
