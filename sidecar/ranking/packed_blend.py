"""The blend for one search on a processor: the same sum as ``Blend``, compiled.

``Blend.forward`` makes some hundred torch calls, each of which costs more than its arithmetic.
numpy's calls cost less, but still most of the time. Compiled, a hundred candidates take about a
tenth of a millisecond. Results agree with ``Blend`` to float32 rounding; a test checks that.

Legend: K candidates, F features, S signals, W width of a part's network, Y size of the summary, C
context, H and E its encoding.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import nn

from sidecar.compiled import compiled
from sidecar.ranking.blend import BOUND, CLIP, CONTEXT_CLIP, INDEX, LEAST_SPREAD, Blend
from sidecar.ranking.kernels import STRANGER
from sidecar.ranking.signals import FEATURES, SIGNALS
from sidecar.records import FloatArray

I64 = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
_STRANGER = np.array(STRANGER, np.float32)


class _Weights(NamedTuple):
    """All networks: signal s reads features [starts[s]:starts[s + 1]] and twice as many rows of
    ``first`` and ``summary``, its own features' and then their z-scores'."""

    starts: I64
    mean: FloatArray
    per_scale: FloatArray  # 1 / scale
    context_mean: FloatArray
    context_scale: FloatArray
    context_1: FloatArray  # (C, H)
    context_1_bias: FloatArray  # (H)
    context_2: FloatArray  # (H, E)
    context_2_bias: FloatArray  # (E)
    gate: FloatArray  # (E, S)
    gate_bias: FloatArray  # (S)
    personal: BoolArray  # (S)
    first: FloatArray  # (2F, W)
    first_context: FloatArray  # (E, S·W)
    first_bias: FloatArray  # (S·W)
    summary: FloatArray  # (2F, Y)
    summary_bias: FloatArray  # (Y)
    first_summary: FloatArray  # (S, Y, W), zero for personal signals
    second: FloatArray  # (S, W, W)
    second_bias: FloatArray  # (S, W)
    third: FloatArray  # (S, W)
    third_bias: FloatArray  # (S)


class PackedBlend:
    """A trained blend's weights, packed; safe to use from several threads."""

    def __init__(self, blend: Blend) -> None:
        self._is_on = _array(blend.is_on).astype(bool)
        self._weights = _pack(blend)

    def parts(self, features: FloatArray, context: FloatArray, *,
              has_history: bool) -> FloatArray:
        """Return each signal's centred part (K, S).

        Args:
            features: (K, F) raw, NaN where a fact is unknown.
            context: (C) raw.
            has_history: False closes the personal signals' gates.
        """
        found = np.zeros((len(features), len(self._is_on)), np.float32)
        if not len(features):
            return found
        if not has_history:
            context = np.where(np.isnan(_STRANGER), context, _STRANGER).astype(np.float32)
        is_read = self._is_on if has_history else self._is_on & ~self._weights.personal
        _parts(features, context, is_read, self._weights, found)
        return found


@compiled
def _parts(features: FloatArray, context: FloatArray, is_read: BoolArray, weights: _Weights,
           out: FloatArray) -> None:
    """Write the centred parts of the signals that are read into ``out`` (K, S)."""
    size, width = len(features), weights.second.shape[1]
    situation = _situation(context, weights)
    around = np.dot(situation, weights.first_context) + weights.first_bias  # (S·W)
    gates = np.logaddexp(np.float32(0), np.dot(situation, weights.gate) + weights.gate_bias)
    facts = np.empty(2 * features.size, np.float32)  # signal after signal, each (K, 2f)
    _standardise(features, is_read, weights, facts)
    summary = np.zeros((size, len(weights.summary_bias)), np.float32)
    for s in range(len(is_read)):
        if is_read[s]:
            start, stop = 2 * weights.starts[s], 2 * weights.starts[s + 1]
            own = facts[start * size:stop * size].reshape(size, stop - start)
            summary += np.dot(own, weights.summary[start:stop])
    for k in range(size):
        for y in range(summary.shape[1]):
            summary[k, y] = _tanh(summary[k, y] + weights.summary_bias[y])
    for s in range(len(is_read)):
        if not is_read[s]:
            continue
        start, stop = 2 * weights.starts[s], 2 * weights.starts[s + 1]
        own = facts[start * size:stop * size].reshape(size, stop - start)
        hidden = np.dot(own, weights.first[start:stop])
        if not weights.personal[s]:
            hidden += np.dot(summary, weights.first_summary[s])
        _add_hardswish(hidden, around[s * width:(s + 1) * width])
        hidden = np.dot(hidden, weights.second[s])
        _add_hardswish(hidden, weights.second_bias[s])
        values = np.dot(hidden, weights.third[s])
        _centre(values, weights.third_bias[s], gates[s], out[:, s])


@compiled
def _situation(context: FloatArray, weights: _Weights) -> FloatArray:
    """Return the encoded context (E)."""
    scaled = (context - weights.context_mean) / weights.context_scale
    scaled = np.minimum(np.maximum(scaled, np.float32(-CONTEXT_CLIP)), np.float32(CONTEXT_CLIP))
    hidden = np.dot(scaled, weights.context_1) + weights.context_1_bias
    hidden /= np.float32(1) + np.exp(-hidden)  # SiLU
    encoded: FloatArray = np.tanh(np.dot(hidden, weights.context_2) + weights.context_2_bias)
    return encoded


@compiled
def _standardise(features: FloatArray, is_read: BoolArray, weights: _Weights,
                 facts: FloatArray) -> None:
    """Write each read signal's (K, 2f): features by the training data's scale, then within the
    window; clipped, 0 where a fact is unknown."""
    size, count = features.shape
    mean, squares = np.zeros(count), np.zeros(count)
    for k in range(size):
        for c in range(count):
            mean[c] += _known(features[k, c])
    mean /= size
    for k in range(size):
        for c in range(count):
            squares[c] += (_known(features[k, c]) - mean[c]) ** 2
    centre = mean.astype(np.float32)
    per_spread = (1 / np.maximum(np.sqrt(squares / size), LEAST_SPREAD)).astype(np.float32)
    clip = np.float32(CLIP)
    for s in range(len(is_read)):
        if not is_read[s]:
            continue
        start, stop = weights.starts[s], weights.starts[s + 1]
        own = facts[2 * start * size:2 * stop * size].reshape(size, 2, stop - start)
        for k in range(size):
            for c in range(stop - start):
                value = features[k, start + c]
                raw = (value - weights.mean[start + c]) * weights.per_scale[start + c]
                score = (_known(value) - centre[start + c]) * per_spread[start + c]
                own[k, 0, c] = min(max(_known(raw), -clip), clip)
                own[k, 1, c] = min(max(score, -clip), clip)


@compiled
def _known(value: Any) -> Any:
    """Return the number, or 0 if it is not finite."""
    return value if value - value == 0 else np.float32(0)


@compiled
def _add_hardswish(hidden: FloatArray, bias: FloatArray) -> None:
    """x + bias, then x · min(max(x + 3, 0), 6) / 6, in place."""
    for k in range(hidden.shape[0]):
        for w in range(hidden.shape[1]):
            x = hidden[k, w] + bias[w]
            hidden[k, w] = x * min(max(x + np.float32(3), np.float32(0)),
                                   np.float32(6)) * np.float32(1 / 6)


@compiled
def _centre(values: FloatArray, bias: float, gate: float, out: FloatArray) -> None:
    """Write gate · BOUND · tanh((values + bias) / BOUND), less its mean, into ``out`` (K)."""
    size = len(values)
    mean = 0.0
    for k in range(size):
        values[k] = _tanh((values[k] + bias) * np.float32(1 / BOUND)) * (gate * np.float32(BOUND))
        mean += values[k] / size
    for k in range(size):
        out[k] = values[k] - mean


@compiled
def _tanh(x: Any) -> Any:
    """Return tanh(x) to within 4e-7, without a call.

    A quotient of polynomials, with the coefficients of Eigen's ``generic_fast_tanh_float``.
    """
    x = min(max(x, np.float32(-7.90531110763549805)), np.float32(7.90531110763549805))
    square = x * x
    above = np.float32(-2.76076847742355e-16)
    for factor in (2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
                   1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03):
        above = above * square + np.float32(factor)
    below = np.float32(1.19825839466702e-06)
    for factor in (1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03):
        below = below * square + np.float32(factor)
    return x * above / below


def _pack(blend: Blend) -> _Weights:
    layers = [[_linear(part.get_submodule(str(k))) for k in (0, 3, 5)] for part in blend.parts]
    counts = [2 * len(INDEX[signal]) for signal in SIGNALS]
    gate, gate_bias = _linear(blend.gate)
    encoded = len(gate)
    firsts = [own[0][0] for own in layers]  # rows: own facts, the summary unless personal, context
    summary, summary_bias = _linear(blend.summary[0])
    context_1, context_1_bias = _linear(blend.context[0])
    context_2, context_2_bias = _linear(blend.context[2])
    by_signal = [k + offset for signal in SIGNALS for offset in (0, len(FEATURES))
                 for k in INDEX[signal]]
    others = np.zeros((len(SIGNALS), len(summary_bias), firsts[0].shape[1]), np.float32)
    for s, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        between = first[count:len(first) - encoded]
        others[s, :len(between)] = between
    return _Weights(
        starts=np.cumsum([0, *(len(INDEX[signal]) for signal in SIGNALS)]).astype(np.int64),
        mean=_array(blend.mean), per_scale=np.reciprocal(_array(blend.scale)),
        context_mean=_array(blend.context_mean), context_scale=_array(blend.context_scale),
        context_1=context_1, context_1_bias=context_1_bias,
        context_2=context_2, context_2_bias=context_2_bias,
        gate=gate, gate_bias=gate_bias, personal=_array(blend.personal).astype(bool),
        first=np.concatenate([first[:count] for first, count in zip(firsts, counts, strict=True)]),
        first_context=np.ascontiguousarray(
            np.concatenate([first[len(first) - encoded:] for first in firsts], axis=1)),
        first_bias=np.concatenate([own[0][1] for own in layers]),
        summary=np.ascontiguousarray(summary[by_signal]), summary_bias=summary_bias,
        first_summary=others,
        second=np.stack([own[1][0] for own in layers]),
        second_bias=np.stack([own[1][1] for own in layers]),
        third=np.stack([own[2][0][:, 0] for own in layers]),
        third_bias=np.concatenate([own[2][1] for own in layers]))


Layer = tuple[FloatArray, FloatArray]


def _linear(module: nn.Module) -> Layer:
    """Return weights (inputs, outputs) and bias of a linear layer."""
    assert isinstance(module, nn.Linear)
    return np.ascontiguousarray(_array(module.weight).T), _array(module.bias)


def _array(tensor: object) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy()  # type: ignore[attr-defined]
    return array
