"""Teaches the blend: listwise softmax over candidates, on lists in order of time.

The loss of a list is −log of the probability that softmax(score) gives to all its targets together:
what counts is that one of them comes first. (Cross-entropy with each of them, the usual ListNet
loss, gave 0.007 less MRR on a dev window with two targets per list.) A share of the rows teaches
when history says nothing: so that the gate learns to close, and the other parts to rank alone. Some
of these rows keep their targets and get another user's history (see ``pipeline``). Others, chosen
anew in each epoch, are read as if by a stranger.

Shoppers look at the first places most. So for lists that were logged with positions, one number per
position is learnt beside the scores. It is added to them in training and left out when the model
serves. It can be separated from the engine's own merit only where orders vary: between searches, by
personalization, or by deliberate swaps.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidecar.ranking.blend import INDEX, Blend
from sidecar.ranking.signals import SIGNALS
from sidecar.records import FloatArray
from sidecar.training.lists import Lists
from sidecar.training.schedule import one_cycle

BATCH = 64
LEARNING_RATE = 2e-3
POSITIONS = 100  # told apart; what was shown further down shares the last


def train_blend(blend: Blend, lists: Lists, *, seed: int, epochs: int, empty_share: float,
                progress: Callable[[int, float], None]) -> None:
    """Train in place; ``progress(done share in permille, loss)`` is called after each step.

    ``empty_share`` of the lists of a step are read as if by somebody without history.
    """
    device = next(blend.parameters()).device
    blend.fit_scale(lists.features[lists.valid], lists.context)
    torch.manual_seed(seed)
    bias = torch.zeros(POSITIONS, device=device, requires_grad=True)
    optimizer = torch.optim.AdamW([*blend.parameters(), bias], lr=LEARNING_RATE, weight_decay=1e-3,
                                  fused=True)
    per_epoch = -(-len(lists) // BATCH)
    schedule = one_cycle(optimizer, LEARNING_RATE, epochs * per_epoch)
    rng = np.random.default_rng(seed)
    blend.train()
    done = 0
    for _ in range(epochs):
        order = rng.permutation(len(lists))
        for start in range(0, len(order), BATCH):
            index = order[start:start + BATCH]
            strangers = rng.random(len(index)) < empty_share
            loss = _loss(blend, lists, index, strangers, bias)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(blend.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            done += 1
            progress(int(1000 * done / (epochs * per_epoch)), loss.item())
    blend.eval()


def part_lists(blend: Blend, lists: Lists, *, as_strangers: bool = False) -> FloatArray:
    """Return each signal's part (N, K, S), 0 for padding; ``as_strangers`` leaves histories out."""
    device = next(blend.parameters()).device
    blend.eval()
    found = np.zeros((*lists.valid.shape, len(SIGNALS)), np.float32)
    with torch.inference_mode():
        for start in range(0, len(lists), 256):
            index = np.arange(start, min(start + 256, len(lists)))
            strangers = np.full(len(index), as_strangers)
            parts = _parts(blend, lists, index, strangers, device).cpu().numpy()
            found[start:start + 256][lists.valid[index]] = parts
    return found


def _loss(blend: Blend, lists: Lists, index: npt.NDArray[np.int64],
          strangers: npt.NDArray[np.bool_], bias: Tensor) -> Tensor:
    device = bias.device
    valid = torch.from_numpy(lists.valid[index]).to(device)
    target = torch.from_numpy(lists.target[index]).to(device)
    scores = torch.full(valid.shape, float("-inf"), device=device)
    scores[valid] = _parts(blend, lists, index, strangers, device).sum(dim=1)
    position = torch.from_numpy(lists.position[index].astype(np.int64)).to(device)
    scores = scores + torch.where(position >= 0, bias[position.clamp(0, POSITIONS - 1)], 0.0)
    found = torch.logsumexp(scores.masked_fill(~target, float("-inf")), dim=1)
    return (torch.logsumexp(scores, dim=1) - found).mean()


def _parts(blend: Blend, lists: Lists, index: npt.NDArray[np.int64],
           strangers: npt.NDArray[np.bool_], device: torch.device) -> Tensor:
    """Return the parts (R, S) of the hits of some lists, padding left out."""
    valid = lists.valid[index]
    place = torch.from_numpy(np.repeat(np.arange(len(index)), valid.sum(axis=1))).to(device)
    raw = torch.from_numpy(lists.features[index][valid]).to(device).float()
    z_scores = torch.from_numpy(lists.z_scores[index][valid]).to(device).float()
    alone = torch.from_numpy(strangers).to(device)[place]
    for column in INDEX["segment"]:  # read off the history too, unlike the other unpersonal ones
        raw[alone, column] = z_scores[alone, column] = 0.0
    parts: Tensor = blend(blend.standardise(raw, z_scores),
                          torch.from_numpy(lists.context[index]).to(device),
                          torch.from_numpy(lists.has_history[index] & ~strangers).to(device),
                          place)
    return parts
