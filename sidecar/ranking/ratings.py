"""How much is a rating worth if few shoppers gave it?

Its Bayesian mean, (n · rating + m · mean) / (n + m), for n reviews: a 5.0 from one review lies near
the shop's mean, a 4.6 from five hundred stays where it is. IMDb ordered its films by this weighted
rating; Evan Miller ("Bayesian Average Ratings", 2012) derives it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sidecar.ranking.imputation import is_known

PRIOR_REVIEWS = 10.0  # m: so many reviews count as much as what the shop's mean says


def mean_rating(ratings: npt.NDArray[np.float64],
                counts: npt.NDArray[np.floating]) -> float | None:
    """Return the mean of a catalogue's known ratings (m), to draw each towards; None where no
    rated item has a review counted (m): nothing tells then which ratings to doubt."""
    known = is_known(ratings)
    if not (known & is_known(counts) & (counts > 0)).any():
        return None
    return float(ratings[known].mean())


def smoothed(ratings: npt.NDArray[np.float64], counts: npt.NDArray[np.floating],
             mean: float) -> npt.NDArray[np.float64]:
    """Return the Bayesian means (m) of ratings from ``counts`` (m) reviews each; a count that is
    NaN or below zero is none. A rating that is not known stays so, as NaN."""
    reviews = np.nan_to_num(np.maximum(counts.astype(np.float64), 0.0))
    known = np.where(is_known(ratings), ratings, np.nan)
    found: npt.NDArray[np.float64] = ((reviews * known + PRIOR_REVIEWS * mean)
                                      / (reviews + PRIOR_REVIEWS))
    return found
