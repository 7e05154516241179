"""Which model ranks right now, and how does the next one take over without a wait?

A new model is loaded and warmed beside the one in use, brought up to the catalogue's latest
changes, and switched in by one assignment: a search sees either the old model or the new one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from sidecar.records import (
    Candidates,
    FloatArray,
    History,
    IntArray,
    ItemEvent,
    QueryContext,
    Ranking,
    UserState,
)
from sidecar.serving.telemetry import Telemetry

log = logging.getLogger(__name__)

POLL_S = 2.0
RETRY_S = 30.0  # a refused directory may have been half written: look again, but not at every poll


class Items(Protocol):
    """What serving asks of an item table (``sidecar.ranking.items.ItemTable``)."""

    def __len__(self) -> int: ...

    def rows(self, item_ids: Iterable[str | None]) -> IntArray:
        """Return the rows (m) of some items, -1 for unknown ids."""
        ...

    def upsert(self, rows: Sequence[Mapping[str, Any]], *, anew: bool = False) -> int:
        """Take catalogue rows in, ``anew`` even those that are as they were; returns how many items
        changed."""
        ...


class Ranks(Protocol):
    """What serving asks of a ranker (``sidecar.ranking.ranker.Ranker``)."""

    @property
    def version(self) -> str:
        """Name the model; states stepped by it carry this name."""
        ...

    @property
    def items(self) -> Items:
        """Return the items that it can score."""
        ...

    def rank(self, candidates: Candidates, state: UserState | None,
             context: QueryContext) -> Ranking:
        """Order candidates; raises Skip where it steps aside."""
        ...

    def prepare(self, state: UserState) -> None:
        """Work out, and keep in the state's memo, what ``rank`` needs of the state alone."""
        ...

    def advance(self, hidden: FloatArray | None, events: History) -> FloatArray:
        """Step the encoder over events; hidden None: from the start."""
        ...

    @property
    def counted_until(self) -> float:
        """Return the instant (seconds) up to which events are in its items' counts."""
        ...

    def count(self, pages: Iterable[Sequence[ItemEvent]], now: float) -> int:
        """Count later events, up to ``now``; return how many were of known items."""
        ...

    def warm_up(self) -> None:
        """Do once whatever a first request would have to wait for."""
        ...


RankerSource = Callable[[], Ranks | None]


@dataclass(frozen=True, slots=True)
class ModelLoader:
    """How a directory becomes a ranker, and its stamp: another one if it has been replaced."""

    load: Callable[[Path], Ranks]
    stamp: Callable[[Path], str]


class ModelSource:
    """Holds the ranker in use; calling it returns that ranker, or None while there is none."""

    def __init__(self, model_dir: str, loader: ModelLoader, telemetry: Telemetry) -> None:
        self.model_dir = Path(model_dir) if model_dir else None
        self.error: str | None = None
        self.before_switch: Callable[[Ranks], object] | None = None
        self._loader = loader
        self._telemetry = telemetry
        self._ranker: Ranks | None = None
        self._loaded: str | None = None
        self._refused: str | None = None
        self._retry_at = 0.0
        self._stopped = threading.Event()

    def __call__(self) -> Ranks | None:
        """Return the ranker in use."""
        return self._ranker

    @property
    def is_ready(self) -> bool:
        """True when the configured model ranks, or when none is configured."""
        return self.model_dir is None or self._ranker is not None

    def check(self) -> bool:
        """Load, warm and switch to the directory's model if it is a new one; True if switched.

        A directory that does not fit leaves the model in use where it is, and ``error`` says what
        was wrong. Nothing is raised.
        """
        if self.model_dir is None:
            return False
        stamp: str | None = None
        try:
            stamp = self._loader.stamp(self.model_dir)
            if stamp == self._loaded:
                self.error = self._refused = None  # what was refused is no longer there
                return False
            if self._is_refused(stamp):
                return False
            self._switch(self._loader.load(self.model_dir))
        except Exception as error:  # a broken file can fail in any way; the old model serves on
            self._refuse(stamp, error)
            return False
        self._loaded = stamp
        return True

    def start(self) -> None:
        """Look for a new model every ``POLL_S`` in a thread of its own."""
        if self.model_dir is not None:
            threading.Thread(target=self._watch, name="model-source", daemon=True).start()

    def stop(self) -> None:
        """End the thread at its next look."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(POLL_S):
            self.check()

    def _switch(self, ranker: Ranks) -> None:
        ranker.warm_up()
        if self._ranker is not None and self.before_switch is not None:
            self.before_switch(ranker)
        self._ranker = ranker
        self.error = None
        self._telemetry.model_in_use(ranker.version, len(ranker.items))
        log.info("model in use", extra={"model": ranker.version, "items": len(ranker.items)})

    def _is_refused(self, stamp: str) -> bool:
        return stamp == self._refused and time.monotonic() < self._retry_at

    def _refuse(self, stamp: str | None, error: Exception) -> None:
        said = f"{error}" if type(error).__module__.startswith("sidecar") else repr(error)
        self._refused, self._retry_at = stamp, time.monotonic() + RETRY_S
        if said == self.error:
            return
        self.error = said
        self._telemetry.model_refused()
        log.error("model refused", extra={"model_dir": str(self.model_dir), "error": said})
