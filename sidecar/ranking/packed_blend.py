"""The blend for one search on a processor: the same sum as ``Blend``, in a tenth of the calls.

``Blend.forward`` runs a small network a signal, some hundred torch calls that each cost more than
the arithmetic in them. Here the first layers of all signals are one product (their weights as
blocks of one matrix), the second ones a product of stacks. numpy, because a call costs less.
Results agree with ``Blend`` to float32 rounding; a test holds that.

Legend: K candidates, F features, S signals, W width of a part's network, C context, E its encoding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import nn

from sidecar.ranking.blend import BOUND, CLIP, Blend, window_scores
from sidecar.records import FloatArray

CONTEXT_CLIP = 4.0


class PackedBlend:
    """A trained blend's weights, packed; safe to use from several threads."""

    def __init__(self, blend: Blend) -> None:
        self._mean, self._scale = _array(blend.mean), _array(blend.scale)
        self._context_mean = _array(blend.context_mean)
        self._context_scale = _array(blend.context_scale)
        first, second = blend.context[0], blend.context[2]
        self._context_1 = _linear(first)
        self._context_2 = _linear(second)
        self._gate = _linear(blend.gate)
        self._personal = _array(blend.personal).astype(bool)
        self._pack_parts(blend)

    def parts(self, features: FloatArray, context: FloatArray, *,
              has_history: bool) -> FloatArray:
        """Return each signal's centred part (K, S).

        Args:
            features: (K, F) raw, NaN where a fact is unknown.
            context: (C) raw.
            has_history: False closes the personal signals' gates.
        """
        if not len(features):
            return np.zeros((0, len(self._personal)), np.float32)
        situation = self._situation(context)  # (E)
        gates: FloatArray = np.logaddexp(np.float32(0), _apply(situation, self._gate))  # softplus
        if not has_history:
            gates[self._personal] = 0.0
        hidden = self._standardised(features) @ self._w1  # (K, S·W)
        hidden += situation @ self._w1_context + self._b1
        stack = _silu(hidden).reshape(len(features), *self._b2.shape).transpose(1, 0, 2)
        stack = _silu(np.matmul(stack, self._w2) + self._b2[:, None])  # (S, K, W)
        values = np.matmul(stack, self._w3)[..., 0] + self._b3[:, None]  # (S, K)
        values = BOUND * np.tanh(values / BOUND) * gates[:, None]
        values -= values.mean(axis=1, keepdims=True)
        result: FloatArray = values.T.astype(np.float32)
        return result

    def _situation(self, context: FloatArray) -> FloatArray:
        scaled = np.clip((context - self._context_mean) / self._context_scale,
                         -CONTEXT_CLIP, CONTEXT_CLIP)
        encoded: FloatArray = np.tanh(_apply(_silu(_apply(scaled, self._context_1)),
                                             self._context_2))
        return encoded

    def _standardised(self, features: FloatArray) -> FloatArray:
        """Return (K, 2F): features by the training data's scale, then within the window."""
        count = features.shape[1]
        both = np.empty((len(features), 2 * count), np.float32)
        both[:, :count] = np.nan_to_num((features - self._mean) / self._scale)
        both[:, count:] = window_scores(features)
        return np.clip(both, -CLIP, CLIP, out=both)

    def _pack_parts(self, blend: Blend) -> None:
        signals, count = len(blend.layout.signals), len(blend.layout.features)
        width, encoded = blend.shape["width"], blend.shape["context_width"]
        assert isinstance(width, int)
        assert isinstance(encoded, int)
        self._w1 = np.zeros((2 * count, signals * width), np.float32)
        self._w1_context = np.zeros((encoded, signals * width), np.float32)
        layers = [[_linear(part.get_submodule(str(k))) for k in (0, 3, 5)]
                  for part in blend.parts]
        for k, signal in enumerate(blend.layout.signals):
            index = blend.layout.index[signal]
            rows = [*index, *(i + count for i in index)]
            block = slice(k * width, (k + 1) * width)
            weights = layers[k][0][0]
            self._w1[rows, block] = weights[:len(rows)]
            self._w1_context[:, block] = weights[len(rows):]
        self._b1 = np.concatenate([layer[0][1] for layer in layers])
        self._w2 = np.stack([layer[1][0] for layer in layers])  # (S, W, W)
        self._b2 = np.stack([layer[1][1] for layer in layers])  # (S, W)
        self._w3 = np.stack([layer[2][0] for layer in layers])  # (S, W, 1)
        self._b3 = np.concatenate([layer[2][1] for layer in layers])  # (S)


Layer = tuple[FloatArray, FloatArray]


def _linear(module: nn.Module) -> Layer:
    """Return weights (inputs, outputs) and bias of a linear layer."""
    assert isinstance(module, nn.Linear)
    return np.ascontiguousarray(_array(module.weight).T), _array(module.bias)


def _apply(x: FloatArray, layer: Layer) -> FloatArray:
    result: FloatArray = x @ layer[0] + layer[1]
    return result


def _silu(x: FloatArray) -> FloatArray:
    """x · σ(x); exp overflows to infinity for x below -88, which gives the right 0."""
    with np.errstate(over="ignore"):
        result: FloatArray = np.divide(x, 1.0 + np.exp(-x), dtype=np.float32)
    return result


def _array(tensor: object) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = tensor.detach().cpu().numpy()  # type: ignore[attr-defined]
    return array
