"""What stands in for a number that a product does not have? Declared, saved, the same everywhere.

A rule is fitted on the training catalogue once and saved with the model; training and serving call
the same ``fill``. Rules:

- ``mean``, ``median``, ``mode``: of the column's known values;
- ``zero``: for counts, where absence means none;
- ``interpolate``: the column's median where an item has no dated observations; for one that has
  some, whoever reads them calls ``interpolate`` (catalogue files carry none);
- ``drop``: the value stays NaN and the signals that read it contribute nothing for that item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sidecar.records import FloatArray

RULES = ("drop", "mean", "median", "mode", "zero", "interpolate")
DEFAULT_RULES: Mapping[str, str] = {
    "price": "median", "rating": "mean", "review_count": "zero", "sales": "zero",
    "favourites": "zero", "shares": "zero", "promotion": "zero", "created_at": "drop",
}


@dataclass(frozen=True, slots=True)
class Imputation:
    """One column's rule and the value that it fitted (NaN for ``drop``)."""

    rule: str
    value: float

    @classmethod
    def fit(cls, rule: str, known: npt.NDArray[np.float64]) -> Imputation:
        """Fit ``rule`` on a column's known values (m); NaN among them are left out.

        Raises:
            ValueError: the rule is none of ``RULES``.
        """
        if rule not in RULES:
            raise ValueError(f"imputation rule is {rule!r}, must be one of {', '.join(RULES)}")
        known = known[np.isfinite(known)]
        if rule == "drop":
            return cls(rule, float("nan"))
        if rule == "zero" or not len(known):
            return cls(rule, 0.0)
        if rule == "mean":
            return cls(rule, float(known.mean()))
        if rule == "mode":
            values, counts = np.unique(known, return_counts=True)
            return cls(rule, float(values[counts.argmax()]))
        return cls(rule, float(np.median(known)))

    def fill(self, values: npt.NDArray[np.float64]) -> FloatArray:
        """Return ``values`` (m) with every NaN replaced by the fitted value."""
        return np.where(np.isfinite(values), values, self.value).astype(np.float32)


def interpolate(times: Sequence[float], values: Sequence[float], at: float) -> float:
    """Return the value at instant ``at``, linear between observations, constant beyond them.

    ``times`` ascend; NaN when there is no observation.
    """
    if not len(times):
        return float("nan")
    return float(np.interp(at, times, values))
