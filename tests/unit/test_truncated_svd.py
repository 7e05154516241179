"""Directions of a sparse matrix, also where ARPACK gives up."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import ArpackError, svds

from sidecar.ranking import truncated_svd as module
from sidecar.ranking.truncated_svd import truncated_svd


def matrix_of(lines, columns):
    return sparse.random(lines, columns, 0.3, "csr", random_state=np.random.default_rng(0))


@pytest.mark.parametrize(("lines", "columns"), [(12, 40), (40, 12), (60, 90)],
                         ids=["few lines", "few columns", "many of both"])
def test_directions_are_the_same_where_arpack_gives_up(monkeypatch, lines, columns):
    """As it did for a hundred users of whom one had looked at every product."""
    matrix, tried = matrix_of(lines, columns), []
    usual = truncated_svd(matrix, 4, seed=0)

    def gives_up_at_first(matrix, **options):
        tried.append(options["ncv"])
        if len(tried) == 1:
            raise ArpackError(3)
        return svds(matrix, **options)

    monkeypatch.setattr(module, "svds", gives_up_at_first)
    for ours, theirs in zip(truncated_svd(matrix, 4, seed=0), usual, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert tried == ([None] if min(lines, columns) == 12 else [None, 17])


def test_matrix_of_nothing_has_no_direction():
    values, right = truncated_svd(sparse.csr_matrix((5, 7)), 3, seed=0)
    assert not values.any()
    assert right.shape == (3, 7)
