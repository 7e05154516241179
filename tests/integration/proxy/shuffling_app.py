"""The search gateway as it ships, over a model whose order is as good as random, yet always the
same: what a proxy test needs to see whether hits, and nothing else, changed places.

User ``u1`` has a history, nobody else has.
"""

from __future__ import annotations

import time
import zlib

import numpy as np

from sidecar.records import Candidates, History, QueryContext, Ranking, UserState
from sidecar.serving.hit_cache import HitCache
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryStateStore
from sidecar.stores.query_log import QueryLog
from sidecar.stores.upstream import Upstream
from sidecar.web.gateway import SearchGateway


class ShufflingRanker:
    """Scores an item by its id's checksum; ``context.query`` can make it slow or fail."""

    version = "shuffling"
    items: dict[str, object] = {}  # noqa: RUF012 (never written)

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        if context.query == "slow ranking":
            time.sleep(2.0)
        if context.query == "broken ranking":
            raise ValueError("broken")
        scores = np.array([zlib.crc32(item.encode()) % 1009 for item in candidates.item_ids],
                          np.float32)
        return Ranking(np.argsort(-scores, kind="stable"), scores, {"chance": scores},
                       tuple(("by chance",) for _ in scores),
                       -1 if state is None else state.version, self.version)

    def prepare(self, state: UserState) -> None:
        pass

    def advance(self, hidden: object, events: History) -> np.ndarray:
        return np.zeros((1, 2), np.float32)

    def warm_up(self) -> None:
        pass


def application(ranker: ShufflingRanker | None = None) -> SearchGateway:
    settings = Settings.from_environ()
    upstream = Upstream(settings)
    states = MemoryStateStore()
    history = History(("a1",), ("click",), (0.0,), (None,), ("e1",))
    states.put_many([UserState("u1", history, np.zeros((1, 2), np.float32),
                                 ShufflingRanker.version, 1)])
    chosen = ranker or ShufflingRanker()
    personalizer = Personalizer(settings, states, lambda: chosen, Telemetry())
    hits = HitCache(lambda index: index)  # no index of these tests comes back under its name
    return SearchGateway(settings, upstream, personalizer, QueryLog(settings, upstream), hits)
