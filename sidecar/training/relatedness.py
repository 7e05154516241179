"""Does a shopper's history have anything to do with what a search found?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.ranking.signals import FEATURES
from sidecar.training.lists import Lists

SHARED = (("repeat", "count"), ("repeat", "weak"), ("repeat", "returned"),
          ("content", "brand_count"), ("content", "brand_weak"),
          ("content", "category0_count"), ("content", "category0_weak"))
TIES = (("collaborative", "together_best"), ("collaborative", "after_best"))
TIED = 0.1  # a cosine


def is_unrelated(lists: Lists) -> npt.NDArray[np.bool_]:
    """Return which lists (N) have a history that has nothing to do with any of their hits.

    As the model's facts tell at the moment of the search, the shopper neither bought, touched nor
    returned any hit; bought or touched nothing of a hit's brand or narrowest category; and nothing
    that goes with a hit, in one visit or from one to the next, by a cosine of TIED or more. What
    has no brand or no category shares none: in a shop without either, items and ties tell alone.

    Any tie at all would leave nothing: of a hundred hits and a long history some two were in one
    basket once (2 of 462 such cases of a gift shop were without a tie, none of 14 of a grocer's).
    EASE is no tie: it gives each of its items a hundred neighbours, whatever they are worth.
    """
    shared = lists.features[..., [FEATURES.index(name) for name in SHARED]] != 0
    tied = lists.features[..., [FEATURES.index(name) for name in TIES]] >= TIED
    is_related = (shared.any(axis=-1) | tied.any(axis=-1)) & lists.valid
    found: npt.NDArray[np.bool_] = lists.has_history & ~is_related.any(axis=1)
    return found
