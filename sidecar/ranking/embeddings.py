"""What do vectors that were made elsewhere, of images or sound or text, say about a product?

A catalogue row may have several, each under a name. Each is made a unit vector and centred by the
mean of its name (embeddings of one kind of thing all point in about one direction, which says
nothing). The vectors are then joined end to end and reduced to EMBEDDING_WIDTH numbers along the
catalogue's principal axes. The result is a unit vector again: the product of two is about the
cosine of two products' centred vectors. It joins the words in ``Vocabulary.content_vector``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import linalg

from sidecar.records import FloatArray

EMBEDDING_WIDTH = 16
_SAMPLE = 20_000  # products that the axes are fitted on
_BATCH = 1_000
_LEAST_VARIANCE = 1e-6  # of an axis, as a share of the first's: less is rounding


@dataclass(frozen=True, slots=True)
class Embeddings:
    """How vectors are reduced: ``widths`` by name, in the order in which they are laid end to end
    (d numbers in all), ``mean`` (d) of the unit vectors, and ``axes`` (d, EMBEDDING_WIDTH), zero
    beyond the existing directions. All are empty if the catalogue has no vectors."""

    widths: Mapping[str, int]
    mean: FloatArray
    axes: FloatArray

    @classmethod
    def none(cls) -> Embeddings:
        """Return what a catalogue without vectors gives."""
        return cls({}, np.zeros(0, np.float32), np.zeros((0, EMBEDDING_WIDTH), np.float32))

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], seed: int = 0) -> Embeddings:
        """Fit on catalogue rows; a name's width is the one that most of its vectors have."""
        counts = Counter((str(name), len(vector)) for row in rows
                         for name, vector in _vectors_of(row).items())
        widths: dict[str, int] = {}
        for (name, width), _ in counts.most_common():
            widths.setdefault(name, width)
        if not widths:
            return cls.none()
        widths = dict(sorted(widths.items()))
        having = [row for row in rows if _vectors_of(row)]
        drawn = np.random.default_rng(seed).permutation(len(having))[:_SAMPLE]
        sample = [having[k] for k in np.sort(drawn).tolist()]
        size = sum(widths.values())
        total, known = np.zeros(size), np.zeros(size)
        for units in _batches(sample, widths):
            total += np.nansum(units, axis=0)
            known += np.isfinite(units).sum(axis=0)
        mean = total / np.maximum(known, 1)
        spread = np.zeros((size, size))
        for units in _batches(sample, widths):
            centred = np.nan_to_num(units - mean)
            spread += centred.T @ centred
        return cls(widths, mean.astype(np.float32), _principal_axes(spread))

    def reduced(self, row: Mapping[str, Any]) -> FloatArray:
        """Return a row's unit vector (EMBEDDING_WIDTH); zero where it has none of a known width."""
        if not self.widths or not _vectors_of(row):
            return np.zeros(EMBEDDING_WIDTH, np.float32)
        centred = np.nan_to_num(_units(row, self.widths) - self.mean)
        found: FloatArray = (centred @ self.axes).astype(np.float32)
        norm = float(np.linalg.norm(found))
        return found / norm if norm > 0 else found

    def lacking(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
        """Return by name how many rows have no vector of its width."""
        return {name: sum(len(_vectors_of(row).get(name) or ()) != width for row in rows)
                for name, width in self.widths.items()}


def _vectors_of(row: Mapping[str, Any]) -> Mapping[str, Sequence[float]]:
    return row.get("vectors") or {}


def _batches(rows: Sequence[Mapping[str, Any]],
             widths: Mapping[str, int]) -> Iterator[npt.NDArray[np.float64]]:
    for start in range(0, len(rows), _BATCH):
        yield np.stack([_units(row, widths) for row in rows[start:start + _BATCH]])


def _units(row: Mapping[str, Any], widths: Mapping[str, int]) -> npt.NDArray[np.float64]:
    """Return a row's vectors end to end (d), each of length one; NaN where there is none."""
    found = []
    for name, width in widths.items():
        vector = np.asarray(_vectors_of(row).get(name) or (), np.float64)
        largest = np.abs(vector).max(initial=0.0)  # a square of 1e300 would be infinite
        fits = len(vector) == width and 0 < largest < np.inf
        vector = vector / largest if fits else np.full(width, np.nan)
        found.append(vector / np.linalg.norm(vector))
    return np.concatenate(found)


def _principal_axes(spread: npt.NDArray[np.float64]) -> FloatArray:
    """Return the axes (d, EMBEDDING_WIDTH) of greatest variance, the greatest first, each with its
    element of greatest size positive."""
    size = len(spread)
    rank = min(EMBEDDING_WIDTH, size)
    variance, axes = linalg.eigh(spread, subset_by_index=[size - rank, size - 1])
    variance, axes = variance[::-1], axes[:, ::-1]
    axes = axes[:, variance > _LEAST_VARIANCE * max(variance[0], 1e-12)]
    if axes.shape[1]:
        largest = np.abs(axes).argmax(axis=0)
        axes = axes * np.sign(axes[largest, np.arange(axes.shape[1])])
    result = np.zeros((size, EMBEDDING_WIDTH), np.float32)
    result[:, :axes.shape[1]] = axes
    return result
