"""Which candidates would the engine have returned? BM25 in process, for lists not logged."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import bm25s
import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from sidecar.ranking.vocabulary import item_words, words_of
from sidecar.records import Case

DEPTH = 100
KEPT_QUERIES = 32_768  # whose hits are remembered; some 1.5 KB each
log = logging.getLogger(__name__)
logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs its progress at DEBUG


class Retrieval:
    """BM25 (Lucene's form, k1 1.2, b 0.75) over title, brand and categories of a catalogue."""

    def __init__(self, rows: Sequence[Mapping[str, Any]], depth: int = DEPTH) -> None:
        corpus = [item_words(row) for row in rows]
        self._index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
        self._known: Mapping[str, int] = {}
        if any(corpus):
            self._index.index(corpus, show_progress=False)
            self._known = self._index.vocab_dict
        self._depth = depth
        # A fixed shuffle stands for the engine's order among equal scores.
        self._tie = np.random.default_rng(17).permutation(len(rows)) / (len(rows) + 1)
        self._seen: LRUCache[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = (
            LRUCache(KEPT_QUERIES))

    def search(self, query: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return catalogue rows (K) and scores (K), best first; empty if nothing matches."""
        found = self._seen.get(query)
        if found is None:
            found = self._seen[query] = self._search(query)
        return found

    def scores(self, query: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the scores (K) of some catalogue rows, 0 where a row does not match."""
        words = [w for w in dict.fromkeys(words_of(query)) if w in self._known]
        if not words:
            return np.zeros(len(rows), np.float32)
        found: npt.NDArray[np.float32] = self._index.get_scores(words)[rows].astype(np.float32)
        return found

    def _search(self, query: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        words = list(dict.fromkeys(words_of(query)))
        words = [w for w in words if w in self._known]
        if not words:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        scores = self._index.get_scores(words)
        hits = np.flatnonzero(scores > 0)
        keys = np.round(scores[hits], 4) + self._tie[hits] * 5e-5
        if len(hits) > self._depth:
            keep = np.argpartition(-keys, self._depth)[: self._depth]
            hits, keys = hits[keep], keys[keep]
        order = np.argsort(-keys, kind="stable")
        return hits[order], scores[hits[order]].astype(np.float32)


def with_scores(cases: Sequence[Case], rows: Sequence[Mapping[str, Any]]) -> list[Case]:
    """Return the cases, those that tell not one score of the engine with BM25's over a catalogue.

    Candidates stand in the engine's order, so the greatest of those scores is the first's.
    """
    unscored = [k for k, case in enumerate(cases)
                if case.candidates and all(map(math.isnan, case.bm25))]
    if not unscored:
        return list(cases)
    log.warning("%d cases have no bm25: scores of BM25 over the catalogue stand in for the "
                "engine's", len(unscored))
    retrieval, row_of = Retrieval(rows), {row["item_id"]: k for k, row in enumerate(rows)}
    found = list(cases)
    for k in unscored:
        known = np.array([row_of[i] for i in cases[k].candidates if i in row_of], np.int64)
        scores = np.zeros(len(cases[k].candidates))
        scores[:len(known)] = np.sort(retrieval.scores(cases[k].query, known))[::-1]
        found[k] = replace(cases[k], bm25=tuple(scores.tolist()))
    return found
