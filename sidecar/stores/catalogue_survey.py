"""What does a catalogue file hold? Its rows counted, its other columns typed, and a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from sidecar.errors import FileError, ModelError
from sidecar.records import FloatArray
from sidecar.stores.catalogue_columns import check_names, merged, settled, type_of, type_of_cell
from sidecar.stores.files import Rows, row_count_hint

TOLD_ROWS = 5000  # rows between two words of progress

Item = dict[str, Any]
Progress = Callable[[str, int, int], None]  # "checking" or "loading", rows done, rows in all


class EncodesItems(Protocol):
    """A model, as far as the catalogue is concerned."""

    @property
    def version(self) -> str:
        """Name the model."""
        ...

    def knows(self, item_id: str) -> bool:
        """Return whether it was trained with this item."""
        ...

    def encode(self, rows: Sequence[Item]) -> FloatArray:
        """Return the items' vectors (n, D)."""
        ...


@dataclass(frozen=True, slots=True)
class Survey:
    """Rows that can be taken, other columns by their mapped type, items that a model knows."""

    digest: str
    items: int
    other_columns: dict[str, str]
    known_to_model: int

    @property
    def numbers(self) -> list[str]:
        """Return the other columns of numbers; a CSV file has them as text."""
        return [name for name, kind in self.other_columns.items() if kind == "double"]


def survey_of(path: Path, rows: Rows[Item], body: Item, encoder: EncodesItems | None,
              progress: Progress) -> Survey:
    """Read a catalogue through.

    Args:
        path: the file.
        rows: its rows, which are read here.
        body: the mapping file that an index of it is made with.
        encoder: the model that encodes its items, if one does.

    Raises:
        FileError: no row can be taken, or OpenSearch cannot hold a column of that name.
        ModelError: the model knows none of the items.
    """
    known, columns = 0, dict[str, str | None]()
    kind_of = type_of_cell if rows.are_cells else type_of
    documented = body["mappings"]["properties"]
    guess = row_count_hint(path) or 0
    progress("checking", 0, guess)
    for row in rows:
        if rows.taken % TOLD_ROWS == 0:
            progress("checking", rows.taken, max(guess, rows.taken))
        known += encoder is not None and encoder.knows(row["item_id"])
        for column in row.keys() - documented.keys():
            if column not in columns:
                _check_names(path, rows.line, {column, *columns, *documented})
            columns[column] = merged(columns.get(column), kind_of(row[column]))
    progress("checking", rows.taken, rows.taken)
    if encoder is not None and not known:
        raise ModelError(f"model {encoder.version} knows none of the {rows.taken} items of {path}; "
                         "train it with this catalogue")
    kinds = {name: settled(kind) for name, kind in sorted(columns.items())}
    return Survey(_digest(path, body, kinds, encoder), rows.taken, kinds, known)


def _check_names(path: Path, line: int, names: set[str]) -> None:
    try:
        check_names(names)
    except ValueError as reason:
        raise FileError(f"{path}:{line}: {reason}") from reason


def _digest(path: Path, body: Item, kinds: dict[str, str], encoder: EncodesItems | None) -> str:
    """Return what a version will be made of: file, mapping and model, as 64 hex digits."""
    digest = hashlib.sha256(msgspec.json.encode(body, order="sorted"))
    digest.update(msgspec.json.encode(kinds) if kinds else b"")
    digest.update((encoder.version if encoder else "").encode())
    digest.update(path.name.lower().partition(".")[2].encode())  # the format
    with path.open("rb") as content:
        digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()
