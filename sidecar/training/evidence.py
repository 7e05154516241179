"""Does a model help? The latest lists judge a blend that learned from all the others.

The result decides what the served model may do: order by what is known of the shopper, else give
its unpersonalised order, else leave the engine's.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.blend import Blend
from sidecar.training.blend_training import part_lists
from sidecar.training.lists import Lists
from sidecar.training.metrics import compare, reciprocal_ranks

log = logging.getLogger(__name__)
FEWEST_LISTS = 30  # held out, for an interval that can be trusted
ENOUGH_LISTS = 100  # held out, of a small shop's: at most a third of all
HASTE = 3  # by how much less the first blend that is judged has read
Train = Callable[[Lists, int], Blend]  # on lists, each read so many times


def measure_gains(lists: Lists, *, share: float, epochs: int, train: Train,
                  progress: Callable[[int, float], None]) -> dict[str, Any]:
    """Measure the gains on the latest lists, with a blend trained on the others.

    Args:
        lists: all there are, in order of time.
        share: of them, the latest, that are held out; more where they are few.
        epochs: how often the blend that ships reads its lists.
        train: trains a blend.
        progress: called here only where nothing is trained, which ends the step.

    The personal part ships switched on only if its gain's 95 % interval lies above zero. If it does
    not, the unpersonalised order ships only if its gain over the engine's order does. Lists with
    another user's history teach the gate and show no gain: they are left out. Lists keep only their
    sampled candidates (``TrainConfig.most_candidates``), so the returned MRR is higher than the one
    over whole windows; only the differences are used.
    """
    held = max(1, int(len(lists) * share), min(ENOUGH_LISTS, len(lists) // 3))
    early = len(lists) - held
    late = np.arange(early, len(lists))
    known = late[(lists.has_history & lists.is_own)[late]]
    has_enough = len(known) >= FEWEST_LISTS
    if not has_enough or early < FEWEST_LISTS:
        log.warning("too few lists (%d, of them %d held out, %d with the shopper's own history) to "
                    "show a personal gain: the model ships with personalization off", len(lists),
                    len(late), len(known))
    if early < FEWEST_LISTS or len(late) < FEWEST_LISTS:
        progress(1000, 0.0)
        return {"lists": len(known), "is_personal": False, "beats_engine": False}
    judged = known if has_enough else late  # what strangers get can be shown by anybody's
    taught, dev = lists.take(slice(early)), lists.take(judged)
    reads = sorted({max(1, epochs // HASTE), epochs})
    personal, unpersonalised, engine = _placed_once_sure(
        taught, dev, train, reads if has_enough else reads[:1])
    gain, over_engine = compare(personal, unpersonalised), compare(unpersonalised, engine)
    evidence = {"lists": len(judged), "mrr": float(personal.mean()),
                "mrr_unpersonalised": float(unpersonalised.mean()),
                "mrr_engine": float(engine.mean()),
                "gain": gain["difference"], "low": gain["low"], "high": gain["high"],
                "is_personal": has_enough and gain["low"] > 0,
                "beats_engine": over_engine["low"] > 0}
    if has_enough:
        log.info("personal gain in MRR on the latest %d lists: %+.4f [%+.4f, %+.4f]: "
                 "personalization ships %s", len(judged), gain["difference"], gain["low"],
                 gain["high"], "on" if evidence["is_personal"] else "off")
    if not evidence["is_personal"]:
        log.info("gain in MRR of its unpersonalised order over the engine's: %+.4f [%+.4f, %+.4f]: "
                 "shoppers with history get %s", over_engine["difference"], over_engine["low"],
                 over_engine["high"], "that order" if evidence["beats_engine"] else "the engine's")
    return evidence


def _placed_once_sure(taught: Lists, dev: Lists, train: Train,
                      reads: Sequence[int]) -> list[npt.NDArray[np.float64]]:
    """Return what ``_placed`` does, by the first blend that shows a personal gain or loss, or else
    by the last; each has read the lists ``reads`` times, fewest first.

    One that has read them a third as often as the one that ships tells most shops; where its
    interval holds zero, one decides that has read them as often: a weak gain takes that long to
    learn.
    """
    for count in reads:
        placed = _placed(train(taught, count), dev)
        gain = compare(placed[0], placed[1])
        if not gain["low"] <= 0 < gain["high"]:
            break
    return placed


def _placed(blend: Blend, dev: Lists) -> list[npt.NDArray[np.float64]]:
    """Return reciprocal ranks (N) of the personal, the unpersonalised and the engine's order."""
    scores = [part_lists(blend, dev, as_strangers=alone).sum(axis=-1) for alone in (False, True)]
    scores.append(np.broadcast_to(-np.arange(dev.valid.shape[1], dtype=np.float32),
                                  dev.valid.shape))  # candidates stand in the engine's order
    return [reciprocal_ranks(found, dev.target, dev.valid) for found in scores]
