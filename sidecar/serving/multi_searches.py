"""A multi-search: one upstream request, each line planned, ordered and refused on its own."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sidecar.errors import Skip, UnreadableError
from sidecar.records import HttpRequest, HttpResponse, SkipReason
from sidecar.search import fetches, headers, multi
from sidecar.search.answers import Answer, failed_shards, read_answer
from sidecar.search.multi import LinePair, MultiAnswer
from sidecar.search.plans import SearchPlan, plan_search
from sidecar.search.refusals import may_be_our_doing
from sidecar.search.requests import without_controls
from sidecar.search.targets import parse
from sidecar.serving.instants import shared_instant
from sidecar.serving.outcomes import Outcome
from sidecar.serving.passing import Reply, finished, passed
from sidecar.serving.personal_search import Fetched, PersonalSearch
from sidecar.serving.personal_searches import PersonalSearches
from sidecar.serving.personalizer import Ticket

OWN_TRACES = (b'"personalize', b'"ext"')


@dataclass(slots=True)
class Line:
    """One search of a multi-search: as it came, what is planned for it, its ticket, and its answer.

    ``holds_own``: it holds something that OpenSearch must not see. ``answer`` is None unless it is
    to be ranked.
    """

    pair: LinePair
    plan: SearchPlan
    holds_own: bool
    ticket: Ticket | None = None
    answer: Answer | None = None


class MultiSearches:
    """Answers multi-searches; used by all threads of a process."""

    def __init__(self, personal: PersonalSearches) -> None:
        self._personal = personal
        self._settings = personal.settings

    def reply(self, request: HttpRequest, outcome: Outcome,
              client: socket.socket | None) -> Reply:
        """Answer a multi-search whose body is not compressed.

        Raises:
            ControlError: a control of any line with a value that it cannot have.
            UpstreamError: OpenSearch could not be asked.
            ClientGone: the client hung up.
        """
        try:
            with outcome.stage("parse"):
                lines = self._planned(request, outcome)
        except UnreadableError:
            outcome.skipped(SkipReason.UNREADABLE)
            return passed(self._personal.upstream, without_controls(request), outcome, client)
        return self.reply_to(request, lines, outcome, client)

    def reply_to(self, request: HttpRequest, lines: Sequence[Line], outcome: Outcome,
                 client: socket.socket | None) -> Reply:
        """Answer a multi-search whose lines are planned; raises as ``reply``."""
        own = self._without_own(request, lines)
        skips = [line.plan.skip for line in lines]
        planned = [skip for skip in skips if skip is not None]
        if len(planned) == len(lines):
            outcome.skipped(planned[0], planned)
            return passed(self._personal.upstream, own, outcome, client)
        try:
            return self._personalised(request, lines, outcome, client)
        except (UnreadableError, Skip) as error:
            reason = error.reason if isinstance(error, Skip) else SkipReason.NO_IDS
            outcome.skipped(reason, [skip or reason for skip in skips])
            return passed(self._personal.upstream, own, outcome, client)
        finally:
            for line in lines:
                if line.ticket is not None:
                    line.ticket.cancel()

    def _planned(self, request: HttpRequest, outcome: Outcome) -> list[Line]:
        target, pairs = parse(request.target), multi.pairs_of(request)
        outcome.searches = len(pairs)
        now = shared_instant()
        return [Line(pair, self._personal.clamped(plan_search(
                    multi.as_search(pair, request, target), self._settings, now)),
                     any(trace in pair.body for trace in OWN_TRACES)) for pair in pairs]

    @staticmethod
    def _without_own(request: HttpRequest, lines: Sequence[Line]) -> HttpRequest:
        """Return the request as OpenSearch may see it; its bytes as they came where they may."""
        if not any(line.holds_own for line in lines):
            return without_controls(request)
        return _with_lines(request, [multi.as_pair(line.plan.request, line.pair)
                                     for line in lines])

    def _personalised(self, request: HttpRequest, lines: Sequence[Line], outcome: Outcome,
                      client: socket.socket | None) -> Reply:
        asked = [multi.as_pair(self._begun(line), line.pair) for line in lines]
        response, many = self._ask(request, asked, outcome, client)
        bodies = self._with_own_answers(request, lines, many.answers, outcome, client)
        written = [self._written(line, body, outcome, client)
                   for line, body in zip(lines, bodies, strict=True)]
        accepted = headers.get(request.headers, "accept-encoding")
        return finished(replace(response, body=many.with_answers(written)), accepted, outcome)

    def _begun(self, line: Line) -> HttpRequest:
        """Begin to read a line's history, if it is to be ranked; return what to ask for it."""
        if line.plan.skip is not None:
            return line.plan.request
        try:
            search = fetches.whole_fetch(line.plan, self._settings.item_id_field)
        except UnreadableError:
            line.plan = replace(line.plan, skip=SkipReason.NO_IDS)
            return line.plan.request
        assert line.plan.context is not None
        line.ticket = self._personal.personalizer.begin(line.plan.context)
        return search

    def _ask(self, request: HttpRequest, pairs: Sequence[LinePair], outcome: Outcome,
             client: socket.socket | None) -> tuple[HttpResponse, MultiAnswer]:
        """Ask for these searches; raises Skip or UnreadableError without an answer to each."""
        bare = headers.replaced(request.headers, accept_encoding=None)
        with outcome.stage("upstream"):
            response = self._personal.upstream.begin(
                _with_lines(replace(request, headers=bare), pairs), idempotent=True,
                client=client).result()
        if response.status != 200:
            raise Skip(SkipReason.UPSTREAM_ERROR)
        with outcome.stage("parse"):
            many = multi.read_multi_answer(response.body)
        if len(many.answers) != len(pairs):
            raise UnreadableError("a multi-search with more or fewer answers than searches")
        return response, many

    def _with_own_answers(self, request: HttpRequest, lines: Sequence[Line],
                          bodies: Sequence[bytes], outcome: Outcome,
                          client: socket.socket | None) -> list[bytes]:
        """Return the answers; those of lines in doubt as they are to the client's own words."""
        with outcome.stage("parse"):
            doubts = {place: self._doubt(line, body)
                      for place, (line, body) in enumerate(zip(lines, bodies, strict=True))}
        again = {place: reason for place, reason in doubts.items() if reason is not None}
        told = list(bodies)
        if not again:
            return told
        own = [multi.as_pair(lines[place].plan.request, lines[place].pair) for place in again]
        _, many = self._ask(request, own, outcome, client)
        for (place, reason), body in zip(again.items(), many.answers, strict=True):
            line = lines[place]
            if reason is SkipReason.UPSTREAM_ERROR:
                failed = failed_shards(told[place])
                if failed and failed == failed_shards(body):
                    continue
                self._personal.learns_limit(line.plan, told[place])
            told[place] = body
            line.plan = replace(line.plan, skip=reason)
        return told

    def _doubt(self, line: Line, body: bytes) -> SkipReason | None:
        """Take apart the answer of a line that is to be ranked; return why the client's own search
        might get a better answer.

        It might if OpenSearch refused ours, if shards failed, perhaps over hits that the client did
        not ask for, or if the hits cannot be told apart.
        """
        if line.ticket is None:
            return None
        try:
            status = multi.status_of(body)
            if status != 200:
                return SkipReason.UPSTREAM_ERROR if may_be_our_doing(status) else None
            line.answer = read_answer(body, self._settings.item_id_field)
            return SkipReason.UPSTREAM_ERROR if failed_shards(body) else None
        except UnreadableError:
            return SkipReason.NO_IDS

    def _written(self, line: Line, body: bytes, whole: Outcome,
                 client: socket.socket | None) -> bytes:
        """Return one line's answer with its page in it; a refusal as it came."""
        if line.ticket is None or line.plan.skip is not None:
            whole.joined(line.plan.skip)
            return body
        if line.answer is None:
            whole.joined(SkipReason.UPSTREAM_ERROR)
            return body
        outcome = self._personal.outcome()
        search = PersonalSearch(self._personal.shared, line.plan, outcome, client)
        fetched = Fetched(HttpResponse(200, (), body), line.answer, is_whole=True)
        written = search.written(fetched, line.ticket)
        whole.joined(outcome.reason, outcome)
        return body if written is None else written


def _with_lines(request: HttpRequest, pairs: Sequence[LinePair]) -> HttpRequest:
    bare = without_controls(request)
    return replace(bare, body=multi.write_pairs(pairs), headers=headers.replaced(
        bare.headers, content_length=None, content_encoding=None))
