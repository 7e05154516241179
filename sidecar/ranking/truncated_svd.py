"""The strongest directions of a sparse matrix, the same each time: words of titles, items of users.

ARPACK does not fix which way a direction points, and invents directions that the matrix does not
have; both would differ from run to run.
"""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse
from scipy.sparse.linalg import ArpackError, svds

from sidecar.records import FloatArray

LEAST_SHARE = 1e-6  # of the largest singular value; what has less has no repeatable direction


def truncated_svd(matrix: sparse.csr_matrix, rank: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the largest singular values (rank), falling, and their right vectors (rank, columns).

    Each vector's element of greatest size is positive. Where the matrix has fewer directions, the
    remaining values and vectors are 0. ``rank`` must be less than either side of the matrix.
    """
    if not matrix.count_nonzero():  # ARPACK refuses to begin
        return np.zeros(rank, np.float32), np.zeros((rank, matrix.shape[1]), np.float32)
    try:
        values, right = _arpack(matrix, rank, seed)
    except ArpackError:  # it may find no way to start anew, where one direction outweighs all
        values, right = _otherwise(matrix, rank, seed)
    order = np.argsort(-values, kind="stable")
    values, right = values[order], right[order]
    is_none = values < LEAST_SHARE * values.max(initial=0.0)
    values[is_none], right[is_none] = 0.0, 0.0
    heads = np.take_along_axis(right, np.abs(right).argmax(axis=1)[:, None], axis=1)
    return values, right * np.where(heads < 0, -1.0, 1.0).astype(right.dtype)


def _arpack(matrix: sparse.csr_matrix, rank: int, seed: int,
            basis: int | None = None) -> tuple[FloatArray, FloatArray]:
    rng = np.random.default_rng(seed)
    _, values, right = svds(matrix, k=rank, ncv=basis, v0=rng.standard_normal(min(matrix.shape)),
                            rng=rng)
    return values, right


def _otherwise(matrix: sparse.csr_matrix, rank: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Return the same by twice as wide a basis as ARPACK's own, or whole where that is all."""
    basis = 4 * rank + 1
    if basis < min(matrix.shape):
        return _arpack(matrix, rank, seed, basis)
    _, values, right = linalg.svd(matrix.toarray(), full_matrices=False)
    return values[:rank], right[:rank]
