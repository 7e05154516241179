"""The gateway over a model that keeps the engine's order, and says that it was applied: every
answer is taken apart and written anew, and must be the one that OpenSearch gave.
"""

from __future__ import annotations

import numpy as np
import shuffling_app

from sidecar.records import Candidates, QueryContext, Ranking, UserState
from sidecar.web.gateway import SearchGateway


class OrderlyRanker(shuffling_app.ShufflingRanker):
    """Scores fall with the engine's rank."""

    version = "orderly"

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        scores = -np.arange(len(candidates), dtype=np.float32)
        return Ranking(np.arange(len(candidates)), scores, {"engine": scores}, (),
                       -1 if state is None else state.version, self.version)


def application() -> SearchGateway:
    return shuffling_app.application(OrderlyRanker())
