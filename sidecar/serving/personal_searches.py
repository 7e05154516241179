"""The searches of a process that are to be personalised, and what the next learns from one.

A process remembers windows that an index refused, and indices whose ids did not serve: for a while
only, since mappings and settings change.
"""

from __future__ import annotations

import socket

from sidecar.search import refusals
from sidecar.search.plans import SearchPlan, with_smaller_window
from sidecar.serving.expiring import Expiring
from sidecar.serving.hit_cache import HitCache
from sidecar.serving.outcomes import Outcome
from sidecar.serving.passing import Reply
from sidecar.serving.personal_search import PersonalSearch, Refused, Shared
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.shown import ShownLog, ShownOrders
from sidecar.settings import Settings
from sidecar.stores.upstream import Upstream

WHOLE_FOR_S = 10.0
LIMIT_FOR_S = 60.0


class PersonalSearches:
    """Answers searches whose plan is to be ranked; used by all threads of a process."""

    def __init__(self, settings: Settings, upstream: Upstream, personalizer: Personalizer,
                 shown: ShownLog | None, hits: HitCache | None = None) -> None:
        self.settings = settings
        self.upstream = upstream
        self.personalizer = personalizer
        orders = ShownOrders(shown, takes_ubi=settings.ubi == "take")
        self.shared = Shared(settings, upstream, personalizer, orders, hits, Expiring(WHOLE_FOR_S))
        self._window_limits: Expiring[int] = Expiring(LIMIT_FOR_S)

    def outcome(self) -> Outcome:
        """Begin to measure a search."""
        return Outcome(self.personalizer.telemetry)

    def reply(self, plan: SearchPlan, outcome: Outcome, client: socket.socket | None) -> Reply:
        """Answer a search whose plan has no skip.

        Raises:
            UpstreamError: OpenSearch could not be asked.
            ClientGone: the client hung up.
        """
        plan = self.clamped(plan)
        search = PersonalSearch(self.shared, plan, outcome, client)
        if plan.skip is not None:
            return search.passed(plan.skip)
        try:
            return search.run()
        except Refused as refused:
            if not self.learns_limit(plan, refused.response.body):
                return search.refused(refused.response)
            return self.reply(plan, outcome, client)

    def clamped(self, plan: SearchPlan) -> SearchPlan:
        """Return the plan with a window that its index is known to allow."""
        if plan.search is None or plan.skip is not None:
            return plan
        limit = self._window_limits.get(plan.search.target.index_expression())
        return plan if limit is None else with_smaller_window(plan, limit)

    def learns_limit(self, plan: SearchPlan, refusal: bytes) -> bool:
        """Remember the widest window of an index that refused this plan's; False if it did not."""
        limit = refusals.window_limit(refusal)
        if limit is None or plan.search is None or plan.window is None:
            return False
        if not 0 < limit < plan.window.hits:
            return False
        self._window_limits.put(plan.search.target.index_expression(), limit)
        return True
