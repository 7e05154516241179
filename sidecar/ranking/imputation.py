"""What stands in for a number that a product does not have? One rule, the same everywhere.

A rule is declared and fitted once, at training, and saved with the model. Training and serving call
the same ``fill``. Rules:

- ``mean``, ``median``, ``mode``: of the column's known values;
- ``zero``: for counts, where absence means none;
- ``interpolate``: the value of an item's own dated observations at the instant at which the model
  was trained: linear between two, the nearest beyond them (for prices: what was paid, from the
  events). An item without observations gets the column's median;
- ``drop``: the value stays NaN and the signals that read it contribute nothing for that item.

A value beyond ``LARGEST`` counts as missing: no product has it, and its square would end in NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sidecar.records import FloatArray

LARGEST = 1e15
RULES = ("drop", "mean", "median", "mode", "zero", "interpolate")
DEFAULT_RULES: Mapping[str, str] = {
    "price": "interpolate", "rating": "mean", "review_count": "zero", "sales": "zero",
    "favourites": "zero", "shares": "zero", "promotion": "zero", "created_at": "drop",
}


@dataclass(frozen=True, slots=True)
class Imputation:
    """One column's rule, the value that it fitted (NaN for ``drop``), and what ``interpolate``
    found for items (id → value)."""

    rule: str
    value: float
    observed: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def fit(cls, rule: str, known: npt.NDArray[np.float64],
            observed: Mapping[str, float] | None = None) -> Imputation:
        """Fit ``rule`` on a column's known values (m); NaN among them are left out.

        ``observed``: for items that lack the column, what their observations say.

        Raises:
            ValueError: the rule is none of ``RULES``.
        """
        if rule not in RULES:
            raise ValueError(f"imputation rule is {rule!r}, must be one of {', '.join(RULES)}")
        known = known[is_known(known)]
        own = dict(observed or {}) if rule == "interpolate" else {}
        known = np.concatenate([known, [*own.values()]])
        if rule == "drop":
            return cls(rule, float("nan"))
        if rule == "zero" or not len(known):
            return cls(rule, 0.0)
        if rule == "mean":
            return cls(rule, float(known.mean()))
        if rule == "mode":
            values, counts = np.unique(known, return_counts=True)
            return cls(rule, float(values[counts.argmax()]))
        return cls(rule, float(np.median(known)), own)

    def fill(self, values: npt.NDArray[np.float64], item_ids: Sequence[str]) -> FloatArray:
        """Return ``values`` (m) of some items with every one that is not known replaced."""
        known = is_known(values)
        found = np.where(known, values, self.value).astype(np.float32)
        if self.observed:
            for k in np.flatnonzero(~known).tolist():
                found[k] = self.observed.get(item_ids[k], self.value)
        return found


def is_known(values: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return which values (m) are neither NaN nor beyond ``LARGEST``."""
    known: npt.NDArray[np.bool_] = np.abs(values) <= LARGEST
    return known


def interpolated(items: npt.NDArray[np.integer], times: npt.NDArray[np.float64],
                 values: npt.NDArray[np.floating], at: float) -> dict[int, float]:
    """Return item → value at instant ``at`` from observations (m) in order of time: linear between
    an item's two around it, its nearest beyond them."""
    order = np.argsort(items, kind="stable")
    names, starts = np.unique(items[order], return_index=True)
    return {int(name): float(np.interp(at, times[own], values[own]))
            for name, own in zip(names, np.split(order, starts[1:]), strict=True)}


def rules_named(text: str) -> dict[str, str]:
    """Read ``COLUMN=RULE``, comma-separated; nothing where the text is empty.

    Raises:
        ValueError: a column that has no rule, or a rule that is none.
    """
    rules = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        column, _, rule = (piece.strip() for piece in part.partition("="))
        if column not in DEFAULT_RULES:
            raise ValueError(f"{column!r} is not filled in; known: {', '.join(DEFAULT_RULES)}")
        if rule not in RULES:
            raise ValueError(f"rule of {column} is {rule!r}, must be one of {', '.join(RULES)}")
        rules[column] = rule
    return rules
