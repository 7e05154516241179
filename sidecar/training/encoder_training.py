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

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidecar.ranking.encoder import Encoder
from sidecar.ranking.items import ItemTable
from sidecar.records import FloatArray, IntArray
from sidecar.training.event_table import EventTable
from sidecar.training.row_adam import RowAdam
from sidecar.training.schedule import one_cycle
from sidecar.training.sequences import Chunk, Sequences, chunk_count, chunks_of

BATCH_USERS = 64
NEGATIVES = 512
LEARNING_RATE = 3e-3
DENSE_ROWS = 2**18  # ids beyond which a step moves only those that it reads
STEPS_WANTED = 600_000  # events seen in training, over all epochs; twice as many gave no more
log = logging.getLogger(__name__)


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
    sampler = NegativeSampler(events, len(table), seed)
    users = _useful_users(sequences)
    if not len(users):
        encoder.eval()
        progress(1000, 0.0)
        return
    epochs = epochs or int(np.clip(STEPS_WANTED / max(len(sequences.item), 1), 2, 12))
    batches = [list(_batches(users, sequences, np.random.default_rng((seed, e))))
               for e in range(epochs)]
    total = sum(chunk_count(batch, sequences) for epoch in batches for batch in epoch)
    descent = _Descent(encoder, total)
    encoder.train()
    done = 0
    for epoch in batches:
        for batch in epoch:
            hidden = None
            for chunk in chunks_of(batch, sequences, sampler.rng):
                loss, hidden = chunk_loss(encoder, tensors, sequences, sampler, chunk, hidden)
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


class NegativeSampler:
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


def chunk_loss(encoder: Encoder, tensors: TableTensors, sequences: Sequences,
               sampler: NegativeSampler, chunk: Chunk, hidden: Tensor | None,
               ) -> tuple[Tensor | None, Tensor]:
    """Return the loss of a chunk's targets (None: it has none) and the last hidden states."""
    device = tensors.row.device
    states, last = chunk_states(encoder, tensors, sequences, chunk.at, _going_on(hidden, chunk))
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


def _going_on(hidden: Tensor | None, chunk: Chunk) -> Tensor | None:
    """Return the hidden states (L, B, W) of a chunk's users out of those of the chunk before."""
    if hidden is None or chunk.goes_on.all():
        return hidden
    return hidden[:, torch.from_numpy(chunk.goes_on).to(hidden.device)]


def chunk_states(encoder: Encoder, tensors: TableTensors, sequences: Sequences, at: IntArray,
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
            for chunk in chunks_of(who[first:first + BATCH_USERS], sequences, None):
                states, hidden = chunk_states(encoder, tensors, sequences, chunk.at,
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
