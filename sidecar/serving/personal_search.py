"""One search that is to be personalised: its window fetched, ordered, and one page of it written.

It fetches either whole hits from the top through the window at once, or ids first and the page's
hits after (``search.fetches`` says when). The second way falls back to the first if ids do not
serve, or if the page's hits differ twice from those that were ranked.
"""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sidecar.errors import SidecarError, Skip, UnreadableError
from sidecar.records import Headers, HttpRequest, HttpResponse, Ranking, SkipReason
from sidecar.search import answers, fetches, headers, refusals
from sidecar.search.answers import Answer, IdAnswer, Key
from sidecar.search.plans import SearchPlan, Window
from sidecar.serving.expiring import Expiring
from sidecar.serving.hit_cache import HitCache, KeptHits
from sidecar.serving.outcomes import Outcome
from sidecar.serving.pages import Page, write_page
from sidecar.serving.passing import Reply, finished, passed
from sidecar.serving.personalizer import Personalizer, Ticket
from sidecar.serving.shown import ShownOrders
from sidecar.settings import Settings
from sidecar.stores.upstream import Upstream

log = logging.getLogger(__name__)
BY_IDS = 2  # attempts, before whole hits are fetched


@dataclass(frozen=True, slots=True)
class Shared:
    """What the personalised searches of a process have in common.

    ``fetched_whole`` remembers index expressions whose ids did not serve.
    """

    settings: Settings
    upstream: Upstream
    personalizer: Personalizer
    shown: ShownOrders
    hits: HitCache | None
    fetched_whole: Expiring[bool]

    def passed(self, plan: SearchPlan, outcome: Outcome, client: socket.socket | None) -> Reply:
        """Let a search through as it is planned; logged, if that falls to the sidecar."""
        if not self.shown.is_due(plan):
            return passed(self.upstream, plan.request, outcome, client)
        request = replace(plan.request, headers=headers.replaced(plan.request.headers,
                                                                 accept_encoding=None))
        with outcome.stage("upstream"):
            response = self.upstream.begin(request, idempotent=True, client=client).result()
        accepted = headers.get(plan.request.headers, "accept-encoding")
        try:
            if response.status == 200:
                keys = answers.read_answer(response.body).keys
                body = self.shown.tell(plan, [item_id for _, item_id in keys], response.body)
                response = replace(response, body=body)
        except UnreadableError as error:
            log.debug("shown order not logged", extra={"error": str(error)})
        return finished(response, accepted, outcome)


class _NotAsRanked(Exception):
    """The page's hits, fetched by their ids, are not those that were ranked."""


class Refused(Exception):
    """OpenSearch refused a request of the sidecar's making."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__(response.status)
        self.response = response


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer with its headers, and whether it holds whole hits or ids only."""

    response: HttpResponse
    answer: Answer | IdAnswer
    is_whole: bool


class PersonalSearch:
    """One search under way; used once, by one thread."""

    def __init__(self, shared: Shared, plan: SearchPlan, outcome: Outcome,
                 client: socket.socket | None) -> None:
        assert plan.search is not None
        assert plan.window is not None
        self.window: Window = plan.window
        self._shared = shared
        self._plan = plan
        self._index = plan.search.target.index_expression()
        self._outcome = outcome
        self._client = client
        self._field = shared.settings.item_id_field
        self._accepted = headers.get(plan.search.headers, "accept-encoding")
        self._page_headers: Headers = ()
        self._kept = KeptHits(shared.hits, plan.search)

    def run(self, attempt: int = 1) -> Reply:
        """Fetch, order, write; whatever ranking cannot do leaves the engine's order.

        A page that is not as ranked is asked for once more, ids first: the index may have been
        refreshed between the two fetches, which changes every score. Then whole hits are fetched.
        """
        assert self._plan.context is not None
        ticket = self._shared.personalizer.begin(self._plan.context)
        try:
            if ticket.refusal is not None:
                self._shared.personalizer.report(Skip(ticket.refusal))
                return self.passed(ticket.refusal)
            is_split = (attempt <= BY_IDS and fetches.can_split(self._plan, self._field)
                        and not self._shared.fetched_whole.get(self._index))
            return self._ordered(self._by_ids(ticket) if is_split else self._by_hits(ticket),
                                 ticket)
        except _NotAsRanked:
            if attempt == BY_IDS:
                self._shared.fetched_whole.put(self._index, True)
            return self.run(attempt + 1)
        except UnreadableError as error:
            log.debug("answer not taken apart", extra={"error": str(error)})
            return self.passed(SkipReason.NO_IDS)
        except Skip as skip:
            return self.passed(skip.reason)
        except (Refused, SidecarError):
            raise
        except Exception:  # the main path's edge: what is wrong here costs the order, no search
            log.exception("search not personalised")
            return self.passed(SkipReason.RANKING_ERROR)
        finally:
            ticket.cancel()

    def passed(self, reason: SkipReason) -> Reply:
        """Serve the engine's order: the answer to the client's own request."""
        assert self._plan.search is not None
        self._outcome.skipped(reason)
        return self._shared.passed(self._plan, self._outcome, self._client)

    def refused(self, response: HttpResponse) -> Reply:
        """Answer with OpenSearch's refusal, asked for anew where the wording could be ours."""
        if refusals.may_be_our_doing(response.status):
            return self.passed(SkipReason.UPSTREAM_ERROR)
        self._outcome.skipped(SkipReason.UPSTREAM_ERROR)
        return finished(response, self._accepted, self._outcome)

    def _ordered(self, fetched: Fetched, ticket: Ticket) -> Reply:
        body = self.written(fetched, ticket)
        if body is None:
            return self._shared.passed(self._plan, self._outcome, self._client)
        told = headers.with_warnings_of(fetched.response.headers, self._page_headers)
        return finished(replace(fetched.response, headers=told, body=body), self._accepted,
                        self._outcome)

    def written(self, fetched: Fetched, ticket: Ticket) -> bytes | None:
        """Order what was fetched and return the answer's body with the page in it.

        None if the engine's order is to be served and only ids are at hand.

        Raises:
            Skip: the page cannot be written; the client's own request can.
            UnreadableError: a hit cannot be taken apart.
            _NotAsRanked: the search has to be begun anew.
        """
        if self.window.first < len(fetched.answer):
            ranking = self._rank(fetched.answer, ticket)
        else:  # a page behind the last hit, however it was fetched
            ranking = None
            self._outcome.skipped(SkipReason.NO_HITS)
        if ranking is None and not fetched.is_whole:
            return None
        page = self._page(fetched, _order(fetched.answer, ranking))
        with self._outcome.stage("write"):
            body = write_page(page, self._plan, fetched.answer, ranking, self._shared.settings)
            return self._shared.shown.tell(self._plan, [item_id for _, item_id in page.keys], body)

    def _by_ids(self, ticket: Ticket) -> Fetched:
        """Fetch ids and scores of the window; where ids do not serve, whole hits after all."""
        try:
            response = self._ask(fetches.id_fetch(self._plan, self._field), ticket)
            with self._outcome.stage("parse"):
                answer = answers.read_ids(response.body, self._field, self.window.needed)
            if answer.are_distinct:
                return Fetched(response, answer, is_whole=False)
        except UnreadableError as error:
            log.debug("ids do not serve", extra={"error": str(error)})
        except Refused as refused:
            if not self._is_about_ids(refused.response):
                raise
        whole = self._by_hits()  # refused too, it was not about ids
        self._shared.fetched_whole.put(self._index, True)
        return whole

    def _by_hits(self, ticket: Ticket | None = None) -> Fetched:
        response = self._ask(fetches.whole_fetch(self._plan, self._field), ticket)
        answer = self._read(response)
        told = answers.failed_shards(response.body)
        if told and told != answers.failed_shards(self._ask(self._own()).body):
            raise Skip(SkipReason.UPSTREAM_ERROR)  # shards failed over hits below the page
        return Fetched(response, answer, is_whole=True)

    def _own(self) -> HttpRequest:
        """Return the client's own search, its answer to be read here."""
        request = self._plan.request
        return replace(request, headers=headers.replaced(request.headers, accept_encoding=None))

    @staticmethod
    def _is_about_ids(response: HttpResponse) -> bool:
        return (refusals.may_be_our_doing(response.status)
                and refusals.window_limit(response.body) is None)

    def _rank(self, answer: Answer | IdAnswer, ticket: Ticket) -> Ranking | None:
        """Return the personal order of the window; None, with the reason noted, if there is none.

        The deadline counts from the upstream's answer.
        """
        count = min(self.window.hits, len(answer))
        deadline = time.monotonic() + self._shared.settings.timeout_ms / 1000
        try:
            ranking = self._shared.personalizer.order(ticket, answer.candidates(count), deadline)
        except Skip as skip:
            self._outcome.skipped(skip.reason)
            self._outcome.state = ticket.state_version
            return None
        finally:
            self._outcome.times_ms |= ticket.times_ms
        self._outcome.state = ranking.state_version
        return ranking

    def _page(self, fetched: Fetched, order: Sequence[int]) -> Page:
        """Return the page's hits in shown order, fetched now if only ids are there."""
        answer = fetched.answer
        shown = order[self.window.first:self.window.first + self.window.size]
        keys = [answer.key(position) for position in shown]
        if fetched.is_whole:
            return Page(answer, keys, [answer.hits[position] for position in shown])
        if not shown:  # nobody has yet checked what the client wants of each hit
            raise Skip(SkipReason.NO_HITS)
        hits = self._hits(answer, dict(zip(shown, keys, strict=True)))
        if hits is None:
            raise _NotAsRanked
        return Page(answer, keys, hits)

    def _hits(self, answer: Answer | IdAnswer, shown: Mapping[int, Key]) -> list[bytes] | None:
        """Return the page's hits (position → key, in order), fetched by id where they are not at
        hand.

        None unless each is there with the very score and version that was ranked.
        """
        hits = self._kept.get(answer, list(shown))
        missing = [position for position in shown if position not in hits]
        if not missing:
            return [hits[position] for position in shown]
        request = fetches.page_fetch(self._plan, [shown[p][1] for p in missing])
        try:
            response = self._ask(request)
            fetched = self._read(response)
        except (UnreadableError, Refused):
            return None
        found = {key: place for place, key in enumerate(fetched.keys)}
        came: dict[int, bytes] = {}
        for position in missing:
            place = found.get(shown[position])
            if place is None or not _same(fetched.scores[place], answer.score(position)):
                return None
            came[position] = fetched.hits[place]
        taken = self._kept.taken(answer, came)
        if taken is None:
            return None
        self._page_headers = response.headers
        hits |= taken
        return [hits[position] for position in shown]

    def _read(self, response: HttpResponse) -> Answer:
        with self._outcome.stage("parse"):
            return answers.read_answer(response.body, self._field)

    def _ask(self, request: HttpRequest, ticket: Ticket | None = None) -> HttpResponse:
        """Ask OpenSearch; the history is taken in while it works, if it comes first."""
        with self._outcome.stage("upstream"):
            exchange = self._shared.upstream.begin(request, idempotent=True, client=self._client)
            if ticket is not None:
                self._shared.personalizer.receive_before(ticket, exchange)
            response = exchange.result()
        if response.status != 200:
            raise Refused(response)
        return response


def _order(answer: Answer | IdAnswer, ranking: Ranking | None) -> list[int]:
    """Return positions in shown order: the window as ranked, then the engine's order."""
    if ranking is None:
        return list(range(len(answer)))
    order: list[int] = ranking.order.tolist()
    order.extend(range(len(order), len(answer)))
    return order


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))
