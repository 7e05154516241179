"""The sidecar as it ships, save for the model: one whose order a test can foretell.

A model directory holds ``model.json``: ``version``, and optionally ``delay_s`` that each ranking
takes. A file ``loading`` beside it tells that loading has begun, a file ``hold`` keeps it from
ending. Items that the user has touched come first, the last touched foremost.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flask import Flask

from sidecar.errors import ModelError
from sidecar.records import Candidates, FloatArray, History, QueryContext, Ranking, UserState
from sidecar.serving import logs
from sidecar.serving.models import ModelLoader
from sidecar.settings import Settings
from sidecar.web.app import create_app
from sidecar.web.services import build
from tests.fake_rankers import Unlearnt


class Table(dict[str, Any]):
    """Item id → row."""

    def rows(self, item_ids: Iterable[str | None]) -> npt.NDArray[np.int64]:
        return np.array([0 if item_id in self else -1 for item_id in item_ids], np.int64)

    def upsert(self, rows: Any, *, anew: bool = False) -> int:
        changed = sum(self.get(row["item_id"]) != row for row in rows)
        self.update((row["item_id"], row) for row in rows)
        return changed


class Ranker(Unlearnt):
    """Touched items first."""

    def __init__(self, version: str, delay_s: float = 0.0) -> None:
        super().__init__()
        self.version = version
        self.items = Table()
        self._delay_s = delay_s

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        time.sleep(self._delay_s)
        touched = {} if state is None else {
            item: position for position, item in enumerate(state.history.item_ids, 1)}
        scores = np.array([touched.get(item, 0) for item in candidates.item_ids], np.float32)
        return Ranking(np.argsort(-scores, kind="stable"), scores, {"repeat": scores},
                       tuple(("touched",) if score else () for score in scores),
                       -1 if state is None else state.version, self.version)

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        steps = np.float32(len(events))
        return np.full((1, 2), steps) if hidden is None else hidden + steps


def application() -> Flask:
    settings = Settings.from_environ()
    logs.configure(settings.log_level)
    services = build(settings, ModelLoader(_load, lambda path: _read(path)["version"]))
    services.start()
    return create_app(services)


def _load(model_dir: Path) -> Ranker:
    model = _read(model_dir)
    if "weights" in model:
        raise ModelError(f"weights are {model['weights']}, must be fake")
    (model_dir / "loading").touch()
    while (model_dir / "hold").exists():
        time.sleep(0.05)
    return Ranker(model["version"], model.get("delay_s", 0.0))


def _read(model_dir: Path) -> Any:
    try:
        return json.loads((model_dir / "model.json").read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"model directory cannot be read: {error}") from error
