"""AdamW for a table of which a step reads few rows; a step costs only as much as those rows.

A row without a gradient still moves under AdamW: its momentum dies out over the next steps, and its
weight decays. This matters only when the row is read again, so all its moves are made then, at
once. With m and v as the row's last step s left them, the steps t = s+1 … n move it by m / √v times
Σ_t lr_t √(1 − β2^t) / (1 − β1_t^t) · Π_{u = s+1 … t} β1_u / √β2. The sum depends on s alone. It is
kept for the last TAIL steps, after which nothing of it is left. The differences from AdamW are
small: ε is added to √v once, as if v did not change, and the row's weight decays before these
moves. (``torch.optim.SparseAdam`` leaves idle rows where they are, momentum and all: another
optimiser.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TAIL = 512  # steps; 0.95^512 is 4e-12
PIECE = 2**16  # rows brought up to date at once in the end


class RowAdam:
    """Moves the rows of an embedding; gradients are sparse while it does.

    Each step: rows are read (brought up to date first, by a hook), ``loss.backward()``,
    ``gradient``, ``step``. After the last step, ``finish``.
    """

    def __init__(self, table: nn.Embedding, steps: int) -> None:
        """``steps``: how many there will be at most."""
        self._table = table
        table.sparse = True
        self._hook = table.register_forward_pre_hook(lambda _, rows: self._catch_up(rows[0]))
        weight = table.weight.detach()
        self._mean, self._square = torch.zeros_like(weight), torch.zeros_like(weight)
        self._last = torch.zeros(len(weight), dtype=torch.int64, device=weight.device)
        self._now = 0
        self._beta2, self._eps = 0.999, 1e-8
        self._tail = np.zeros(steps + 1)  # the sum above, of rows that moved last at each step
        # Logarithms of products up to each step: of β1, and of what weight decay leaves.
        self._momentum, self._kept = np.zeros(steps + 1), np.zeros(steps + 1)

    def gradient(self) -> Tensor:
        """Return a tensor whose ``grad`` (m, D) is that of the rows read, for clipping in place."""
        found = self._table.weight.grad
        assert found is not None
        self._table.weight.grad = found = found.coalesce()
        values = found.values().detach()
        holder = torch.empty_like(values)
        holder.grad = values
        return holder

    @torch.no_grad()
    def step(self, moved: Tensor, group: Mapping[str, Any]) -> None:
        """Move the rows that were read by ``moved.grad``, which ``gradient`` returned.

        ``group``: AdamW's ``lr``, ``betas``, ``eps`` and ``weight_decay`` of this step.
        """
        found, change = self._table.weight.grad, moved.grad
        assert found is not None
        assert change is not None
        rows = found.indices()[0]
        self._table.weight.grad = None
        beta1, beta2 = group["betas"]
        rate = self._count_step(group)
        mean = torch.lerp(self._mean[rows], change, 1 - beta1)
        square = beta2 * self._square[rows] + (1 - beta2) * change.square()
        weight = self._table.weight
        weight[rows] = (weight[rows] * (1 - group["lr"] * group["weight_decay"])
                        - rate * mean / (square.sqrt() + self._least(self._now)))
        self._mean[rows], self._square[rows], self._last[rows] = mean, square, self._now

    def finish(self) -> None:
        """Bring every row up to date, and leave the table as it was found."""
        size = len(self._last)
        for start in range(0, size, PIECE):
            self._catch_up(torch.arange(start, min(start + PIECE, size), device=self._last.device))
        self._hook.remove()
        self._table.sparse = False

    def _least(self, step: Any) -> Any:
        """Return what ε is beside √v as it is kept, with its bias, after some step."""
        return self._eps * (1 - self._beta2 ** step) ** 0.5

    def _count_step(self, group: Mapping[str, Any]) -> float:
        """Count a step; return what m / √v is multiplied with in it."""
        beta1, beta2 = group["betas"]
        self._now, self._beta2, self._eps = self._now + 1, beta2, group["eps"]
        now, first = self._now, max(0, self._now - TAIL)
        self._momentum[now] = self._momentum[now - 1] + math.log(beta1)
        self._kept[now] = self._kept[now - 1] + math.log1p(-group["lr"] * group["weight_decay"])
        rate: float = group["lr"] * math.sqrt(1 - beta2 ** now) / (1 - beta1 ** now)
        idle = np.arange(now - first, 0, -1)
        self._tail[first:now] += rate * np.exp(
            self._momentum[now] - self._momentum[first:now] - idle * (math.log(beta2) / 2))
        return rate

    @torch.no_grad()
    def _catch_up(self, rows: Tensor) -> None:
        """Move rows (m) as the steps since they moved last would have."""
        rows = rows[self._last[rows] < self._now]
        last = self._last[rows].cpu().numpy()
        mean, square, weight = self._mean[rows], self._square[rows], self._table.weight
        kept = np.exp(self._kept[self._now] - self._kept[last])
        weight[rows] = (weight[rows] * self._column(kept)
                        - mean / (square.sqrt() + self._column(self._least(last.clip(min=1))))
                        * self._column(self._tail[last]))
        self._mean[rows] = mean * self._column(
            np.exp(self._momentum[self._now] - self._momentum[last]))
        self._square[rows] = square * self._column(self._beta2 ** (self._now - last))
        self._last[rows] = self._now

    def _column(self, values: np.ndarray[Any, Any]) -> Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(self._last.device)[:, None]
