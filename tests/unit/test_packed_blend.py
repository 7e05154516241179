"""The packed blend gives what the trained one gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sidecar.ranking.blend import Blend, window_scores
from sidecar.ranking.kernels import CONTEXT
from sidecar.ranking.packed_blend import PackedBlend
from sidecar.ranking.signals import FEATURES, PERSONAL, SIGNALS


@pytest.fixture(params=[SIGNALS, ("engine", "content", "memory")], ids=["all", "some"])
def blend(request):
    torch.manual_seed(3)
    made = Blend(width=16, context_width=4, signals=request.param).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        made.mean.copy_(torch.randn(len(FEATURES)))
        made.scale.copy_(torch.rand(len(FEATURES)) + 0.5)
        made.context_mean.copy_(torch.randn(len(CONTEXT)))
        made.context_scale.copy_(torch.rand(len(CONTEXT)) + 0.5)
    return made


def by_torch(blend, features, context, has_history):
    with torch.inference_mode():
        scaled = blend.standardise(torch.from_numpy(features),
                                   torch.from_numpy(window_scores(features)))
        return blend(scaled, torch.from_numpy(context)[None], torch.tensor([has_history]),
                     torch.zeros(len(features), dtype=torch.int64)).numpy()


@pytest.mark.parametrize("has_history", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_parts_agree_with_the_trained_blend(blend, count, has_history):
    rng = np.random.default_rng(count)
    features = (rng.normal(size=(count, len(FEATURES))) * 3).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    context = rng.normal(size=len(CONTEXT)).astype(np.float32)
    expected = by_torch(blend, features, context, has_history)
    found = PackedBlend(blend).parts(features, context, has_history=has_history)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_extreme_features_neither_overflow_nor_warn(blend):
    features = np.full((3, len(FEATURES)), 1e15, np.float32)
    features[1] *= -1
    context = np.zeros(len(CONTEXT), np.float32)
    context[:2] = 1e20, -1e20
    np.testing.assert_allclose(PackedBlend(blend).parts(features, context, has_history=True),
                               by_torch(blend, features, context, True), atol=1e-3)


def test_without_history_personal_parts_are_exactly_zero(blend):
    features = np.random.default_rng(0).normal(size=(5, len(FEATURES))).astype(np.float32)
    context = np.zeros(len(CONTEXT), np.float32)
    found = PackedBlend(blend).parts(features, context, has_history=False)
    personal = [k for k, s in enumerate(SIGNALS) if s in PERSONAL]
    assert not found[:, personal].any()


def test_no_candidates_are_no_parts(blend):
    empty = np.zeros((0, len(FEATURES)), np.float32)
    found = PackedBlend(blend).parts(empty, np.zeros(len(CONTEXT), np.float32), has_history=True)
    assert found.shape == (0, len(SIGNALS))


def test_signals_that_are_off_say_nothing_and_are_not_read():
    torch.manual_seed(0)
    packed = PackedBlend(Blend(signals=("engine", "content")).eval())
    features = np.random.default_rng(0).normal(size=(5, len(FEATURES))).astype(np.float32)
    context = np.zeros(len(CONTEXT), np.float32)
    found = packed.parts(features, context, has_history=True)
    off = [k for k, s in enumerate(SIGNALS) if s not in ("engine", "content")]
    assert found[:, [0, SIGNALS.index("content")]].any(axis=0).all()
    assert not found[:, off].any()
    features[:, [k for k, (s, _) in enumerate(FEATURES) if SIGNALS.index(s) in off]] = 9.0
    np.testing.assert_array_equal(packed.parts(features, context, has_history=True), found)
