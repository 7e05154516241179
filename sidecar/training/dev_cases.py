"""Cases from the log itself: searches of a dev window, with what their shoppers then bought.

They are for shops without logged searches to judge by. Queries and candidates are made as for
training (``make_examples``); the history of each case ends before its search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.errors import FileError
from sidecar.records import Case, History
from sidecar.training.event_table import EventTable
from sidecar.training.examples import Example, make_examples
from sidecar.training.retrieval import Retrieval

KEPT = 500  # events of a case's history
PER_VISIT = 3


def cases_of_log(log: EventTable, rows: Sequence[Mapping[str, Any]], *, since: float, until: float,
                 most: int, seed: int = 0) -> list[Case]:
    """Return up to ``most`` cases of visits in [since, until), in order of time.

    Args:
        log: the whole log, with rows of the catalogue ``rows``.
        rows: the catalogue, whose BM25 order stands for the engine's.
        since: first instant, in seconds; histories begin before it.
        until: end, exclusive, in seconds.
        most: cases at most; visits are drawn at random with ``seed``.

    Raises:
        FileError: the log has no times, or nothing in the window makes a case.
    """
    if not log.has_times:
        raise FileError("events have no times, so no window can be cut; give --cases")
    early = log.until(until)
    examples = make_examples(early, rows, Retrieval(rows), since=since, most=most,
                             per_visit=PER_VISIT, seed=seed)
    if not examples:
        raise FileError("no event of the dev window makes a case: it needs purchases, or other "
                        "positive events, of items that a search finds; give a wider window")
    order, offsets = early.histories()
    is_target = early.is_target()
    made = []
    for k, example in enumerate(examples):
        own = order[offsets[example.user]:offsets[example.user + 1]]
        before = own[early.ts[own] < example.ts]
        bought = early.item[before[is_target[before]]]
        made.append(_case(f"made-{k}", early, rows, example, before, bought))
    return made


def _case(case_id: str, log: EventTable, rows: Sequence[Mapping[str, Any]], example: Example,
          before: npt.NDArray[np.int64], bought: npt.NDArray[np.integer]) -> Case:
    targets = example.rows[example.target]
    ids = [str(rows[row]["item_id"]) for row in example.rows.tolist()]
    return Case(
        case_id, log.users[example.user], example.query, example.ts,
        _history(log, rows, before[-KEPT:]), tuple(ids), tuple(example.scores.tolist()),
        tuple(item for item, hit in zip(ids, example.target.tolist(), strict=True) if hit),
        in_candidates=True, repeat=bool(np.isin(targets, bought).any()))


def _history(log: EventTable, rows: Sequence[Mapping[str, Any]],
             index: npt.NDArray[np.int64]) -> History:
    items = log.item[index].tolist()
    queries = log.query[index].tolist()
    return History(
        tuple(str(rows[row]["item_id"]) if row >= 0 else None for row in items),
        tuple(log.kinds[kind] for kind in log.kind[index].tolist()),
        tuple(log.ts[index].tolist()),
        tuple(log.queries[code] if code >= 0 else None for code in queries),
        ("",) * len(items))
