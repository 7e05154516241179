"""A training of any length has a learning rate at each of its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sidecar.training.schedule import one_cycle


@pytest.mark.parametrize("steps", [*range(25), 99, 1000])
def test_every_number_of_steps_has_a_rate_that_ends_near_nothing(steps):
    weights = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([weights], lr=1.0)
    schedule = one_cycle(optimizer, 0.01, steps)
    rates = []
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        rates.append(optimizer.param_groups[0]["lr"])
    assert np.isfinite(rates).all()
    assert all(0 < rate <= 0.01 for rate in rates)
    if steps >= 20:
        assert max(rates) > 0.0098
        assert rates[-1] < 1e-6
