"""AdamW row by row: the same table as AdamW over all of it, whichever rows a step reads."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from sidecar.training.row_adam import RowAdam
from sidecar.training.schedule import one_cycle

ROWS, WIDTH, STEPS = 60, 5, 900


def table_of() -> nn.Embedding:
    torch.manual_seed(3)
    return nn.Embedding(ROWS, WIDTH, padding_idx=0)


def reads() -> list[torch.Tensor]:
    """Rows of each step: some often, some hardly, one never, one again after a long pause."""
    rng = np.random.default_rng(5)
    weights = 1.0 / np.arange(1, ROWS - 1) ** 1.5
    steps = [rng.choice(ROWS - 2, 6, p=weights / weights.sum()) for _ in range(STEPS)]
    for step in (0, STEPS - 1):
        steps[step][0] = ROWS - 2
    return [torch.from_numpy(step) for step in steps]


def loss_of(table: nn.Embedding, rows: torch.Tensor, step: int) -> torch.Tensor:
    """Pull the rows towards goals of their own, with noise that a step has."""
    goal = torch.sin(rows[:, None] + torch.arange(WIDTH)[None, :] + 0.1 * (step % 7))
    return (table(rows) - goal).square().mean() + 0.1 * table(rows.flip(0)).sum() * (-1) ** step


def trained(*, by_row: bool, weight_decay: float = 1e-4) -> torch.Tensor:
    table = table_of()
    scale = nn.Parameter(torch.zeros(()))  # something that is moved as a whole
    whole = [scale] if by_row else [scale, table.weight]
    optimizer = torch.optim.AdamW(whole, lr=3e-3, weight_decay=weight_decay)
    schedule = one_cycle(optimizer, 3e-3, STEPS)
    rows_of = RowAdam(table, STEPS) if by_row else None
    for step, rows in enumerate(reads()):
        optimizer.zero_grad()
        (loss_of(table, rows, step) + scale).backward()
        if rows_of is None:
            torch.nn.utils.clip_grad_norm_([table.weight], 0.2)
        else:
            moved = rows_of.gradient()
            torch.nn.utils.clip_grad_norm_([moved], 0.2)
            rows_of.step(moved, optimizer.param_groups[0])
        optimizer.step()
        schedule.step()
    if rows_of is not None:
        rows_of.finish()
    return table.weight.detach()


@pytest.mark.parametrize(("weight_decay", "atol"), [(0.0, 1e-4), (1e-4, 1e-4), (1e-2, 1e-3)])
def test_rows_end_where_adamw_over_the_whole_table_leaves_them(
        weight_decay: float, atol: float) -> None:
    dense, by_row = (trained(by_row=one, weight_decay=weight_decay) for one in (False, True))
    moved = (dense - table_of().weight.detach()).abs().max(dim=1).values
    assert moved[1:ROWS - 2].min() > 0.02
    np.testing.assert_allclose(by_row, dense, rtol=0, atol=atol)


def test_padding_stays_zero() -> None:
    assert not trained(by_row=True)[0].any()


def test_the_same_run_gives_the_same_bits() -> None:
    assert torch.equal(trained(by_row=True), trained(by_row=True))


def test_a_table_is_left_as_it_was_found() -> None:
    table = table_of()
    before = table.weight.detach().clone()
    rows = RowAdam(table, 1)
    assert table.sparse
    rows.finish()
    assert not table.sparse
    assert not table._forward_pre_hooks
    torch.testing.assert_close(table.weight.detach(), before, atol=0, rtol=0)


@pytest.mark.parametrize("row", [0, 7])
def test_a_step_that_reads_one_row_twice_adds_its_gradients(row: int) -> None:
    table = table_of()
    rows = RowAdam(table, 1)
    table(torch.tensor([row, row])).sum().backward()
    moved = rows.gradient()
    assert moved.grad is not None
    assert moved.grad.tolist() == ([[2.0] * WIDTH] if row else [])
