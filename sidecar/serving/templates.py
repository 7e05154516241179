"""Searches that are templates: OpenSearch renders them, and then they are ordinary searches."""

from __future__ import annotations

import socket
from dataclasses import replace

from sidecar.errors import UnreadableError
from sidecar.records import HttpRequest, SkipReason
from sidecar.search import multi, templates
from sidecar.search.controls import own_sections
from sidecar.search.plans import SearchPlan, plan_search
from sidecar.search.requests import without_controls
from sidecar.search.targets import parse
from sidecar.search.templates import Template
from sidecar.serving.instants import shared_instant
from sidecar.serving.multi_searches import Line, MultiSearches
from sidecar.serving.outcomes import Outcome
from sidecar.serving.passing import Reply, passed
from sidecar.serving.personal_searches import PersonalSearches

AT_ONCE = 8  # renderings under way together for one multi-search


class Templates:
    """Answers template searches; used by all threads of a process."""

    def __init__(self, personal: PersonalSearches, multi_searches: MultiSearches) -> None:
        self._personal = personal
        self._multi = multi_searches
        self._own = own_sections(personal.settings)

    def reply(self, request: HttpRequest, outcome: Outcome,
              client: socket.socket | None) -> Reply:
        """Answer a template search; raises as ``SearchPath.answer``."""
        try:
            template = templates.take_template_apart(request, self._own)
        except UnreadableError:
            outcome.skipped(SkipReason.UNREADABLE)
            return passed(self._personal.upstream, without_controls(request), outcome, client)
        reason = templates.reason_to_pass(request, template, self._personal.settings)
        search = None
        if reason is None:
            search = self._rendered(request, template, outcome, client)
        if search is None:
            outcome.skipped(reason or SkipReason.UPSTREAM_ERROR)
            return passed(self._personal.upstream, template.untouched, outcome, client)
        with outcome.stage("parse"):
            plan = self._planned(search, template)
        if plan.skip is None:
            return self._personal.reply(plan, outcome, client)
        outcome.skipped(plan.skip)
        return self._personal.shared.passed(plan, outcome, client)

    def reply_to_many(self, request: HttpRequest, outcome: Outcome,
                      client: socket.socket | None) -> Reply:
        """Answer a multi-search of templates; raises as ``SearchPath.answer``.

        OpenSearch gets templates to the end: unlike ``_msearch`` it then answers a search that it
        cannot parse in that search's place, not in that of them all.
        """
        try:
            lines = self._all_planned(request, outcome, client)
        except UnreadableError:
            outcome.skipped(SkipReason.UNREADABLE)
            return passed(self._personal.upstream, without_controls(request), outcome, client)
        return self._multi.reply_to(request, lines, outcome, client)

    def _planned(self, search: HttpRequest, template: Template) -> SearchPlan:
        """Plan a rendered search; what passes through passes as the template that came."""
        plan = plan_search(search, self._personal.settings, shared_instant(), is_template=True)
        is_altered = templates.holds_own_ext(search, self._own) and plan.search is not None
        if plan.skip is SkipReason.BEYOND_WINDOW or is_altered:
            return plan
        return replace(plan, request=template.untouched)

    def _rendered(self, request: HttpRequest, template: Template, outcome: Outcome,
                  client: socket.socket | None) -> HttpRequest | None:
        """Return the search that a template stands for; None if OpenSearch cannot render it."""
        with outcome.stage("upstream"):
            response = self._personal.upstream.begin(template.rendering, idempotent=True,
                                                     client=client).result()
        try:
            return (templates.rendered_search(request, template, response.body)
                    if response.status == 200 else None)
        except UnreadableError:
            return None

    def _all_planned(self, request: HttpRequest, outcome: Outcome,
                     client: socket.socket | None) -> list[Line]:
        """Return the lines, each planned as the search that its template stands for.

        Raises:
            UnreadableError: one of them cannot be read or rendered.
        """
        target, pairs = parse(request.target), multi.pairs_of(request)
        outcome.searches = len(pairs)
        lines: list[Line] = []
        for begin in range(0, len(pairs), AT_ONCE):
            some = pairs[begin:begin + AT_ONCE]
            parts = [templates.take_template_apart(replace(request, body=pair.body), self._own)
                     for pair in some]
            with outcome.stage("upstream"):
                answers = self._personal.upstream.fetch_together(
                    [part.rendering for part in parts], idempotent=True, client=client)
            for pair, part, answer in zip(some, parts, answers, strict=True):
                if answer.status != 200:
                    raise UnreadableError("a template that OpenSearch does not render")
                search = templates.rendered_search(
                    multi.as_search(pair, request, target), part, answer.body)
                plan = self._personal.clamped(self._planned(search, part))
                lines.append(Line(pair, plan, templates.holds_own_ext(search, self._own)))
        return lines
