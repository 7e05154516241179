"""Which way do shoppers go? Paths through categories, brands and items, as a Markov chain.

A state is a group of items. *Visit to visit*: a visit counts as the state that most of its events
with an item are in (the first of equals). *Within a visit*: from event to event, where the later
one has a later time: items of one basket share an instant, and their order means nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.analysis.shop import IntVector
from sidecar.training.log import EventLog

MOST = 25  # rows of a table
SHOWN_STATES = 12  # of a matrix, the others taken together
FEWEST = 5  # times that a transition must be seen to be told by its lift, and
FEWEST_SHARE = 0.0002  # of all steps
Findings = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Steps:
    """Walks side by side: ``state`` (m) in order, ``walk`` (m) equal within one walk."""

    state: IntVector
    walk: IntVector

    def pairs(self) -> tuple[IntVector, IntVector]:
        """Return (from, to) of every step."""
        same = self.walk[1:] == self.walk[:-1]
        return self.state[:-1][same], self.state[1:][same]


def trajectories(log: EventLog, state: IntVector, names: list[str], *,
                 are_items: bool = False) -> Findings:
    """Return transitions, paths of three and entries and exits, visit to visit and within.

    Items as states have only the latter: no one item stands for a visit
    (``pairs.next_visit_pairs`` tells what follows).

    Args:
        log: the events.
        state: (n) each event's state, -1 for none.
        names: of the states.
    """
    within = {"within a visit": describe(event_steps(log, state), names)}
    return within if are_items else {
        "visit to visit": describe(visit_steps(log, state), names), **within}


def visit_steps(log: EventLog, state: IntVector) -> Steps:
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


def event_steps(log: EventLog, state: IntVector) -> Steps:
    """Return the events of each visit in order, cut where two share an instant; staying in one
    state is no step."""
    index = np.flatnonzero(state >= 0)
    order = index[np.lexsort((index, log.ts[index], log.visit[index]))]
    visit, ts, at = log.visit[order], log.ts[order], state[order]
    moved = np.ones(len(order), bool)
    moved[1:] = (visit[1:] != visit[:-1]) | (at[1:] != at[:-1])
    visit, ts, at = visit[moved], ts[moved], at[moved]
    broken = np.ones(len(at), bool)
    broken[1:] = (visit[1:] != visit[:-1]) | (ts[1:] <= ts[:-1])
    walk = np.cumsum(broken)
    alone = np.bincount(walk, minlength=len(at) + 1)[walk] < 2 if len(at) else broken
    return Steps(at[~alone], walk[~alone].astype(np.int64))


def describe(steps: Steps, names: list[str]) -> Findings:
    """Return the chain's figures; lists are empty where there is no step."""
    before, after = steps.pairs()
    return {"steps": len(before), "lift_floor": lift_floor(len(before)),
            "transitions": _transitions(before, after, names, by_lift=False),
            "by_lift": _transitions(before, after, names, by_lift=True),
            "matrix": _matrix(before, after, names), "paths": _paths(steps, names),
            "entries": _ends(steps, names, first=True), "exits": _ends(steps, names, first=False)}


def _transitions(before: IntVector, after: IntVector, names: list[str], *,
                 by_lift: bool) -> list[Findings]:
    """Return the most frequent transitions, or those most above chance: count, share of all steps,
    probability P(to | from), and lift P(to | from) / P(to)."""
    if not len(before):
        return []
    width = len(names)
    key, count = np.unique(before * width + after, return_counts=True)
    leaving = np.bincount(before, minlength=width)
    reaching = np.bincount(after, minlength=width)
    probability = count / leaving[key // width]
    lift = probability / (reaching[key % width] / len(before))
    floor = lift_floor(len(before))
    fit = np.flatnonzero((count >= floor) & (key // width != key % width)) if by_lift else (
        np.arange(len(key)))
    order = fit[np.lexsort((key[fit], -(lift[fit] if by_lift else count[fit])))][:MOST]
    return [{"from": names[key[k] // width], "to": names[key[k] % width], "count": int(count[k]),
             "share": float(count[k] / len(before)), "probability": float(probability[k]),
             "lift": float(lift[k])} for k in order]


def lift_floor(steps: int) -> int:
    """Return how often a transition must be seen among so many steps to be told by its lift."""
    return max(FEWEST, int(np.ceil(FEWEST_SHARE * steps)))


def _matrix(before: IntVector, after: IntVector, names: list[str]) -> Findings:
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
    share of all places of walks."""
    if not len(steps.state):
        return []
    edge = np.ones(len(steps.walk), bool)
    differs = steps.walk[1:] != steps.walk[:-1]
    if first:
        edge[1:] = differs
    else:
        edge[:-1] = differs
    overall = np.bincount(steps.state, minlength=len(names)) / len(steps.state)
    count: npt.NDArray[np.int64] = np.bincount(steps.state[edge], minlength=len(names))
    order = np.argsort(-count, kind="stable")[:MOST]
    return [{"state": names[k], "count": int(count[k]), "share": float(count[k] / edge.sum()),
             "lift": float(count[k] / edge.sum() / overall[k])} for k in order if count[k]]
