"""The lists that the blend learns from: each search's facts at its own moment, padded.

A ``ListMaker`` walks through the log once. Every list reads the history and the popularity of its
own moment, and the associations and the encoder of the moment when its block of the log began.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from sidecar.ranking.blend import window_scores
from sidecar.ranking.encoder import Encoder
from sidecar.ranking.history import Trail
from sidecar.ranking.kernels import CONTEXT
from sidecar.ranking.signals import FEATURES, Knowledge, Situation, facts
from sidecar.records import FloatArray, IntArray
from sidecar.training.encoder_training import states_at
from sidecar.training.event_table import EventTable
from sidecar.training.examples import Example
from sidecar.training.walk import Walk

BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Lists:
    """N lists, padded to K candidates: features and their z-scores within the window (N, K, F),
    context (N, C), ``target`` and ``valid`` (N, K), ``has_history`` (N) and ``is_own`` (N), where
    it is that of who searched; ``position`` (N, K) where a candidate was shown, -1 where that was
    not logged."""

    features: FloatArray
    z_scores: FloatArray
    context: FloatArray
    target: BoolArray
    valid: BoolArray
    has_history: BoolArray
    is_own: BoolArray
    position: npt.NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.features)

    @classmethod
    def empty(cls, examples: Sequence[Example], dtype: npt.DTypeLike = np.float32,
              kept: Sequence[IntArray] | None = None) -> Lists:
        """Make room for some searches; ``dtype`` float16 halves the memory. ``kept``: the
        candidates of each that are kept (default: all)."""
        kept = kept or [np.arange(len(e.rows)) for e in examples]
        count, longest = len(examples), max((len(index) for index in kept), default=0)
        valid = np.zeros((count, longest), bool)
        target = np.zeros((count, longest), bool)
        position = np.full((count, longest), -1, np.int16)
        for k, (example, index) in enumerate(zip(examples, kept, strict=True)):
            valid[k, :len(index)] = True
            target[k, :len(index)] = example.target[index]
            if example.position is not None:
                position[k, :len(index)] = example.position[index]
        return cls(np.zeros((count, longest, len(FEATURES)), dtype),
                   np.zeros((count, longest, len(FEATURES)), dtype),
                   np.zeros((count, len(CONTEXT)), np.float32), target, valid,
                   np.zeros(count, bool), np.ones(count, bool), position)

    def take(self, index: IntArray | slice) -> Lists:
        """Return some of the lists."""
        return Lists(self.features[index], self.z_scores[index], self.context[index],
                     self.target[index], self.valid[index], self.has_history[index],
                     self.is_own[index], self.position[index])


class ListMaker:
    """Fills ``lists`` (N) for ``examples`` (N, ascending in time), a block at a time.

    ``users`` (N) says whose history each list gets, -1 for none. ``kinds`` are a trained model's
    event words, if there is a model: a log's own may come in another order. ``most`` candidates of
    each list are kept, its targets and a sample of the others; facts and z-scores are those of
    the whole window. (40 of a hundred for eight epochs gave as much on two dev windows as all of
    them for five, in two thirds of the time.)
    """

    def __init__(self, events: EventTable, examples: Sequence[Example], users: IntArray, walk: Walk,
                 *, kinds: Sequence[str] | None = None, dtype: npt.DTypeLike = np.float32,
                 most: int | None = None, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._kept = [_sample(e, most, rng) for e in examples]
        self.lists = Lists.empty(examples, dtype, self._kept)
        self.lists.is_own[:] = [e.user == user for e, user in zip(examples, users, strict=True)]
        self._events, self._examples, self._users = events, examples, users
        self._walk, self._kinds = walk, kinds
        self._done = 0

    def fill(self, knowledge: Knowledge, encoder: Encoder | None, until: float,
             progress: Callable[[int, float], None]) -> None:
        """Work out the lists from where the last call ended up to instant ``until``."""
        start = self._done
        while self._done < len(self._examples) and self._examples[self._done].ts < until:
            self._done += 1
        cut = slice(start, self._done)
        if cut.start == cut.stop:
            progress(1000, 0.0)
            return
        interests = self._interests(cut, knowledge, encoder) if encoder else None
        bias = float(encoder.bias.detach()) if encoder else 0.0
        knowledge = replace(knowledge, statistics=self._walk.statistics)
        for k in range(cut.start, cut.stop):
            self._fill_one(k, knowledge, None if interests is None else interests[k - start], bias)
            progress(1000 * (k + 1 - start) // (cut.stop - start), 0.0)

    def _interests(self, cut: slice, knowledge: Knowledge,
                   encoder: Encoder) -> FloatArray:
        """Return the interest vectors (m, D) of the block's users at its lists."""
        instants = np.array([e.ts for e in self._examples[cut]])
        states = states_at(encoder, self._events, knowledge.items, self._users[cut], instants,
                           self._kinds)
        device = next(encoder.parameters()).device
        with torch.inference_mode():
            interests: FloatArray = encoder.interest(
                torch.from_numpy(states).to(device)).cpu().numpy()
        return interests

    def _fill_one(self, k: int, knowledge: Knowledge, interest: FloatArray | None,
                  bias: float) -> None:
        example, user = self._examples[k], int(self._users[k])
        self._walk.advance(example.ts)
        trail = self._walk.trail(user, example.ts) if user >= 0 else Trail.empty()
        known = trail.has_items
        interest = interest if known else None
        logits = None
        if interest is not None:
            vectors = knowledge.items.vectors[np.maximum(example.rows, 0)]
            logits = (vectors @ interest + bias) * (example.rows >= 0)
        rows, around = facts(knowledge, Situation(
            example.rows, example.scores, trail, example.ts, example.query, logits,
            self._walk.recall(example.query, example.ts)))
        lists, kept = self.lists, self._kept[k]
        lists.features[k, :len(kept)] = rows[kept]
        lists.z_scores[k, :len(kept)] = window_scores(rows)[kept]
        lists.context[k] = around
        lists.has_history[k] = known


def _sample(example: Example, most: int | None, rng: np.random.Generator) -> IntArray:
    """Return the candidates of a list that are kept, in the engine's order."""
    if most is None or len(example.rows) <= most:
        return np.arange(len(example.rows))
    others = np.flatnonzero(~example.target)
    targets = np.flatnonzero(example.target)[:most - 1]
    chosen = rng.choice(others, min(most - len(targets), len(others)), replace=False)
    return np.sort(np.concatenate([targets, chosen]))
