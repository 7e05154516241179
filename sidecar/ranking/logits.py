"""How well do items fit an interest? v · z + b of a window's items, compiled.

Legend: K candidates, n items of the table, D wide.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.compiled import compiled

_HALF_BIAS = np.float32(2.0 ** 112)  # 2 to the difference of the exponents' biases, 127 - 15

I64 = npt.NDArray[np.int64]
U16 = npt.NDArray[np.uint16]
F32 = npt.NDArray[np.float32]


@compiled
def logits(vectors: F32, rows: I64, interest: F32, bias: float) -> F32:
    """Return v · interest + bias (K) of some rows of ``vectors`` (n, D), 0 for -1."""
    found = np.zeros(len(rows), np.float32)
    for k in range(len(rows)):
        if 0 <= rows[k] < len(vectors):
            found[k] = np.dot(vectors[rows[k]], interest) + bias
    return found


@compiled
def half_logits(vectors: U16, rows: I64, interest: F32, bias: float) -> F32:
    """Return what ``logits`` does, for numbers in half precision, given as their bits.

    Exponent and mantissa move to a wider number's places, and a factor corrects the difference of
    the exponents' biases, also for subnormal numbers; infinity and NaN are not expected.
    """
    found = np.zeros(len(rows), np.float32)
    bits = np.zeros(vectors.shape[1], np.uint32)
    numbers = bits.view(np.float32)
    for k in range(len(rows)):
        if 0 <= rows[k] < len(vectors):
            for d in range(len(bits)):
                half = np.uint32(vectors[rows[k], d])
                bits[d] = (half & np.uint32(0x7FFF)) << np.uint32(13) | (
                    half & np.uint32(0x8000)) << np.uint32(16)
            found[k] = np.dot(numbers, interest) * _HALF_BIAS + bias
    return found
