"""The sidecar as it ships, save for the model: one whose order is as good as random, and shows
everything that a search sends along: its words, its weight, its session and its user's history.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flask import Flask

from sidecar.errors import Skip
from sidecar.records import (
    Candidates,
    FloatArray,
    History,
    QueryContext,
    Ranking,
    SkipReason,
    UserState,
)
from sidecar.serving.models import ModelLoader
from sidecar.settings import Settings
from sidecar.web.app import create_app
from sidecar.web.services import build
from tests.fake_rankers import Unlearnt


class Table(dict[str, Any]):
    """No item is known: candidates are scored by their ids."""

    def rows(self, item_ids: Iterable[str | None]) -> npt.NDArray[np.int64]:
        return np.array([-1 for _ in item_ids], np.int64)

    def upsert(self, rows: Any, *, anew: bool = False) -> int:
        return 0


class ParityRanker(Unlearnt):
    """Scores that are equal only where everything that went into them is."""

    version = "parity"
    items = Table()

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        if state is None:
            raise Skip(SkipReason.NO_HISTORY)
        asked = f"{context.query}|{context.session_id}|{context.weight}|{len(state.history)}"
        engine = np.nan_to_num(candidates.engine_scores).astype(np.float32)
        chance = np.array([_chance(f"{item}|{asked}") for item in candidates.item_ids], np.float32)
        scores = engine + np.float32(context.weight) * chance
        return Ranking(np.argsort(-scores, kind="stable"), scores,
                       {"engine": engine, "chance": scores - engine},
                       tuple((f"asked {asked}",) for _ in scores), state.version, self.version)

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        return np.zeros((1, 2), np.float32)


def application() -> Flask:
    services = build(Settings.from_environ(), ModelLoader(_load, lambda path: "parity"))
    services.start()
    return create_app(services)


def _load(model_dir: Path) -> ParityRanker:
    return ParityRanker()


def _chance(text: str) -> float:
    return zlib.crc32(text.encode()) % 1009 / 100.0
