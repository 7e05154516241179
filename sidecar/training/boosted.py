"""A strong baseline: gradient-boosted trees over the same facts, as an engineer would make it.

LightGBM's lambdarank (Burges 2010, "From RankNet to LambdaRank to LambdaMART") learns from lists of
the model's own training period, made block by block as the model's are. There are three baselines:

- one reads every hand-made fact that the model reads: popularity, repeats and their rhythm,
  likeness, co-occurrence, EASE and matrix factors, as they are and as z-scores within the window,
  and the context; but not the learnt ones, the encoder's interest and the segments;
- one reads those of these facts that are not personal;
- one is an afternoon's work: some forty of the facts, chosen before anything was measured, one or
  two of each kind, raw.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.errors import LaunchError
from sidecar.ranking.items import ItemTable
from sidecar.ranking.kernels import CONTEXT
from sidecar.ranking.signals import FEATURES, PERSONAL
from sidecar.records import FloatArray
from sidecar.training.event_table import EventTable
from sidecar.training.lists import Lists
from sidecar.training.pipeline import TrainConfig, make_lists

LEARNT = ("interest", "segment")
FORTY: Mapping[str, Sequence[str]] = {
    "engine": ("score_ratio", "reciprocal_rank", "log_score"),
    "popularity": ("strong_3", "strong_14", "strong_60", "strong_ever", "trend",
                   "days_since_sold", "days_on_sale", "never_sold"),
    "quality": ("price", "rating", "review_count", "sales", "promotion"),
    "memory": ("strong", "weak"),
    "repeat": ("bought", "count", "decay30", "decay120", "weak", "recency", "due", "overdue",
               "rebuy_rate", "share", "loyalty"),
    "content": ("brand_count", "brand_share", "category0_count", "category0_decay30",
                "category0_since", "text_long", "text_recent", "price_gap"),
    "collaborative": ("together_all", "together_latest", "ease_all", "factors_long")}
FORTY_CONTEXT = ("length", "candidates", "quiet_days")
RIVALS = ("lightgbm", "lightgbm, forty facts")  # the variants that others are compared with
ROUNDS = 300
PARAMETERS = {
    "objective": "lambdarank", "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 50,
    "lambda_l2": 1.0, "feature_fraction": 0.6, "lambdarank_truncation_level": 20, "num_threads": 1,
    "verbose": -1, "deterministic": True, "force_row_wise": True}


def _facts_but(signals: Collection[str]) -> list[int]:
    """Return the columns of every signal but these."""
    return [k for k, (signal, _) in enumerate(FEATURES) if signal not in signals]


@dataclass(frozen=True, slots=True)
class Columns:
    """What a variant reads: columns of the facts, of the context, and z-scores or not."""

    facts: Sequence[int]
    context: Sequence[int]
    with_z_scores: bool

    def of(self, lists: Lists) -> npt.NDArray[np.float32]:
        """Return one row a candidate, list after list."""
        parts = [lists.features[..., self.facts][lists.valid]]
        if self.with_z_scores:
            parts.append(lists.z_scores[..., self.facts][lists.valid])
        around = lists.context[:, self.context]
        parts.append(np.repeat(around, lists.valid.sum(axis=1), axis=0))
        return np.concatenate(parts, axis=1).astype(np.float32)


VARIANTS = {
    "lightgbm": Columns(_facts_but(LEARNT), range(len(CONTEXT)), with_z_scores=True),
    "lightgbm, unpersonalised": Columns(_facts_but((*LEARNT, *PERSONAL)), (), with_z_scores=True),
    "lightgbm, forty facts": Columns(
        [k for k, (signal, name) in enumerate(FEATURES) if name in FORTY.get(signal, ())],
        [CONTEXT.index(name) for name in FORTY_CONTEXT], with_z_scores=False)}


def boosted_scores(events: EventTable, rows: Sequence[Mapping[str, Any]], table: ItemTable,
                   dev: Lists, seed: int, progress: Callable[[int, float], None],
                   ) -> dict[str, FloatArray]:
    """Train on a log's lists and score others.

    Args:
        events: the log up to the instant at which the model under test was trained.
        rows: the catalogue that the lists' queries and candidates come from, in any order; it may
            lack items of the table.
        table: the model's item table; it is not changed.
        dev: the lists to score (N, K).
        seed: of lists and trees.
        progress: called with the share done, in permille.

    Returns:
        scores (N, K) of each of ``VARIANTS``.

    Raises:
        LaunchError: LightGBM is not installed.
        FileError: the log teaches nothing.
    """
    try:
        import lightgbm
    except ImportError as error:
        raise LaunchError("the baseline lightgbm needs the package lightgbm; pip install lightgbm"
                          ) from error
    by_id = {row["item_id"]: row for row in rows}
    rows = [by_id.get(item_id, {"item_id": item_id}) for item_id in table.ids]  # as in the log
    # Trees learn best from whole lists, and no better from twice as many.
    config = replace(TrainConfig(), seed=seed, foreign_share=0.0, most_candidates=100,
                     most_lists=24_000)
    train = make_lists(events, rows, table, config, _silently)
    progress(500, 0.0)
    found = {}
    for name, columns in VARIANTS.items():
        data = lightgbm.Dataset(
            columns.of(train), train.target[train.valid].astype(np.int32),
            group=train.valid.sum(axis=1))
        booster = lightgbm.train({**PARAMETERS, "seed": seed}, data, ROUNDS)
        scores = np.zeros(dev.valid.shape, np.float32)
        scores[dev.valid] = booster.predict(columns.of(dev))
        found[name] = scores
    progress(1000, 0.0)
    return found


def _silently(step: str) -> Callable[[int, float], None]:
    """Show nothing of a step's progress."""
    del step
    return lambda *_: None
