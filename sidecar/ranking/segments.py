"""Which shoppers are alike, and what do they buy more of than the shop's others?

There are S segments of users. Each has a direction in a space where shoppers have vectors, and a
lift per item. A model's space is that of its item factors (``factor_vector``); an analysis may take
the encoder's interest vectors. A shopper belongs to every segment a little, by the angle between
the shopper's vector and each direction, so that one more event moves the weights and never flips
them. A shopper without events is placed by user attributes if the shop has any, else like the shop
as a whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.records import FloatArray, IntArray

_WHOLE = re.compile(r"(-?[0-9]+)\.0+")
LIFT_BOUND = 3.0  # of the logarithm: twenty times as often, or as seldom
DOUBT_EVENTS = 5.0  # a user of so many events is placed half as sharply as one of many


@dataclass(frozen=True, slots=True)
class Segments:
    """S segments over D-wide vectors of shoppers and n item rows. S may be 0.

    ``centroids`` (S, D) unit vectors; ``lift`` (S, n) float16, log of how much more often than the
    shop a segment's shoppers took an item lately, shrunk to 0 where there is little evidence,
    within ±LIFT_BOUND; ``shares`` (S) of the shop's users, sum 1; ``sharpness`` of the assignment;
    ``attributes``: "column=value" → (S) shares of the users who have that value.
    """

    centroids: FloatArray
    lift: npt.NDArray[np.float16]
    shares: FloatArray
    sharpness: float = 10.0
    attributes: Mapping[str, FloatArray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.centroids)

    @classmethod
    def none(cls) -> Segments:
        """Return no segments."""
        return cls(np.zeros((0, 0), np.float32), np.zeros((0, 0), np.float16),
                   np.zeros(0, np.float32))

    def of_vector(self, vector: FloatArray, events: int | None = None) -> FloatArray:
        """Return weights (S), sum 1, of a user with a vector (D).

        The posterior of a mixture of von Mises-Fisher distributions of one concentration
        (Banerjee et al. 2005, JMLR 6): shares · exp(sharpness · cosine), normalised. A zero vector
        gets the shares. ``events`` says how many events the vector was made of: with few of them
        the weights are drawn towards the shares, since three events place no user for sure.
        """
        norm = math.sqrt(float(vector @ vector))
        scale = self.sharpness / norm if norm > 0 else 0.0
        if events is not None:
            scale *= events / (events + DOUBT_EVENTS)
        weights = self.shares * np.exp((self.centroids @ vector) * np.float32(scale))
        result: FloatArray = weights / weights.sum()
        return result

    def of_vectors(self, vectors: FloatArray) -> FloatArray:
        """Return weights (m, S) for vectors (m, D) of users with many events."""
        norms = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True))
        cosine = vectors @ self.centroids.T / np.maximum(norms, 1e-9)
        weights = self.shares * np.exp(np.float32(self.sharpness) * cosine)
        result: FloatArray = weights / weights.sum(axis=1, keepdims=True)
        return result

    def of_attributes(self, attributes: Mapping[str, Any]) -> FloatArray:
        """Return weights (S) of a user with attributes (column → value) and no events.

        Attributes are taken as independent given the segment; a value that the table lacks is
        passed over. Without a known one: the shares.
        """
        if not len(self):
            return self.shares
        logs = np.log(np.maximum(self.shares, 1e-9))
        prior = logs
        for column, value in attributes.items():
            found = self.attributes.get(attribute_key(column, value))
            if found is not None:
                logs = logs + np.log(np.maximum(found, 1e-9)) - prior
        weights = np.exp(logs - logs.max())
        result: FloatArray = (weights / weights.sum()).astype(np.float32)
        return result

    def knows(self, attributes: Mapping[str, Any]) -> bool:
        """True if an attribute says something of a user without events."""
        return bool(len(self)) and any(attribute_key(column, value) in self.attributes
                                       for column, value in attributes.items())

    def score(self, rows: IntArray, weights: FloatArray) -> FloatArray:
        """Return the mean lift (K) of item rows (K) under ``weights`` (S); unknown rows get 0."""
        if not len(self):
            return np.zeros(len(rows), np.float32)
        known = (rows >= 0) & (rows < self.lift.shape[1])
        lift = self.lift[:, np.where(known, rows, 0)].astype(np.float32)
        scores: FloatArray = (weights @ lift) * known
        return scores

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return what has to be saved with a model."""
        names = sorted(self.attributes)
        tables = [self.attributes[name] for name in names]
        return {"centroids": self.centroids, "lift": self.lift, "shares": self.shares,
                "sharpness": np.array(self.sharpness),
                "attribute_names": np.array(names, np.str_),
                "attribute_weights": (np.stack(tables) if tables
                                      else np.zeros((0, len(self)))).astype(np.float32)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Segments:
        """Undo ``arrays``."""
        return cls(arrays["centroids"].astype(np.float32),
                   arrays["lift"].astype(np.float16, copy=False),  # mapped, where a file is
                   arrays["shares"].astype(np.float32), float(arrays["sharpness"]),
                   dict(zip(arrays["attribute_names"].tolist(), arrays["attribute_weights"],
                            strict=True)))


def factor_vector(rows: IntArray, factors: FloatArray) -> FloatArray:
    """Return the place (R) of a user in the space of item factors (n, R): Σ log(1 + times) · factor
    over the items of ``rows``, one for each positive event, in any order; unknown rows are left
    out. Serves ``of_vector`` where segments were fitted on factors.
    """
    items, times = np.unique(rows[(rows >= 0) & (rows < len(factors))], return_counts=True)
    place: FloatArray = np.log1p(times).astype(np.float32) @ factors[items]
    return place


def attribute_key(column: str, value: object) -> str:
    """Return the key under which an attribute's value is kept: the same for ``true``, ``True`` and
    ``"true"``, and for ``2``, ``2.0`` and ``"2"``, as files, JSON and headers write them."""
    text = str(value)
    if text.lower() in ("true", "false"):
        text = text.lower()
    whole = _WHOLE.fullmatch(text)
    return f"{column}={whole[1] if whole else text}"
