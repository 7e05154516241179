"""All shoppers' histories side by side, and how an encoder walks through them: chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.ranking.encoder import KindCodes
from sidecar.ranking.items import ItemTable
from sidecar.ranking.vocabulary import TEXT_WIDTH, words_of
from sidecar.records import FloatArray, IntArray
from sidecar.training.event_table import EventTable

CHUNK_STEPS = 64
LEAST_LONG = 10  # events a shopper, from which on little of a chunk is padding
MOST_TAUGHT = 10_000  # events of a shopper, the latest: more are no shopper's, but a crawler's


@dataclass(frozen=True, slots=True)
class Sequences:
    """All users' histories side by side: user u's is ``[offsets[u]:offsets[u+1]]``, by time."""

    offsets: IntArray
    item: IntArray
    kind: IntArray
    gap_s: FloatArray
    ts: npt.NDArray[np.float64]
    query: npt.NDArray[np.int32]
    visit_end: IntArray  # first position after the visit
    query_text: FloatArray  # (queries + 1, TEXT_WIDTH), the last row zero
    is_wanted: npt.NDArray[np.bool_]  # an event of positive strength: no return

    @classmethod
    def of(cls, events: EventTable, table: ItemTable,
           kinds: Sequence[str] | None = None) -> Sequences:
        """Lay a log out by user; ``kinds``: a trained model's event words (default: the log's)."""
        codes = KindCodes(events.kinds if kinds is None else kinds)
        code_of = np.array([codes[word] for word in events.kinds], np.int64)
        order, offsets = events.histories()
        ts = events.ts[order]
        gaps = np.diff(ts, prepend=ts[:1])
        gaps[offsets[:-1][offsets[:-1] < len(gaps)]] = 0.0
        text = np.zeros((len(events.queries) + 1, TEXT_WIDTH), np.float32)
        known = table.vocabulary
        for k, query in enumerate(events.queries):
            text[k] = known.text_vector(known.word_codes(words_of(query)))
        return cls(offsets, events.item[order].astype(np.int64),
                   code_of[events.kind[order]],
                   np.maximum(gaps, 0).astype(np.float32), ts, events.query[order],
                   _visit_ends(events.visit[order], offsets), text,
                   events.is_positive()[order])


@dataclass(frozen=True, slots=True)
class Chunk:
    """Positions (B, T) into the sequences, -1 for padding, and target rows (B, T), -1 for none.
    ``goes_on`` (of the chunk before): which of its users are in this one; the others have ended."""

    at: IntArray
    target: IntArray
    goes_on: npt.NDArray[np.bool_]


def chunks_of(batch: IntArray, sequences: Sequences,
              rng: np.random.Generator | None) -> Iterator[Chunk]:
    """Yield a batch's steps, CHUNK_STEPS at a time; with ``rng`` the last MOST_TAUGHT of each user,
    and targets. Where a log's histories are short, most of them would be padding: there are no more
    than the longest has, ten times as fast at two events. A user whose history has ended takes no
    further part, or one of 100,000 events would take as long as 64 of them."""
    starts, stops = _span(batch, sequences, None if rng is None else MOST_TAUGHT)
    longest = int((stops - starts).max())
    shoppers = np.count_nonzero(np.diff(sequences.offsets))
    is_long = len(sequences.item) >= LEAST_LONG * shoppers
    was_on = np.ones(len(batch), bool)
    for first in range(0, longest, CHUNK_STEPS):
        width = CHUNK_STEPS if is_long else min(CHUNK_STEPS, longest - first)
        at = starts[:, None] + first + np.arange(width)[None, :]
        at = np.where(at < stops[:, None], at, -1)
        target = np.full(at.shape, -1, np.int64) if rng is None else _targets(
            at, stops, sequences, rng)
        is_on = at[:, 0] >= 0
        yield Chunk(at[is_on], target[is_on], is_on[was_on])
        was_on = is_on


def chunk_count(batch: IntArray, sequences: Sequences) -> int:
    """Return how many chunks ``chunks_of`` yields of a batch in training."""
    starts, stops = _span(batch, sequences, MOST_TAUGHT)
    return -(-int((stops - starts).max()) // CHUNK_STEPS)


def _span(batch: IntArray, sequences: Sequences, most: int | None) -> tuple[IntArray, IntArray]:
    """Return where the last ``most`` events (None: all) of each user (B) start and stop."""
    starts, stops = sequences.offsets[batch], sequences.offsets[batch + 1]
    return (starts if most is None else np.maximum(starts, stops - most)), stops


def _targets(at: IntArray, stops: IntArray, sequences: Sequences,
             rng: np.random.Generator) -> IntArray:
    """Return a target row for each position, -1 where nothing follows."""
    index = np.maximum(at, 0)
    ends = sequences.visit_end
    next_start = ends[index]
    limit = np.broadcast_to(stops[:, None], at.shape)
    has_next = (next_start < limit) & (at >= 0)
    safe = np.minimum(next_start, len(sequences.item) - 1)
    width = np.maximum(np.minimum(ends[safe], limit) - next_start, 1)
    later = next_start + (rng.random(at.shape) * width).astype(np.int64)
    soon = index + 1
    has_soon = (soon < limit) & (at >= 0)
    use_later = has_next & (~has_soon | (rng.random(at.shape) < 0.5))
    chosen = np.where(use_later, later, np.where(has_soon, soon, -1))
    place = np.clip(chosen, 0, len(sequences.item) - 1)
    return np.where((chosen >= 0) & sequences.is_wanted[place], sequences.item[place], -1)


def _visit_ends(visit: IntArray, offsets: IntArray) -> IntArray:
    """Return, for each position, the first position after its visit."""
    size = len(visit)
    is_last = np.ones(size, bool)
    is_last[:-1] = visit[1:] != visit[:-1]
    is_last[offsets[1:][offsets[1:] > 0] - 1] = True
    last = np.flatnonzero(is_last)
    return last[np.searchsorted(last, np.arange(size))] + 1
