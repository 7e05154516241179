"""How does the hidden state follow what a user does? One step per event, many users in one pass.

A hidden state has shape (L + 1, W): the encoder's state of each of L layers, and a last row that
holds the instant of the last event (whole days, then seconds of the day), from which the next
event's gap counts. Legend as in ``encoder``: B users, T steps, D, W, L.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sidecar.ranking.encoder import Encoder, KindCodes
from sidecar.ranking.items import ItemTable
from sidecar.ranking.networks import StepJob, step
from sidecar.ranking.statistics import DAY_S
from sidecar.ranking.vocabulary import TEXT_WIDTH, words_of
from sidecar.records import FloatArray, History


class Stepper:
    """Steps an encoder over events; safe to call from several threads.

    ``elsewhere``, where it is set, is asked first, and answers None where it cannot.
    """

    def __init__(self, encoder: Encoder, items: ItemTable, kind_codes: KindCodes) -> None:
        self.elsewhere: Callable[[StepJob], FloatArray | None] | None = None
        self._encoder = encoder
        self._items = items
        self._kind_codes = kind_codes
        layers, width = encoder.hidden_shape
        self._shape = (layers + 1, width)
        self._device = next(encoder.parameters()).device

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        """Step over events, oldest first; O(events), however long the history before them.

        Args:
            hidden: (L + 1, W) as returned before; None, or of another shape: from the start.
            events: what has happened since; where there is nothing, ``hidden`` comes back.
        """
        return self.advance_many([hidden], [events])[0]

    def advance_many(self, hiddens: Sequence[FloatArray | None],
                     histories: Sequence[History]) -> list[FloatArray]:
        """Return ``advance`` of each pair, in order.

        Users with equally many events are one batch, so nothing is padded: a hundred users with
        an event each cost little more than one.
        """
        starts = [self._start(hidden) for hidden in hiddens]
        stepped = [self._zeros() if start is None else start for start in starts]
        alike: dict[int, list[int]] = {}
        for k, events in enumerate(histories):
            alike.setdefault(len(events), []).append(k)
        for count, members in alike.items():
            if count:
                ends = self._step([starts[k] for k in members], [histories[k] for k in members])
                for k, end in zip(members, ends, strict=True):
                    stepped[k] = end
        return stepped

    def _start(self, hidden: FloatArray | None) -> FloatArray | None:
        return hidden if hidden is not None and hidden.shape == self._shape else None

    def _zeros(self) -> FloatArray:
        return np.zeros(self._shape, np.float32)

    def _step(self, starts: Sequence[FloatArray | None],
              histories: Sequence[History]) -> FloatArray:
        """Step B users over T > 0 events each; returns (B, L + 1, W)."""
        ts = np.array([events.ts for events in histories], np.float64)  # (B, T)
        rows = np.stack([self._items.rows(events.item_ids) for events in histories])  # (B, T)
        kinds = np.array([[self._kind_codes[kind] for kind in events.events]
                          for events in histories], np.int64)  # (B, T)
        known = (rows >= 0)[..., None].astype(np.float32)
        vectors = self._items.vectors[np.maximum(rows, 0)] * known  # (B, T, D), float32
        hidden = np.stack([self._zeros() if start is None else start for start in starts])
        job = StepJob(vectors, kinds, _gaps_s(starts, ts), self._texts(histories),
                      hidden[:, :-1].swapaxes(0, 1))
        after = None if self.elsewhere is None else self.elsewhere(job)
        if after is None:
            after = self._after(job)
        hidden[:, :-1] = after.swapaxes(0, 1)
        hidden[:, -1] = 0.0
        hidden[:, -1, 0], hidden[:, -1, 1] = np.divmod(ts[:, -1], DAY_S)
        return hidden

    def _after(self, job: StepJob) -> FloatArray:
        """Return the states (L, B, W) after a job's events."""
        with torch.inference_mode():
            last = step(self._encoder, *(self._tensor(array) for array in (
                job.vectors, job.kinds, job.gaps_s, job.texts, job.layers)))
        result: FloatArray = last.cpu().numpy()
        return result

    def _texts(self, histories: Sequence[History]) -> FloatArray:
        """Return the queries' text vectors (B, T, TEXT_WIDTH), zero where there is no query."""
        texts = np.zeros((len(histories), len(histories[0]), TEXT_WIDTH), np.float32)
        known = self._items.vocabulary
        for b, events in enumerate(histories):
            for t, query in enumerate(events.queries):
                if query:
                    texts[b, t] = known.text_vector(known.word_codes(words_of(query)))
        return texts

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _gaps_s(starts: Sequence[FloatArray | None], ts: npt.NDArray[np.float64]) -> FloatArray:
    """Return seconds since the event before (B, T); 0 for a user's very first."""
    before = [[first if start is None else float(start[-1, 0]) * DAY_S + float(start[-1, 1])]
              for start, first in zip(starts, ts[:, 0], strict=True)]
    return np.diff(ts, axis=1, prepend=np.array(before)).astype(np.float32)
