"""Which way do shoppers go? Paths through categories, brands and items, as a Markov chain.

A state is a group of items. *Visit to visit*: a visit counts as the state that holds most of its
events with an item (the first of equals). *Within a visit*: a step goes from one event to the next
with a later time, since items of one basket share an instant and their order means nothing.

Chance is what events drawn independently of each other would give. The test against it is
one-sided: how likely so many of the steps out of a state would go to one other (the tail of a
binomial distribution), times the number of transitions looked at (Bonferroni).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from sidecar.analysis.pairs import SURE
from sidecar.records import IntArray
from sidecar.training.event_table import EventTable

MOST = 25  # rows of a table
SHOWN_STATES = 12  # of a matrix, the others taken together
FEWEST = 5  # times that a transition must be seen to be told by its lift, and
FEWEST_SHARE = 0.0002  # of all steps
Findings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Steps:
    """Walks side by side: ``state`` (m) in order, ``walk`` (m) equal within one walk."""

    state: IntArray
    walk: IntArray

    def pairs(self) -> tuple[IntArray, IntArray]:
        """Return (from, to) of every step."""
        same = self.walk[1:] == self.walk[:-1]
        return self.state[:-1][same], self.state[1:][same]

    def moves(self) -> Steps:
        """Return the walks without staying: each run of one state is one place."""
        moved = np.ones(len(self.state), bool)
        moved[1:] = (self.walk[1:] != self.walk[:-1]) | (self.state[1:] != self.state[:-1])
        return Steps(self.state[moved], self.walk[moved])

    def shares(self, states: int) -> npt.NDArray[np.float64]:
        """Return the share (states) of all places of walks that each state has."""
        return np.bincount(self.state, minlength=states) / max(len(self.state), 1)


def trajectories(log: EventTable, state: IntArray, names: list[str], *,
                 are_items: bool = False) -> Findings:
    """Return transitions, paths of three and entries and exits, visit to visit and within.

    Items as states have only the steps within a visit: no single item represents a visit
    (``pairs.next_visit_pairs`` finds what follows).

    Args:
        log: the events.
        state: (n) each event's state, -1 for none.
        names: of the states.
    """
    within = {"within a visit": describe(event_walks(log, state), names, is_staying_a_step=False)}
    return within if are_items else {
        "visit to visit": describe(visit_steps(log, state), names), **within}


def visit_steps(log: EventTable, state: IntArray) -> Steps:
    """Return each user's visits in order, as the state that each is mostly in."""
    index = np.flatnonzero(state >= 0)
    if not len(index):
        return Steps(np.zeros(0, np.int64), np.zeros(0, np.int64))
    visits, visit = np.unique(log.visit[index], return_inverse=True)
    width = int(state.max()) + 1
    key, first, count = np.unique(visit * width + state[index], return_index=True,
                                  return_counts=True)
    order = np.lexsort((first, -count, key // width))
    best = order[np.flatnonzero(np.diff(key[order] // width, prepend=-1))]
    start = index[np.unique(visit, return_index=True)[1]]
    assert len(best) == len(visits)
    along = np.lexsort((start, log.ts[start], log.user[start]))
    return Steps((key[best] % width)[along], log.user[start][along].astype(np.int64))


def event_walks(log: EventTable, state: IntArray) -> Steps:
    """Return the events of each visit in order, cut where two share an instant; whether an event
    is in a walk of at least two depends on times alone, never on states."""
    index = np.flatnonzero(state >= 0)
    order = index[np.lexsort((index, log.ts[index], log.visit[index]))]
    visit, ts, at = log.visit[order], log.ts[order], state[order]
    broken = np.ones(len(at), bool)
    broken[1:] = (visit[1:] != visit[:-1]) | (ts[1:] <= ts[:-1])
    walk = np.cumsum(broken)
    alone = np.bincount(walk, minlength=len(at) + 1)[walk] < 2 if len(at) else broken
    return Steps(at[~alone], walk[~alone].astype(np.int64))


def describe(walks: Steps, names: list[str], *, is_staying_a_step: bool = True) -> Findings:
    """Return the chain's figures; lists are empty where there is no step."""
    steps = walks if is_staying_a_step else walks.moves()
    before, after = steps.pairs()
    return {"steps": len(before), "lift_floor": lift_floor(len(before)),
            **_transitions(before, after, None if is_staying_a_step else walks, names),
            "matrix": _matrix(before, after, names), "paths": _paths(steps, names),
            "entries": _ends(walks, names, first=True), "exits": _ends(walks, names, first=False)}


def _transitions(before: IntArray, after: IntArray, walks: Steps | None,
                 names: list[str]) -> Findings:
    """Return ``transitions``, the most frequent, and ``by_lift``, those above chance, the greatest
    lift first: count, share of all steps, probability P(to | from), lift over chance and, of the
    latter, p after correction.

    Chance is P(to), how often it is stepped to. If staying is not a step, every other state is more
    likely after ``from`` for that alone: chance is then P(to) / (1 - P(from)), as ``walks`` stay
    there.
    """
    if not len(before):
        return {"transitions": [], "by_lift": []}
    width = len(names)
    key, count = np.unique(before * width + after, return_counts=True)
    start, end = key // width, key % width
    leaving = np.bincount(before, minlength=width)[start]
    if walks is None:
        chance = np.bincount(after, minlength=width)[end] / len(after)
    else:
        share = walks.shares(width)
        chance = np.minimum(share[end] / (1.0 - share[start]), 1.0)
    probability = count / leaving
    lift = probability / chance

    def told(k: int) -> Findings:
        return {"from": names[start[k]], "to": names[end[k]], "count": int(count[k]),
                "share": float(count[k] / len(before)), "probability": float(probability[k]),
                "lift": float(lift[k])}

    fit = np.flatnonzero((count >= lift_floor(len(before))) & (start != end))
    p = np.minimum(binom.sf(count[fit] - 1, leaving[fit], chance[fit]) * len(fit), 1.0)
    sure = np.flatnonzero((p < SURE) & (lift[fit] > 1))
    best = sure[np.lexsort((key[fit[sure]], -lift[fit[sure]]))][:MOST]
    return {"transitions": [told(k) for k in np.lexsort((key, -count))[:MOST]],
            "by_lift": [told(fit[k]) | {"p": float(p[k])} for k in best]}


def lift_floor(steps: int) -> int:
    """Return how often a transition must be seen among so many steps to be listed by its lift."""
    return max(FEWEST, int(np.ceil(FEWEST_SHARE * steps)))


def _matrix(before: IntArray, after: IntArray, names: list[str]) -> Findings:
    """Return transition probabilities among the most frequent states, the others as one."""
    if not len(before):
        return {"names": [], "probability": []}
    counts = np.bincount(np.concatenate([before, after]), minlength=len(names))
    chosen = np.argsort(-counts, kind="stable")[:SHOWN_STATES]
    chosen = chosen[counts[chosen] > 0]
    place = np.full(len(names), len(chosen), np.int64)
    place[chosen] = np.arange(len(chosen))
    size = len(chosen) + int((counts > 0).sum() > len(chosen))
    table = np.zeros((size, size))
    np.add.at(table, (place[before], place[after]), 1.0)
    table /= np.maximum(table.sum(axis=1, keepdims=True), 1.0)
    told = [names[k] for k in chosen] + ["all others"] * (size - len(chosen))
    return {"names": told, "probability": table.tolist()}


def _paths(steps: Steps, names: list[str]) -> list[Findings]:
    """Return the most common paths of three states that are not all one."""
    walk, state, width = steps.walk, steps.state, len(names)
    same = (walk[2:] == walk[:-2]) & ~((state[2:] == state[:-2]) & (state[1:-1] == state[:-2]))
    if not same.any():
        return []
    key, count = np.unique((state[:-2] * width + state[1:-1])[same] * width + state[2:][same],
                           return_counts=True)
    order = np.lexsort((key, -count))[:MOST]
    return [{"path": [names[int(key[k]) // width**2], names[int(key[k]) // width % width],
                      names[int(key[k]) % width]],
             "count": int(count[k]), "share": float(count[k] / same.sum())} for k in order]


def _ends(steps: Steps, names: list[str], *, first: bool) -> list[Findings]:
    """Return where walks begin, or end, with the share of walks and the lift over the state's
    share of all places of walks, those where they stay among them."""
    if not len(steps.state):
        return []
    edge = np.ones(len(steps.walk), bool)
    differs = steps.walk[1:] != steps.walk[:-1]
    if first:
        edge[1:] = differs
    else:
        edge[:-1] = differs
    overall = steps.shares(len(names))
    count: npt.NDArray[np.int64] = np.bincount(steps.state[edge], minlength=len(names))
    order = np.argsort(-count, kind="stable")[:MOST]
    return [{"state": names[k], "count": int(count[k]), "share": float(count[k] / edge.sum()),
             "lift": float(count[k] / edge.sum() / overall[k])} for k in order if count[k]]
