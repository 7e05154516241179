"""How does the learning rate move over a training? Up for a tenth of the steps, then down to none.

One cycle after Smith and Topin, "Super-Convergence", arXiv:1708.07120, as torch has it.
"""

from __future__ import annotations

import torch

WARM_UP = 0.1


def one_cycle(optimizer: torch.optim.Optimizer, peak: float,
              steps: int) -> torch.optim.lr_scheduler.OneCycleLR:
    """Return the schedule of a training of ``steps`` (at least 0) steps, called after each.

    Args:
        optimizer: its rate is set.
        peak: the highest rate, where the warm-up ends.
        steps: how often the schedule will be stepped.
    """
    total = steps + 1
    if total * WARM_UP == 1.0:
        total += 1  # torch divides by the length of the warm-up less one
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, peak, total_steps=total,
                                               pct_start=WARM_UP)
