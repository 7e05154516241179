"""A strong baseline: gradient-boosted trees over the same facts, as an engineer would make it.

LightGBM's lambdarank (Burges 2010, "From RankNet to LambdaRank to LambdaMART") on lists made of the
model's own training period, block by block as the model's are, with every hand-made fact that the
model reads: popularity, repeats and their rhythm, likeness, co-occurrence, EASE and matrix factors,
as they are and as z-scores within the window, and the context. What is learnt otherwise, the
encoder's interest and the segments, is not among them. A second one has no personal fact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.errors import FileError
from sidecar.ranking.items import ItemTable
from sidecar.ranking.signals import FEATURES, PERSONAL
from sidecar.records import FloatArray
from sidecar.training.lists import Lists
from sidecar.training.log import EventLog
from sidecar.training.pipeline import TrainConfig, make_lists

LEARNT = ("interest", "segment")
ROUNDS = 300
PARAMETERS = {
    "objective": "lambdarank", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 50,
    "lambda_l2": 1.0, "feature_fraction": 0.6, "lambdarank_truncation_level": 20, "num_threads": 1,
    "verbose": -1, "deterministic": True, "force_row_wise": True}


def boosted_scores(events: EventLog, rows: Sequence[Mapping[str, Any]], table: ItemTable,
                   dev: Lists, seed: int, progress: Callable[[int, float], None],
                   ) -> dict[str, FloatArray]:
    """Train on a log's lists and score others.

    Args:
        events: the log up to the instant at which the model under test was trained.
        rows: the catalogue that the lists' queries and candidates come from.
        table: the model's item table; it is not changed.
        dev: the lists to score (N, K).
        seed: of lists and trees.
        progress: called with the share done, in permille.

    Returns:
        scores (N, K) of ``lightgbm`` and ``lightgbm, unpersonalised``.

    Raises:
        FileError: LightGBM is not installed.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise FileError("the baseline lightgbm needs the package lightgbm; pip install lightgbm"
                        ) from error
    config = replace(TrainConfig(), seed=seed, foreign_share=0.0,
                     most_candidates=100)  # trees learn best from whole lists
    train = make_lists(events, rows, table, config, _silently)
    progress(500, 0.0)
    found = {}
    for name, skipped in (("lightgbm", LEARNT),
                          ("lightgbm, unpersonalised", (*LEARNT, *PERSONAL))):
        kept = [k for k, (signal, _) in enumerate(FEATURES) if signal not in skipped]
        with_context = skipped == LEARNT
        data = lightgbm.Dataset(
            _matrix(train, kept, with_context), train.target[train.valid].astype(np.int32),
            group=train.valid.sum(axis=1))
        booster = lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)
        scores = np.zeros(dev.valid.shape, np.float32)
        scores[dev.valid] = booster.predict(_matrix(dev, kept, with_context))
        found[name] = scores
    progress(1000, 0.0)
    return found


def _silently(step: str) -> Callable[[int, float], None]:
    """Show nothing of a step's progress."""
    del step
    return lambda *_: None


def _matrix(lists: Lists, kept: Sequence[int], with_context: bool) -> npt.NDArray[np.float32]:
    """Return one row a candidate, list after list."""
    parts = [lists.features[..., kept][lists.valid], lists.z_scores[..., kept][lists.valid]]
    if with_context:
        parts.append(np.repeat(lists.context, lists.valid.sum(axis=1), axis=0))
    return np.concatenate(parts, axis=1).astype(np.float32)
