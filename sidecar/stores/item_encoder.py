"""The part of a trained model that loading a catalogue needs: its items and their vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sidecar.records import FloatArray
from sidecar.stores.models import load_ranker


class ItemEncoder:
    """See ``catalogue_survey.EncodesItems``."""

    def __init__(self, model_dir: Path) -> None:
        """Load the model.

        Raises:
            ModelError: the directory does not fit.
        """
        self._ranker = load_ranker(model_dir)
        items = self._ranker.items
        self._trained_with = frozenset(items.ids)

    @property
    def version(self) -> str:
        """Name the model."""
        return self._ranker.version

    def knows(self, item_id: str) -> bool:
        """Return whether the model was trained with this item."""
        return item_id in self._trained_with

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Return the item tower's vectors (n, D) of these rows, as they are now."""
        items = self._ranker.items
        items.upsert(rows)
        vectors: FloatArray = items.vectors[items.rows(row["item_id"] for row in rows)]
        return vectors
