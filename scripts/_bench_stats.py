"""Percentiles and bootstrap intervals of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9}
RESAMPLES = 1000

Floats = npt.NDArray[np.float64]


def summary(latencies_s: Sequence[float]) -> dict[str, float]:
    """Return percentiles, mean and greatest, in milliseconds; empty: NaN throughout."""
    values = np.asarray(latencies_s, dtype=np.float64) * 1000.0
    if not len(values):
        return dict.fromkeys((*QUANTILES, "mean", "max"), float("nan"))
    found = dict(zip(QUANTILES, np.percentile(values, list(QUANTILES.values())).tolist(),
                     strict=True))
    return found | {"mean": float(values.mean()), "max": float(values.max())}


def paired(base_s: Sequence[float], other_s: Sequence[float], seed: int = 0) -> dict[str, Any]:
    """Compare two arms asked the same searches in turn.

    Returns:
        ``added_ms`` and ``ratio``, each by quantile with its 95 % bootstrap interval over pairs.
        Quantiles are compared, not averaged over pairs: p99 of one arm with p99 of the other.
    """
    base = np.asarray(base_s, dtype=np.float64) * 1000.0
    other = np.asarray(other_s, dtype=np.float64) * 1000.0
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(base), (RESAMPLES, len(base)))
    report: dict[str, Any] = {"added_ms": {}, "ratio": {}}
    for name in ("p50", "p99"):
        def quantile(values: Floats, at: float = QUANTILES[name]) -> Floats:
            return np.asarray(np.percentile(values, at, axis=-1))

        for what, compare in _COMPARISONS.items():
            report[what][name] = _interval(
                float(compare(quantile(other), quantile(base))),
                compare(quantile(other[draws]), quantile(base[draws])))
    return report


def ratio_of_rounds(base: Sequence[float], other: Sequence[float]) -> dict[str, float | None]:
    """Return the geometric mean ratio of paired rounds, such as throughputs.

    Its 95 % interval is Student's on the logarithms: of a handful of rounds, a bootstrap's is too
    narrow. One round has none, nor have rounds without an answer.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.asarray(other, dtype=np.float64) / np.asarray(base, dtype=np.float64))
        mean = float(logs.mean())
    value = float(np.exp(mean))
    if len(logs) < 2 or not np.isfinite(logs).all():
        return {"value": value, "low": None, "high": None}
    half = float(stdtrit(len(logs) - 1, 0.975) * logs.std(ddof=1) / np.sqrt(len(logs)))
    return {"value": value, "low": float(np.exp(mean - half)), "high": float(np.exp(mean + half))}


def stages(times_ms: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    """Return each Server-Timing stage's p50, p99 and mean, in milliseconds."""
    return {name: {"p50": float(np.percentile(values, 50)), "p99": float(np.percentile(values, 99)),
                   "mean": float(np.mean(values))} for name, values in times_ms.items()}


def _interval(value: float, resampled: Floats) -> dict[str, float]:
    low, high = np.percentile(resampled, [2.5, 97.5]).tolist()
    return {"value": value, "low": low, "high": high}


_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "added_ms": lambda other, base: other - base,
    "ratio": lambda other, base: other / base,
}
