"""What the programs share: reading files under a progress bar, loading a model for a catalogue,
printing an instant, and writing whole files."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from sidecar.errors import ModelError
from sidecar.ranking.ranker import Ranker
from sidecar.records import Case
from sidecar.stores.files import Rows, read_cases, row_count_hint
from sidecar.stores.models import load_ranker
from sidecar.training.retrieval import with_scores

LAST_INSTANT = 253_402_300_799.0  # a moment after it has no date: 9999-12-31 stands for "never"


def counted(rows: Rows, what: str):  # type: ignore[type-arg, no-untyped-def]
    """Yield a file's rows under a progress bar; tell how many were refused, and the first why."""
    yield from tqdm(rows, desc=what, total=row_count_hint(rows.path), unit=" rows", leave=False)
    if rows.refused:
        logging.warning("%s: %d rows refused, the first: %s", rows.path, len(rows.refused),
                        rows.refused[0])


def scored_cases(path: Path, rows: Sequence[dict[str, Any]]) -> list[Case]:
    """Read a file of cases over a catalogue; BM25's scores stand in where it leaves them out."""
    return with_scores(list(counted(read_cases(path), "cases")), rows)


def bar(step: str, *, leave: bool = True) -> Callable[[int, float], None]:
    """Return a callback that shows one step's progress (permille) and loss; the line stays when
    the step is done, unless told to leave nothing."""
    shown = tqdm(total=1000, desc=step, leave=leave, bar_format=(
        "{desc}: {percentage:3.0f}% |{bar:30}| {elapsed} left {remaining}{postfix}"))

    def progress(done: int, loss: float) -> None:
        if done > shown.n:
            if loss:
                shown.set_postfix_str(f" loss {loss:.3f}", refresh=False)
            shown.update(done - shown.n)
        if done >= 1000:
            shown.close()

    return progress


def when(ts: float) -> str:
    """Return an instant as ISO 8601 to the second; what comes after the year 9999, as its end."""
    return datetime.fromtimestamp(min(ts, LAST_INSTANT), UTC).isoformat(timespec="seconds")


def ranker_over(model: Path, device: str, catalogue: Path, rows: Sequence[dict[str, Any]],
                ) -> Ranker:
    """Load a model and give it the rows of a catalogue file.

    Raises:
        ModelError: no model, or one that knows none of the items.
    """
    ranker = load_ranker(model, device)
    if not any(row["item_id"] in ranker.items for row in rows):
        raise ModelError(f"{model} knows none of the items of {catalogue}; train on this catalogue")
    ranker.items.upsert(rows)
    return ranker


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or as it was."""
    partial_file = path.with_name(path.name + ".partial")
    partial_file.write_text(text, encoding="utf-8")
    os.replace(partial_file, path)
