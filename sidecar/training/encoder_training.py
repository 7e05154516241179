"""Teaches the encoder to name what a shopper takes next.

Sampled softmax with log-q correction (Bengio and Senécal 2008): each step's logit of its target
competes with negatives drawn half by popularity, half uniformly, every logit less the log of its
expected count among the draws; a negative that is the target is masked. They are not the batch's
other targets: those are distributed about as the half by popularity is (Yi et al. 2019, RecSys),
but come in runs of one shopper's, and never are what nobody takes, which the uniform half holds
down. The target of a step is a random item of the user's next visit (what a search after this
visit should find) or, half the time and where there is no next visit, the next item of this one.

Known mistakes of GRU4Rec's copies, avoided here: states start at zero for each user and are
carried, detached, from chunk to chunk of the same user only; the loss takes logits, not
probabilities; negatives are scored with the same tower as targets; ids drop out in training only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidecar.ranking.encoder import Encoder, KindCodes
from sidecar.ranking.items import ItemTable
from sidecar.ranking.vocabulary import TEXT_WIDTH, words_of
from sidecar.records import FloatArray, IntArray
from sidecar.training.event_table import EventTable
from sidecar.training.row_adam import RowAdam
from sidecar.training.schedule import one_cycle

BATCH_USERS = 64
CHUNK_STEPS = 64
LEAST_LONG = 10  # events a shopper, from which on little of a chunk is padding
MOST_TAUGHT = 10_000  # events of a shopper, the latest: more are no shopper's, but a crawler's
NEGATIVES = 512
LEARNING_RATE = 3e-3
DENSE_ROWS = 2**18  # ids beyond which a step moves only those that it reads
STEPS_WANTED = 600_000  # events seen in training, over all epochs; twice as many gave no more
log = logging.getLogger(__name__)


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


class TableTensors:
    """The item table's features as tensors, for running the tower inside a training step."""

    def __init__(self, table: ItemTable, device: torch.device) -> None:
        size = len(table)
        self.row = torch.arange(size, device=device)
        self.brand = torch.from_numpy(table.brand[:size].astype(np.int64)).to(device)
        self.categories = torch.from_numpy(table.categories[:size].astype(np.int64)).to(device)
        self.text = torch.from_numpy(table.texts(np.arange(size))).to(device)
        self.numbers = torch.from_numpy(table.numbers[:size]).to(device)

    def vectors(self, encoder: Encoder, rows: Tensor) -> Tensor:
        """Return v (m, D) of some rows; zero where a row is negative."""
        index = rows.clamp(min=0)
        found: Tensor = encoder.tower(self.row[index], self.brand[index], self.categories[index],
                                      self.text[index], self.numbers[index])
        return found * (rows >= 0)[:, None]


def train_encoder(encoder: Encoder, events: EventTable, table: ItemTable, *, seed: int,
                  epochs: int | None = None, progress: Callable[[int, float], None]) -> None:
    """Train in place; ``progress(done share in permille, loss)`` is called after each step."""
    device = next(encoder.parameters()).device
    sequences = Sequences.of(events, table)
    tensors = TableTensors(table, device)
    encoder.tower.fit_scale(tensors.numbers)
    sampler = _Sampler(events, len(table), seed)
    users = _useful_users(sequences)
    if not len(users):
        encoder.eval()
        progress(1000, 0.0)
        return
    epochs = epochs or int(np.clip(STEPS_WANTED / max(len(sequences.item), 1), 2, 12))
    batches = [list(_batches(users, sequences, np.random.default_rng((seed, e))))
               for e in range(epochs)]
    total = sum(_chunks(batch, sequences) for epoch in batches for batch in epoch)
    descent = _Descent(encoder, total)
    encoder.train()
    done = 0
    for epoch in batches:
        for batch in epoch:
            hidden = None
            for chunk in _walk(batch, sequences, sampler.rng):
                loss, hidden = _step(encoder, tensors, sequences, sampler, chunk, hidden)
                if loss is not None:
                    descent.step(loss)
                done += 1
                progress(int(1000 * done / total), loss.item() if loss is not None else 0.0)
    descent.finish()
    encoder.eval()


class _Descent:
    """AdamW over one cycle of rates. Of a large table of ids only the rows of a step are moved in
    it: at a million products the others are nine tenths of the time that a step takes."""

    def __init__(self, encoder: Encoder, steps: int) -> None:
        ids = encoder.tower.ident
        self._rows = RowAdam(ids, steps) if ids.num_embeddings > DENSE_ROWS else None
        self._whole = [weight for weight in encoder.parameters()
                       if self._rows is None or weight is not ids.weight]
        self._optimizer = torch.optim.AdamW(self._whole, lr=LEARNING_RATE, weight_decay=1e-4)
        self._schedule = one_cycle(self._optimizer, LEARNING_RATE, steps)

    def step(self, loss: Tensor) -> None:
        """Go one step down."""
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._rows is None:
            torch.nn.utils.clip_grad_norm_(self._whole, 1.0)
        else:
            moved = self._rows.gradient()
            torch.nn.utils.clip_grad_norm_([*self._whole, moved], 1.0)
            self._rows.step(moved, self._optimizer.param_groups[0])
        self._optimizer.step()
        self._schedule.step()

    def finish(self) -> None:
        """Bring every weight up to the last step."""
        if self._rows is not None:
            self._rows.finish()


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Positions (B, T) into the sequences, -1 for padding, and target rows (B, T), -1 for none.
    ``goes_on`` (of the chunk before): which of its users are in this one; the others have ended."""

    at: IntArray
    target: IntArray
    goes_on: npt.NDArray[np.bool_]


class _Sampler:
    """Draws negatives half by popularity, half uniformly; knows each item's expected count."""

    def __init__(self, events: EventTable, items: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        good = (events.item >= 0) & events.is_positive()
        counts = np.bincount(events.item[good], minlength=items)
        popular = counts / max(counts.sum(), 1)
        self.expected = torch.from_numpy((0.5 * popular + 0.5 / items) * NEGATIVES).float()
        self._cumulative = np.cumsum(popular)
        self._items = items

    def draw(self, count: int) -> IntArray:
        """Return (count) rows."""
        half = count // 2
        popular = np.searchsorted(self._cumulative, self.rng.random(half) * self._cumulative[-1])
        return np.concatenate([np.minimum(popular, self._items - 1),
                               self.rng.integers(0, self._items, count - half)])


def _step(encoder: Encoder, tensors: TableTensors, sequences: Sequences, sampler: _Sampler,
          chunk: _Chunk, hidden: Tensor | None) -> tuple[Tensor | None, Tensor]:
    device = tensors.row.device
    states, last = _run(encoder, tensors, sequences, chunk.at, _going_on(hidden, chunk))
    has_target = torch.from_numpy(chunk.target >= 0).to(device)
    if not has_target.any():
        return None, last.detach()
    interest = encoder.interest(states[has_target])  # (M, D)
    target = torch.from_numpy(chunk.target).to(device)[has_target]  # (M)
    negative = torch.from_numpy(sampler.draw(NEGATIVES)).to(device)  # (N)
    unique, inverse = torch.unique(torch.cat([target, negative]), return_inverse=True)
    vectors = tensors.vectors(encoder, unique)[inverse]
    expected = sampler.expected.to(device)
    positive = (interest * vectors[:len(target)]).sum(dim=1) - torch.log(expected[target])
    others = interest @ vectors[len(target):].T - torch.log(expected[negative])  # (M, N)
    others = others.masked_fill(target[:, None] == negative[None, :], -1e9)
    logits = torch.cat([positive[:, None], others], dim=1)
    loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(target), dtype=torch.long,
                                                                device=device))
    return loss, last.detach()


def _going_on(hidden: Tensor | None, chunk: _Chunk) -> Tensor | None:
    """Return the hidden states (L, B, W) of a chunk's users out of those of the chunk before."""
    if hidden is None or chunk.goes_on.all():
        return hidden
    return hidden[:, torch.from_numpy(chunk.goes_on).to(hidden.device)]


def _run(encoder: Encoder, tensors: TableTensors, sequences: Sequences, at: IntArray,
         hidden: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return top states (B, T, W) and last hidden states for positions ``at`` (B, T)."""
    device = tensors.row.device
    index = np.maximum(at, 0)
    rows = np.where(at >= 0, sequences.item[index], -1)
    unique, inverse = np.unique(rows, return_inverse=True)
    vectors = tensors.vectors(encoder, torch.from_numpy(unique).to(device))
    inputs = encoder.events(
        vectors[torch.from_numpy(inverse.reshape(rows.shape)).to(device)],
        torch.from_numpy(sequences.kind[index]).to(device),
        torch.from_numpy(sequences.gap_s[index]).to(device),
        torch.from_numpy(sequences.query_text[sequences.query[index]]).to(device))
    states, last = encoder(inputs, hidden)
    return states, last


def states_at(encoder: Encoder, events: EventTable, table: ItemTable, users: IntArray,
              instants: npt.NDArray[np.float64],
              kinds: Sequence[str] | None = None) -> FloatArray:
    """Return the top hidden state (M, W) of each user just before each instant, in one pass.

    A user unknown to the log (-1), or without events before the instant, has a zero state.
    """
    device = next(encoder.parameters()).device
    sequences, tensors = Sequences.of(events, table, kinds), TableTensors(table, device)
    found = np.zeros((len(users), encoder.config.hidden), np.float32)
    wanted: dict[int, list[tuple[int, int]]] = {}
    is_wanted = np.zeros(len(sequences.item), bool)
    for k, (user, instant) in enumerate(zip(users.tolist(), instants.tolist(), strict=True)):
        if user < 0:
            continue
        start, stop = sequences.offsets[user], sequences.offsets[user + 1]
        end = start + int(np.searchsorted(sequences.ts[start:stop], instant, side="left"))
        if end > start:
            wanted.setdefault(int(end - 1), []).append((k, user))
            is_wanted[end - 1] = True
    who = np.array(sorted({user for pairs in wanted.values() for _, user in pairs}), np.int64)
    lengths = sequences.offsets[who + 1] - sequences.offsets[who] if len(who) else who
    who = who[np.argsort(-lengths, kind="stable")]
    encoder.eval()
    with torch.inference_mode():
        for first in range(0, len(who), BATCH_USERS):
            hidden = None
            for chunk in _walk(who[first:first + BATCH_USERS], sequences, None):
                states, hidden = _run(encoder, tensors, sequences, chunk.at,
                                      _going_on(hidden, chunk))
                values = states.cpu().numpy()
                for b, t in zip(*np.nonzero(is_wanted[chunk.at] & (chunk.at >= 0)), strict=True):
                    for k, _ in wanted[int(chunk.at[b, t])]:
                        found[k] = values[b, t]
    return found


def _useful_users(sequences: Sequences) -> IntArray:
    return np.flatnonzero(np.diff(sequences.offsets) >= 2).astype(np.int64)


def _batches(users: IntArray, sequences: Sequences,
             rng: np.random.Generator) -> Iterator[IntArray]:
    """Users of like length together, batches in random order."""
    lengths = np.diff(sequences.offsets)[users] * rng.uniform(0.8, 1.25, len(users))
    ordered = users[np.argsort(-lengths, kind="stable")]
    starts = rng.permutation(np.arange(0, len(ordered), BATCH_USERS))
    for start in starts.tolist():
        yield ordered[start:start + BATCH_USERS]


def _span(batch: IntArray, sequences: Sequences, most: int | None) -> tuple[IntArray, IntArray]:
    """Return where the last ``most`` events (None: all) of each user (B) start and stop."""
    starts, stops = sequences.offsets[batch], sequences.offsets[batch + 1]
    return (starts if most is None else np.maximum(starts, stops - most)), stops


def _chunks(batch: IntArray, sequences: Sequences) -> int:
    starts, stops = _span(batch, sequences, MOST_TAUGHT)
    return -(-int((stops - starts).max()) // CHUNK_STEPS)


def _walk(batch: IntArray, sequences: Sequences,
          rng: np.random.Generator | None) -> Iterator[_Chunk]:
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
        yield _Chunk(at[is_on], target[is_on], is_on[was_on])
        was_on = is_on


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
