"""One model, ready to rank: candidates, a user's state and a query go in, an order comes out.

The proxy, the plugin's endpoint and ``evaluate`` all call ``rank``. Several threads may call it at
once. Meanwhile one thread may write into the item table, and one may call ``count``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sidecar.errors import Skip
from sidecar.ranking.blend import Blend
from sidecar.ranking.diversity import diversify
from sidecar.ranking.encoder import Encoder, KindCodes
from sidecar.ranking.explain import Reasons
from sidecar.ranking.history import Trail
from sidecar.ranking.items import ItemTable
from sidecar.ranking.kinds import is_among, strength
from sidecar.ranking.logits import half_logits, logits
from sidecar.ranking.networks import BlendJob, RemoteNetworks
from sidecar.ranking.packed_blend import PackedBlend
from sidecar.ranking.signals import SIGNALS, Knowledge, Situation, facts, prepare_trail
from sidecar.ranking.statistics import ItemStatistics
from sidecar.ranking.stepper import Stepper
from sidecar.records import (
    NEVER_WRITTEN,
    Candidates,
    FloatArray,
    History,
    IntArray,
    ItemEvent,
    QueryContext,
    Ranking,
    SkipReason,
    UserState,
)

_ENGINE = SIGNALS.index("engine")
ENGINE_STEEPNESS = 12.0  # how much the engine's own order weighs as strength goes to 0


@dataclass(frozen=True, slots=True)
class RankerConfig:
    """What a model was trained to do.

    ``kinds`` are the event words in the order of their codes (from 1); ``strong_kinds`` those it
    brings about; ``kept`` the events of a history that it reads; ``is_personal`` is False if the
    held-out lists did not show a personal gain. Shoppers with history then get the unpersonalised
    order if ``beats_engine`` (those lists showed it to be better than the engine's), or else the
    engine's own.
    """

    kinds: tuple[str, ...]
    strong_kinds: frozenset[str]
    kept: int = 500
    is_personal: bool = True
    beats_engine: bool = False


class Ranker:
    """A loaded model over an item table."""

    def __init__(self, version: str, config: RankerConfig, knowledge: Knowledge,
                 encoder: Encoder, blend: Blend, device: str = "cpu") -> None:
        self.version = version
        self.config = config
        self.knowledge = knowledge
        self.encoder = encoder.to(device).eval()
        self.blend = blend.to(device).eval()
        self._packed = PackedBlend(self.blend)
        self._projection = self._read_projection()
        self.device = torch.device(device)
        self.orders_strangers = False
        self._parts_elsewhere: Callable[[BlendJob], FloatArray | None] | None = None
        # Marks what it leaves in a state's memo, where the ranker itself would outlive a swap.
        self._mark = object()
        self._stepper = Stepper(self.encoder, knowledge.items, KindCodes(config.kinds))
        self.items.encode = _TowerVectors(self.encoder, self.device)

    def use(self, elsewhere: RemoteNetworks) -> None:
        """Let networks of this version in another process work for this ranker when they can."""
        self._parts_elsewhere = partial(elsewhere.parts, self.version)
        self._stepper.elsewhere = partial(elsewhere.steps, self.version)

    @property
    def items(self) -> ItemTable:
        """The catalogue as the model sees it."""
        return self.knowledge.items

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        """Order K candidates for a user.

        The blended score is w · (sum of signals) + (1 − w) · (the engine's order), w the context's
        weight; every part carries its share, so the parts add up to the score. Where diversity is
        asked for, what a hit loses by it is a part too.

        Raises:
            Skip: NO_HISTORY when nothing that the user did concerns a known item and strangers
                are not ranked; GATED when this model proved to be better in no way;
                UNKNOWN_ITEMS when the catalogue has none of the candidates: another index.
        """
        rows = self.items.rows(candidates.item_ids)
        trail = self._trail_of(state)
        has_history = trail.has_items
        self._refuse(has_history, context.attributes)
        if len(rows) and rows.max() < 0:
            raise Skip(SkipReason.UNKNOWN_ITEMS)
        state_version = state.version if state else NEVER_WRITTEN
        if not len(rows):
            return Ranking(np.zeros(0, np.int64), np.zeros(0, np.float32), {}, (), state_version,
                           self.version)
        attributes = context.attributes
        if not self.config.is_personal:  # everybody is a stranger
            trail, has_history, attributes = Trail.empty(), False, {}
        interest = self._interest(state) if state and has_history else None
        situation = Situation(
            rows, candidates.engine_scores, trail, context.now, context.query,
            None if interest is None else self._logits(rows, interest), attributes=attributes)
        features, around = facts(self.knowledge, situation)
        found = self._parts(features, around, has_history, context.weight)
        parts = dict(zip(SIGNALS, found, strict=True))
        scores: FloatArray = found.sum(axis=0)
        order, reached = diversify(scores, rows, self.items, context.diversity)
        if context.diversity > 0:
            parts["diversity"], scores = reached - scores, reached
        told = Reasons(self.knowledge, situation, state.history, parts) if (
            context.explain and state) else ()
        return Ranking(order, scores, parts, told, state_version, self.version)

    def prepare(self, state: UserState) -> None:
        """Work out what a state says whatever is searched for, and keep it in the state's memo.

        For the time in which the hits are not there yet: a fifth of a ranking.
        """
        trail = self._trail_of(state)
        if trail.has_items and self.config.is_personal:
            prepare_trail(self.knowledge, trail)

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        """Step the encoder over events, oldest first; see ``Stepper.advance``."""
        return self._stepper.advance(hidden, events)

    def advance_many(self, hiddens: Sequence[FloatArray | None],
                     histories: Sequence[History]) -> list[FloatArray]:
        """Step many users in one pass; see ``Stepper.advance_many``."""
        return self._stepper.advance_many(hiddens, histories)

    @property
    def counted_until(self) -> float:
        """The instant (seconds) up to which events are in the items' counts."""
        return self.knowledge.statistics.clock

    def count(self, pages: Iterable[Sequence[ItemEvent]], now: float) -> int:
        """Count events of the time up to ``now`` (seconds), all at once for a search; return how
        many were of known items. If ``pages`` breaks off, what came before counts: it is not read
        again."""
        statistics: ItemStatistics | None = None  # one copy, which may be of a million items
        counted, strong = 0, self.config.strong_kinds
        try:
            for page in pages:
                rows = self.items.rows([event.item_id for event in page])
                known, ts = rows >= 0, np.array([event.ts for event in page])
                if not known.any():
                    continue
                if statistics is None:
                    statistics = self.knowledge.statistics.copy()
                statistics.grow(len(self.items))
                statistics.advance(max(now, float(ts[known].max())), rows, ts,
                                   np.array([strength(event.event) for event in page]),
                                   np.array([is_among(event.event, strong) for event in page]))
                counted += int(known.sum())
        finally:
            if statistics is not None:
                self.knowledge = replace(self.knowledge, statistics=statistics)
        return counted

    def warm_up(self) -> None:
        """Rank and step once, so that no request pays for lazy loading."""
        if not len(self.items):
            return
        ids = tuple(self.items.ids[:100])
        kind = next(iter(self.config.strong_kinds), "purchase")
        history = History(ids[:2], (kind,) * len(ids[:2]), (0.0, 1.0)[:len(ids[:2])],
                          (None,) * len(ids[:2]), ("a", "b")[:len(ids[:2])])
        state = UserState("warm-up", history, self.advance(None, history), self.version)
        candidates = Candidates(ids, np.linspace(2, 1, len(ids), dtype=np.float32))
        for explain in (False, True):
            context = QueryContext("warm-up", "warm up", now=2.0, explain=explain)
            try:
                self.rank(candidates, state, context)
            except Skip:
                return

    def _trail_of(self, state: UserState | None) -> Trail:
        """Return a state's trail, from its memo where this very ranker left it there and the
        catalogue has not grown since: rows of another table, even of the same model read again, may
        be other items' rows."""
        if state is None:
            return Trail.empty()
        kept = (self._mark, len(self.items), self.config.kept)
        found: tuple[object, Trail] | None = state.memo.get("trail")
        if found is not None and found[0] == kept:
            return found[1]
        trail = self.trail(state.history)
        state.memo["trail"] = (kept, trail)
        return trail

    def trail(self, history: History) -> Trail:
        """Return the kept events as arrays."""
        kept = slice(max(0, len(history) - self.config.kept), None)
        return Trail.from_events(self.items.rows(history.item_ids[kept]), history.ts[kept],
                                 history.events[kept], self.config.strong_kinds)

    def _refuse(self, has_history: bool, attributes: Mapping[str, Any]) -> None:
        if self.orders_strangers:
            return
        config = self.config
        if not (config.is_personal or config.beats_engine):
            raise Skip(SkipReason.GATED)
        is_placed = config.is_personal and self.knowledge.segments.knows(attributes)
        if not (has_history or is_placed):
            raise Skip(SkipReason.NO_HISTORY)

    def _interest(self, state: UserState) -> FloatArray:
        """Return the interest vector z (D)."""
        hidden = state.hidden
        if hidden is None or state.model_version != self.version:
            hidden = self.advance(None, state.history)
        project, shift, _ = self._projection
        interest: FloatArray = hidden[-2] @ project + shift
        return interest

    def _logits(self, rows: IntArray, interest: FloatArray) -> FloatArray:
        """Return v_i · z + b (K), 0 for unknown items."""
        vectors, bias = self.items.vectors, self._projection[2]
        if vectors.dtype == np.float16:
            return half_logits(vectors.view(np.uint16), rows, interest, bias)
        return logits(vectors, rows, interest, bias)

    def _read_projection(self) -> tuple[FloatArray, FloatArray, float]:
        """Return what makes a hidden state (W) an interest vector (D), for numpy: a call into
        torch costs more than the product."""
        project = self.encoder.project
        return (project.weight.detach().cpu().numpy().T, project.bias.detach().cpu().numpy(),
                float(self.encoder.bias.detach()))

    def _parts(self, features: FloatArray, context: FloatArray, has_history: bool,
               weight: float) -> FloatArray:
        """Return the signals' parts (S, K), the engine's own order among them."""
        parts = None
        if self._parts_elsewhere is not None:
            parts = self._parts_elsewhere(BlendJob(features, context, has_history))
        if parts is None:
            parts = self._packed.parts(features, context, has_history=has_history)
        found: FloatArray = parts.T * np.float32(weight)
        if weight < 1:
            own = ENGINE_STEEPNESS / np.log2(np.arange(len(features)) + 2.0)
            found[_ENGINE] += (1 - weight) * own
        return found


class _TowerVectors:
    """What an item table calls for its vectors. It knows the encoder and not the ranker: a model
    that nothing refers back to goes as soon as it is switched out, without the collector."""

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self._encoder = encoder
        self._device = device

    def __call__(self, table: ItemTable, index: IntArray) -> FloatArray:
        """Return the item tower's vectors (m, D) for rows of the table."""
        with torch.inference_mode():
            vectors = self._encoder.tower(
                self._tensor(index), self._tensor(table.brand[index].astype(np.int64)),
                self._tensor(table.categories[index].astype(np.int64)),
                self._tensor(table.texts(index)),
                self._tensor(table.numbers[index]))
        result: FloatArray = vectors.cpu().numpy()
        return result

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        given = np.require(array, requirements=("C", "W"))  # torch warns of what is read-only
        return torch.from_numpy(given).to(self._device)
