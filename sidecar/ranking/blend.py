"""Signals that add up: the blended score is a gated sum of one small function a signal.

score_i = Σ_k g_k(c) · s_k(x_ik, c), where x_ik are signal k's columns for hit i (raw, standardised
by the training data, and as z-scores within the window), c the search's context, s_k an MLP
bounded to ±BOUND by tanh, and g_k ≥ 0 the gate. A personal signal's gate is exactly 0 when there
is no history. Each signal's part is centred within the window: only differences order hits, and
a part of 0 then reads "no better than its neighbours".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sidecar.ranking.signals import PERSONAL, SIGNALS, Columns
from sidecar.records import FloatArray

BOUND = 8.0
CLIP = 6.0


class Layout:
    """Which columns stand where: features (F, ordered by signal) and context (C)."""

    def __init__(self, features: Sequence[tuple[str, str]], context: Sequence[str]) -> None:
        self.features = list(features)
        self.context = list(context)
        self.signals = [s for s in SIGNALS if any(f[0] == s for f in self.features)]
        self.index = {s: [k for k, f in enumerate(self.features) if f[0] == s]
                      for s in self.signals}

    @classmethod
    def of(cls, found: Mapping[str, Columns]) -> Layout:
        """Read the layout off one search's columns."""
        features = [(s, name) for s in SIGNALS for name in found.get(s, ())]
        return cls(features, list(found["context"]))

    def matrix(self, found: Mapping[str, Columns]) -> tuple[FloatArray, FloatArray]:
        """Return features (K, F) and context (C) of one search; NaN where a fact is unknown."""
        features = np.stack([found[s][name] for s, name in self.features], axis=1)
        context = np.concatenate([found["context"][name] for name in self.context])
        return features.astype(np.float32), context.astype(np.float32)


def window_scores(features: FloatArray) -> FloatArray:
    """Return each column's z-score within the window (K, F); 0 where all hits agree."""
    features = np.nan_to_num(features)
    spread = features.std(axis=0)
    scores = (features - features.mean(axis=0)) / np.maximum(spread, 1e-5)
    result: FloatArray = np.where(spread > 1e-5, scores, 0.0).astype(np.float32)
    return result


class Blend(nn.Module):
    """The additive model over (features, context)."""

    def __init__(self, layout: Layout, width: int = 32, context_width: int = 8,
                 dropout: float = 0.1) -> None:
        super().__init__()
        self.layout = layout
        self.shape = {"width": width, "context_width": context_width, "dropout": dropout}
        size, signals = len(layout.features), layout.signals
        self.mean = nn.Buffer(torch.zeros(size))
        self.scale = nn.Buffer(torch.ones(size))
        self.context_mean = nn.Buffer(torch.zeros(len(layout.context)))
        self.context_scale = nn.Buffer(torch.ones(len(layout.context)))
        self.personal = torch.tensor([s in PERSONAL for s in signals])
        self.context = nn.Sequential(nn.Linear(len(layout.context), 24), nn.SiLU(),
                                     nn.Linear(24, context_width), nn.Tanh())
        self.parts = nn.ModuleList(
            _part(2 * len(layout.index[s]) + context_width, width, dropout) for s in signals)
        self.gate = nn.Linear(context_width, len(signals))
        nn.init.zeros_(self.gate.weight)
        nn.init.ones_(self.gate.bias)

    @torch.no_grad()
    def fit_scale(self, features: npt.NDArray[np.float32], context: FloatArray) -> None:
        """Standardise by training data: features (R, F), context (N, C)."""
        mean, scale = np.zeros(features.shape[1]), np.ones(features.shape[1])
        for k in range(features.shape[1]):  # a column at a time: all at once is a gigabyte
            known = features[np.isfinite(features[:, k]), k].astype(np.float64)
            if len(known):
                mean[k], scale[k] = known.mean(), known.std()
        self.mean.copy_(torch.from_numpy(mean))
        self.scale.copy_(torch.from_numpy(np.maximum(scale, 1e-3)))
        self.context_mean.copy_(torch.from_numpy(context.mean(axis=0)))
        self.context_scale.copy_(torch.from_numpy(np.maximum(context.std(axis=0), 1e-3)))

    def standardise(self, raw: Tensor, z_scores: Tensor) -> Tensor:
        """raw, z_scores (…, K, F) → (…, K, 2F), clipped to ±CLIP, unknown facts at the mean."""
        scaled = torch.nan_to_num((raw - self.mean) / self.scale)
        return torch.cat([scaled, z_scores], dim=-1).clamp(-CLIP, CLIP)

    def forward(self, features: Tensor, context: Tensor, has_history: Tensor,
                valid: Tensor) -> Tensor:
        """Return each signal's centred part (B, K, S).

        ``features`` (B, K, 2F) standardised; ``context`` (B, C) raw; ``has_history`` (B) bool;
        ``valid`` (B, K) bool, False for padding.
        """
        scaled = ((context - self.context_mean) / self.context_scale).clamp(-4, 4)
        situation = self.context(scaled)  # (B, E)
        gates = nn.functional.softplus(self.gate(situation))  # (B, S)
        closed = self.personal.to(gates.device) & ~has_history[:, None]
        gates = torch.where(closed, 0.0, gates)
        values = self._values(features, situation)
        stacked = BOUND * torch.tanh(values / BOUND) * gates[:, None]  # (B, K, S)
        weight = valid[..., None].to(stacked.dtype)
        mean = (stacked * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(
            min=1)
        return (stacked - mean) * weight

    def _values(self, features: Tensor, situation: Tensor) -> Tensor:
        """Run every signal's network at once: (B, K, 2F), (B, E) → (B, K, S).

        The first layers become one matrix with a block a signal, the others a stack: a tenth of
        the calls that one network after another would take.
        """
        blocks: list[Tensor] = []
        around: list[Tensor] = []
        bias: list[Tensor] = []
        for k, signal in enumerate(self.layout.signals):
            first, count = self._linear(k, 0), len(self.layout.index[signal])
            blocks.append(first.weight[:, :2 * count].T)
            around.append(first.weight[:, 2 * count:])
            bias.append(first.bias)
        columns = [i + offset for s in self.layout.signals for offset in (
            0, len(self.layout.features)) for i in self.layout.index[s]]
        matrix: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]  # (2F, S·W), rows signal by signal
        back = torch.empty(len(columns), dtype=torch.long, device=matrix.device)
        back[torch.tensor(columns, device=matrix.device)] = torch.arange(
            len(columns), device=matrix.device)
        hidden = features @ matrix[back]  # (B, K, S·W)
        hidden = hidden + (situation @ torch.cat(around).T + torch.cat(bias))[:, None]
        hidden = self.parts[0].get_submodule("2")(nn.functional.silu(hidden))
        batch, size = hidden.shape[:2]
        stack = hidden.reshape(batch * size, len(self.parts), -1).transpose(0, 1)  # (S, B·K, W)
        second = [self._linear(k, 3) for k in range(len(self.parts))]
        stack = torch.baddbmm(torch.stack([m.bias for m in second])[:, None], stack,
                              torch.stack([m.weight.T for m in second]))
        third = [self._linear(k, 5) for k in range(len(self.parts))]
        out = torch.baddbmm(torch.stack([m.bias for m in third])[:, None],
                            nn.functional.silu(stack),
                            torch.stack([m.weight.T for m in third]))  # (S, B·K, 1)
        return out[..., 0].T.reshape(batch, size, -1)

    def _linear(self, k: int, layer: int) -> nn.Linear:
        module = self.parts[k].get_submodule(str(layer))
        assert isinstance(module, nn.Linear)
        return module


def _part(inputs: int, width: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Dropout(dropout),
                         nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1))
