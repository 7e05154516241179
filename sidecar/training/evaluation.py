"""Is the model better than what a shop has, for whom, and by how much? On cases it never saw.

Every case is ranked as serving would rank it: with the history and the popularity of its own
moment, and otherwise with what the model knew when it was trained. Events at or after a case's time
are not read, and only the metrics read its answer. The model is compared with the engine's order,
with simple rules that need no model, and with itself without its personal part.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.errors import FileError, InputError
from sidecar.ranking.ranker import Ranker
from sidecar.ranking.signals import FEATURES, SIGNALS
from sidecar.records import Case, Event, FloatArray
from sidecar.training.blend_training import part_lists
from sidecar.training.boosted import RIVALS, boosted_scores
from sidecar.training.event_table import EventTable
from sidecar.training.examples import FEWEST_CANDIDATES, Example
from sidecar.training.lists import ListMaker, Lists
from sidecar.training.metrics import (
    RANKING_METRICS,
    case_metrics,
    classification,
    compare,
    list_probabilities,
    mean_interval,
)
from sidecar.training.relatedness import is_unrelated
from sidecar.training.walk import Walk

logger = logging.getLogger(__name__)
THRESHOLD = 0.1
TRAINED = ("lightgbm",)
UNRELATED = "history unrelated"  # to the hits; see ``relatedness``
TIE = 1e-5  # of scores whose spread within a window is about one


@dataclass(frozen=True, slots=True)
class Evaluated:
    """N cases with candidates, each ranked by several rankers; ``report`` turns it into figures."""

    cases: list[Case]
    lists: Lists
    scores: dict[str, FloatArray]  # ranker → (N, K), -inf for padding
    history_lengths: npt.NDArray[np.int64]
    is_served: npt.NDArray[np.bool_]  # (N) where the model orders, and not the engine
    is_personal: npt.NDArray[np.bool_]  # (N) where its order is personal

    def order(self, ranker: str, k: int) -> npt.NDArray[np.int64]:
        """Return candidate positions of case k, best first; ties in engine order.

        Equal facts do not give equal scores to the last bit: a matrix product may round the last
        rows of a batch otherwise than the first. What differs by less than TIE is a tie.
        """
        scores = self.scores[ranker][k, :len(self.cases[k].candidates)]
        order = np.argsort(-scores, kind="stable")
        rank = np.cumsum(np.diff(-scores[order], prepend=-np.inf) > TIE)
        return order[np.lexsort((order, rank))]


def evaluate(ranker: Ranker, log: EventTable, cases: Sequence[Case],
             progress: Callable[[int, float], None], baselines: Sequence[str] = (),
             rows: Sequence[Mapping[str, Any]] = ()) -> Evaluated:
    """Rank every case that has a candidate, in order of time.

    Where the log or the cases have no times, nothing tells what came before a case but the case
    itself: its own history is read then, at the instant at which the model was trained.

    Args:
        ranker: the model under test.
        log: events, with the catalogue rows of ``ranker.items``.
        cases: in any order; those without candidates are left out.
        baselines: trained ones to put beside the model, of ``TRAINED``.
        rows: the catalogue that those are trained with.

    Raises:
        FileError: not one case has a candidate.
        InputError: a baseline is unknown.
        LaunchError: a baseline needs a package that is not installed.
    """
    check_baselines(baselines)
    ordered = sorted((c for c in cases if c.candidates), key=lambda c: c.ts)
    if not ordered:
        raise FileError("no case has a candidate; nothing to rank")
    placed: Sequence[Case] = ordered
    if not (log.has_times and any(case.ts for case in ordered)):
        logger.warning("events or cases have no times: each case is ranked by its own history")
        log, placed = _timeless(ordered, ranker)
    codes = {user: code for code, user in enumerate(log.users)}
    examples = [_example(case, ranker, codes) for case in placed]
    own = np.array([e.user for e in examples], np.int64)
    total = 2 * len(examples)
    lists = _lists(ranker, log, examples, own, lambda k: progress(1000 * k // total, 0.0))
    other = _lists(ranker, log, examples, other_users(own),
                   lambda k: progress(1000 * (k + len(examples)) // total, 0.0))
    served = _is_served(ranker, examples, lists)
    scores = _scores_by_ranker(ranker, lists, other, served, _is_served(ranker, examples, other))
    if "lightgbm" in baselines:
        past = log.until(ranker.knowledge.statistics.clock)
        scores |= boosted_scores(past, rows, ranker.items, lists, 0, progress)
    lengths = np.array([len(c.history) for c in ordered])
    masked = {name: np.where(lists.valid, value, -np.inf).astype(np.float32)
              for name, value in scores.items()}
    is_personal = served & lists.has_history & ranker.config.is_personal
    return Evaluated(ordered, lists, masked, lengths, served, is_personal)


def _scores_by_ranker(ranker: Ranker, lists: Lists, other: Lists, served: npt.NDArray[np.bool_],
                      other_served: npt.NDArray[np.bool_]) -> dict[str, FloatArray]:
    """Return (N, K) by ranker: simple rules, the model as it serves, unpersonalised, without each
    signal, each signal alone, and the model with another's history (``other``).

    ``served`` and ``other_served`` (N) say where the model orders; elsewhere the engine does.
    """
    scores = simple_rules(lists)
    personal = part_lists(ranker.blend, lists)
    impersonal = part_lists(ranker.blend, lists, as_strangers=True)
    parts, of_others = personal, part_lists(ranker.blend, other)
    if not ranker.config.is_personal:
        logger.warning("the model's lists did not show a personal gain: its order is %s, as where "
                       "it serves", "the unpersonalised one" if ranker.orders_strangers
                       or ranker.config.beats_engine else "the engine's")
        parts, of_others = impersonal, impersonal

    def as_served(found: FloatArray, where: npt.NDArray[np.bool_] = served) -> FloatArray:
        return np.where(where[:, None], found, scores["BM25"])

    scores |= {
        "model": as_served(parts.sum(axis=-1)),
        "unpersonalised": impersonal.sum(axis=-1),
        "model, another's history": as_served(of_others.sum(axis=-1), other_served),
    }
    for k, signal in enumerate(SIGNALS):
        scores[f"without {signal}"] = as_served(parts.sum(axis=-1) - parts[..., k])
        scores[f"{signal} alone"] = personal[..., k]
    return scores


def check_baselines(names: Sequence[str]) -> None:
    """Raise InputError where one is none of ``TRAINED``."""
    unknown = sorted(set(names) - set(TRAINED))
    if unknown:
        raise InputError(f"baseline {unknown[0]} is unknown; known: {', '.join(TRAINED)}")


def other_users(own: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return for each case's user (N) the user of some other case, -1 where there is no other."""
    rng = np.random.default_rng(5)
    drawn = rng.permutation(own)
    for k in np.flatnonzero(drawn == own):
        others = np.flatnonzero(own != own[k])
        drawn[k] = own[rng.choice(others)] if len(others) else -1
    return drawn


def _is_served(ranker: Ranker, examples: Sequence[Example],
               lists: Lists) -> npt.NDArray[np.bool_]:
    """Return which lists (N) ``Ranker.rank`` would order, and not leave in the engine's order."""
    has_known = np.array([(example.rows >= 0).any() for example in examples], bool)
    is_proved = ranker.config.is_personal or ranker.config.beats_engine
    return has_known & ((lists.has_history & is_proved) | ranker.orders_strangers)


def _timeless(cases: Sequence[Case], ranker: Ranker) -> tuple[EventTable, list[Case]]:
    """Return the cases at the model's own instant, each by a user of its own, and their events."""
    now = ranker.knowledge.statistics.clock
    events = [Event(f"case {place}", word, item_id, now - len(case.history) + k)
              for place, case in enumerate(cases)
              for k, (word, item_id) in enumerate(zip(case.history.events, case.history.item_ids,
                                                      strict=True))]
    return (EventTable.from_events(events, ranker.items.row_of),
            [replace(case, user_id=f"case {place}", ts=now) for place, case in enumerate(cases)])


def simple_rules(lists: Lists) -> dict[str, FloatArray]:
    """Return what simple rules make of the same lists: (N, K) scores by name.

    Each rule adds z-scores within the window: the engine's score, the log of decayed sales, the
    user's own purchases of the item, and what goes with them.
    """
    z = {f"{s}.{name}": lists.z_scores[..., k]
         for k, (s, name) in enumerate(FEATURES)}
    engine = -np.arange(lists.target.shape[1], dtype=np.float32)[None, :].repeat(len(lists), 0)
    popular = z["popularity.strong_60"]
    mixed = 0.5 * z["engine.score_ratio"] + popular
    repeated = mixed + 2 * z["repeat.decay120"]
    related = repeated + z.get("collaborative.ease_all", 0.0)
    return {"BM25": engine, "popularity": popular, "BM25+popularity": mixed,
            "BM25+popularity+repeats": repeated, "BM25+popularity+repeats+association": related}


def report(evaluated: Evaluated, threshold: float = THRESHOLD) -> dict[str, Any]:
    """Return every figure as JSON-able nests: slices → rankers → metrics, and comparisons.

    Counted are the cases with a relevant candidate and at least FEWEST_CANDIDATES of them; for the
    personal gain, those of them that got a personal order, and for the unrelated gain, those of
    these whose history has nothing to do with the hits.
    """
    counted = np.array([case_is_counted(c) for c in evaluated.cases], bool)
    metrics = {name: _metrics(evaluated, name) for name in evaluated.scores}
    slices = {name: mask & counted for name, mask in _slices(evaluated).items()}
    personal = counted & evaluated.is_personal
    return {
        "cases": len(evaluated.cases), "counted": int(counted.sum()),
        "slices": {name: _slice(metrics, mask) for name, mask in slices.items() if mask.any()},
        "classification": {name: _classify(evaluated, name, counted, threshold)
                           for name in ("model", "unpersonalised", "BM25+popularity")},
        "personal_gain": _gain(metrics, personal),
        "unrelated_gain": _gain(metrics, personal & slices[UNRELATED]),
    }


def case_is_counted(case: Case) -> bool:
    """True for a case that an order can be judged by."""
    return (len(case.candidates) >= FEWEST_CANDIDATES
            and not set(case.relevant).isdisjoint(case.candidates))


def _slices(evaluated: Evaluated) -> dict[str, npt.NDArray[np.bool_]]:
    repeat = np.array([c.repeat for c in evaluated.cases], bool)
    length = evaluated.history_lengths
    found = {"all": np.ones(len(repeat), bool), "repeat": repeat, "new items": ~repeat}
    for low, high in ((0, 0), (1, 9), (10, 49), (50, 99), (100, 10**9)):
        name = f"history {low}-{high}" if high < 10**9 else f"history {low}+"
        found[name] = (length >= low) & (length <= high)
    return found | {UNRELATED: is_unrelated(evaluated.lists)}


def _gain(metrics: Mapping[str, Mapping[str, npt.NDArray[np.float64]]],
          mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    return {"cases": int(mask.sum()), **compare(metrics["model"]["mrr"][mask],
                                                metrics["unpersonalised"]["mrr"][mask])}


def _slice(metrics: Mapping[str, Mapping[str, npt.NDArray[np.float64]]],
           mask: npt.NDArray[np.bool_]) -> dict[str, Any]:
    rankers = {}
    for name, values in metrics.items():
        entry: dict[str, Any] = {metric: mean_interval(values[metric][mask])
                                 for metric in ("mrr", "ndcg@10")}
        entry |= {metric: float(values[metric][mask].mean()) for metric in RANKING_METRICS
                  if metric not in entry}
        for other in ("BM25", "unpersonalised", *RIVALS):
            if name != other and other in metrics:
                entry |= {f"{metric} vs {other}": compare(values[metric][mask],
                                                          metrics[other][metric][mask])
                          for metric in ("mrr", "ndcg@10")}
        rankers[name] = entry
    return {"cases": int(mask.sum()), "rankers": rankers}


def _metrics(evaluated: Evaluated, ranker: str) -> dict[str, npt.NDArray[np.float64]]:
    found = []
    for k, case in enumerate(evaluated.cases):
        order = evaluated.order(ranker, k)
        hits = evaluated.lists.target[k][order]
        found.append(case_metrics(hits, max(len(set(case.relevant)), 1)))
    return {name: np.array([entry[name] for entry in found]) for name in RANKING_METRICS}


def _classify(evaluated: Evaluated, ranker: str, counted: npt.NDArray[np.bool_],
              threshold: float) -> Mapping[str, float]:
    valid = evaluated.lists.valid[counted]
    probability = list_probabilities(evaluated.scores[ranker][counted], valid)
    return classification(probability[valid], evaluated.lists.target[counted][valid], threshold)


def _example(case: Case, ranker: Ranker, users: Mapping[str, int]) -> Example:
    relevant = set(case.relevant)
    return Example(users.get(case.user_id, -1), case.ts, case.query,
                   ranker.items.rows(case.candidates), np.array(case.bm25, np.float32),
                   np.array([c in relevant for c in case.candidates], bool))


def _lists(ranker: Ranker, log: EventTable, examples: Sequence[Example],
           users: npt.NDArray[np.int64], progress: Callable[[int], None]) -> Lists:
    trained = ranker.knowledge.statistics
    copy = trained.copy()
    walk = Walk(log, len(ranker.items), kept=ranker.config.kept,
                strong_kinds=ranker.config.strong_kinds, trained=copy,
                remembered=ranker.knowledge.memory)
    maker = ListMaker(log, examples, users, walk, kinds=ranker.config.kinds)
    maker.fill(ranker.knowledge, ranker.encoder, np.inf,
               lambda done, _: progress(done * len(examples) // 1000))
    return maker.lists
