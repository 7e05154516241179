"""From a catalogue file to a searched index: look the file over, fill a new version, switch to it.

The file is read twice. The first pass counts, refuses and finds the columns that the mapping does
not know; the second writes. Everything is written under the item's id, so any part of it may be
written again, and a load that was killed goes on after its last checkpoint.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from opensearchpy import OpenSearch, helpers

from sidecar.errors import FileError, ModelError, RowError, UpstreamError, UpstreamUnavailable
from sidecar.records import FloatArray
from sidecar.stores.catalogue_columns import (
    check_names,
    mapped,
    merged,
    settled,
    type_of,
    type_of_cell,
)
from sidecar.stores.catalogue_versions import (
    ATTEMPTS,
    RETRIED,
    CatalogueVersions,
    Load,
    Version,
    pause,
)
from sidecar.stores.files import RefusedRows, Rows, read_catalogue, row_count_hint
from sidecar.stores.mappings import mapping

BATCH_ROWS = 5000  # rows between two checkpoints
REFUSED_ROWS = 1000  # by OpenSearch, before the load is given up; they are kept in _meta
NOT_FOUND = 404
REQUEST_ROWS = 500
REQUEST_BYTES = 10 * 2**20

Item = dict[str, Any]
Numbered = tuple[int, Item]  # a row with its line
Progress = Callable[[str, int, int], None]  # "checking" or "loading", rows done, rows in all


class Encoder(Protocol):
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
    """What the first pass found: rows that can be taken, other columns by their mapped type."""

    digest: str
    items: int
    other_columns: dict[str, str]
    known_to_model: int

    @property
    def numbers(self) -> list[str]:
        """Return the other columns of numbers; a CSV file has them as text."""
        return [name for name, kind in self.other_columns.items() if kind == "double"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did. ``is_new`` is False when the same was searched already."""

    index: str
    items: int
    refused: int
    is_new: bool
    other_columns: tuple[str, ...] = ()
    known_to_model: int = 0
    resumed_after_line: int = 0


class CatalogueLoader:
    """Loads one catalogue file behind one alias."""

    def __init__(self, client: OpenSearch, alias: str, path: Path, refused: RefusedRows,
                 encoder: Encoder | None = None) -> None:
        self._client = client
        self._versions = CatalogueVersions(client, alias)
        self._path = path
        self._refused = refused
        self._encoder = encoder
        self._body = mapping("products")

    def load(self, progress: Progress) -> Loaded:
        """Load the file unless it is what is searched already.

        Raises:
            FileError: the file cannot be read, or holds no row that can be taken, here or there;
                or refused rows cannot be written down.
            ModelError: the model knows none of the items.
            InputError: the alias is an index.
            UpstreamError: OpenSearch could not be asked, or does not hold what it took.
        """
        rows = read_catalogue(self._path, self._refused.write)
        survey = self._survey(rows, progress)
        refused = len(rows.refused)
        for version in self._versions.current():
            if version.load and version.load.is_complete and version.load.digest == survey.digest:
                self._refuse_again(version.load)
                self._refused.flush()
                taken = survey.items - len(version.load.refused)
                return Loaded(version.name, taken, refused + len(version.load.refused), False)
        version, load = self._begin(survey)
        start = load.lines
        load = self._fill(version, load, survey, progress)
        self._check_taken(version, load, survey.items)
        self._check_count(version, survey.items - len(load.refused))
        self._refused.flush()  # while the alias is as it was
        self._versions.note(version, replace(load, is_complete=True))
        self._versions.publish(version, self._body["settings"])
        return Loaded(version.name, survey.items - len(load.refused), refused + len(load.refused),
                      True, tuple(survey.other_columns), survey.known_to_model, start)

    def _survey(self, rows: Rows[Item], progress: Progress) -> Survey:
        known, columns = 0, dict[str, str | None]()
        kind_of = type_of_cell if rows.are_cells else type_of
        documented = self._body["mappings"]["properties"]
        guess = row_count_hint(self._path) or 0
        progress("checking", 0, guess)
        for row in rows:
            if rows.taken % BATCH_ROWS == 0:
                progress("checking", rows.taken, max(guess, rows.taken))
            known += self._encoder is not None and self._encoder.knows(row["item_id"])
            for column in row.keys() - documented.keys():
                if column not in columns:
                    self._check_names(rows.line, {column, *columns, *documented})
                columns[column] = merged(columns.get(column), kind_of(row[column]))
        progress("checking", rows.taken, rows.taken)
        if self._encoder is not None and not known:
            raise ModelError(f"model {self._encoder.version} knows none of the {rows.taken} items "
                             f"of {self._path}; train it with this catalogue")
        kinds = {name: settled(kind) for name, kind in sorted(columns.items())}
        return Survey(self._digest(kinds), rows.taken, kinds, known)

    def _check_names(self, line: int, names: set[str]) -> None:
        try:
            check_names(names)
        except ValueError as reason:
            raise FileError(f"{self._path}:{line}: {reason}") from reason

    def _digest(self, kinds: dict[str, str]) -> str:
        """Return what the version will be made of: file, mapping and model, as 64 hex digits."""
        digest = hashlib.sha256(msgspec.json.encode(self._body, order="sorted"))
        digest.update(msgspec.json.encode(kinds) if kinds else b"")
        digest.update((self._encoder.version if self._encoder else "").encode())
        digest.update(self._path.name.lower().partition(".")[2].encode())  # the format
        with self._path.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
        return digest.hexdigest()

    def _begin(self, survey: Survey) -> tuple[Version, Load]:
        """Return the version to fill: one that a killed load left, or a new one."""
        left = self._versions.waiting(survey.digest)
        if left is not None and left.load is not None:
            self._versions.resume(left)
            self._refuse_again(left.load)
            return left, left.load
        body = self._body
        columns = {name: mapped(kind) for name, kind in survey.other_columns.items()}
        properties = body["mappings"]["properties"] | columns
        load = Load(survey.digest)
        body = body | {"mappings": body["mappings"] | {"properties": properties}}
        return self._versions.create(body, load), load

    def _fill(self, version: Version, load: Load, survey: Survey, progress: Progress) -> Load:
        rows = read_catalogue(self._path)
        numbered = ((rows.line, row) for row in rows)
        done = 0
        progress("loading", 0, survey.items)
        while batch := list(islice(numbered, BATCH_ROWS)):
            done += len(batch)
            rest = [entry for entry in batch if entry[0] > load.lines]
            if rest:
                refused = self._write(version, rest, survey.numbers)
                load = replace(load, lines=rest[-1][0], refused=[*load.refused, *refused])
                self._check_refused(version, load)
                self._versions.note(version, load)
            progress("loading", done, survey.items)
        return load

    def _write(self, version: Version, rows: list[Numbered],
               numbers: list[str]) -> list[tuple[int, str]]:
        """Write rows; return line and reason of those that OpenSearch will not take."""
        documents = _with_numbers(self._documents([row for _, row in rows]), numbers)
        refused: list[tuple[int, str]] = []
        waiting = list(zip(rows, documents, strict=True))
        for attempt in range(ATTEMPTS):
            again: list[tuple[Numbered, Item]] = []
            reason = ""
            for entry, info in zip(waiting, self._bulk(version, waiting), strict=True):
                if info["status"] in RETRIED:
                    again.append(entry)
                    reason = str(info.get("error"))
                elif "error" in info:
                    (line, row), _ = entry
                    refused.append((line, _reason(info["error"])))
                    self._refused.write(RowError(str(self._path), *refused[-1]), row)
            if not again:
                return refused
            waiting = again
            pause(attempt, reason)
        raise UpstreamUnavailable(f"opensearch did not take {len(waiting)} rows in {ATTEMPTS} "
                                  f"attempts: {reason}")

    def _bulk(self, version: Version,
              rows: Sequence[tuple[Numbered, Item]]) -> Iterator[dict[str, Any]]:
        """Yield what became of each row, in order; raises what will not pass by waiting."""
        actions = ({"_index": version.writes, "_id": row["item_id"], "_source": document}
                   for (_, row), document in rows)
        for _, item in helpers.streaming_bulk(
                self._client, actions, chunk_size=REQUEST_ROWS, max_chunk_bytes=REQUEST_BYTES,
                raise_on_error=False, raise_on_exception=False, require_alias=True):
            info: dict[str, Any] = item["index"]
            exception = info.get("exception")
            if exception is not None and info["status"] not in RETRIED:
                raise exception
            if info["status"] == NOT_FOUND:  # of the row's index
                raise version.lost()
            yield info

    def _documents(self, rows: list[Item]) -> list[Item]:
        if self._encoder is None:
            return rows
        vectors = np.ascontiguousarray(self._encoder.encode(rows), dtype="<f4")
        return [{**row, "item_vector": {
                    "model_version": self._encoder.version,
                    "values": base64.b64encode(vector.tobytes()).decode()}}
                for row, vector in zip(rows, vectors, strict=True)]

    def _refuse_again(self, load: Load) -> None:
        """Write down the rows that an earlier run of this load had refused by OpenSearch."""
        reasons = dict(load.refused)
        if not reasons:
            return
        rows = read_catalogue(self._path)
        for row in rows:
            if rows.line in reasons:
                self._refused.write(RowError(str(self._path), rows.line, reasons[rows.line]), row)

    def _check_refused(self, version: Version, load: Load) -> None:
        if len(load.refused) > REFUSED_ROWS:
            self._versions.drop(version.name)
            raise UpstreamError(f"opensearch refused {len(load.refused)} rows up to line "
                                f"{load.lines}, the last because {load.refused[-1][1]}; the alias "
                                f"was left as it was, see {self._refused.path}")

    def _check_taken(self, version: Version, load: Load, items: int) -> None:
        if len(load.refused) == items:
            self._versions.drop(version.name)
            raise FileError(f"{self._path} holds no row that opensearch takes, the first because "
                            f"{load.refused[0][1]}; the alias was left as it was")

    def _check_count(self, version: Version, wanted: int) -> None:
        found = self._versions.count(version)
        if found != wanted:
            self._versions.drop(version.name)
            raise UpstreamError(f"{version.name} holds {found} documents, must hold {wanted}; it "
                                "was deleted and the alias left as it was; load again")


def _with_numbers(documents: list[Item], columns: list[str]) -> list[Item]:
    """Return documents with numbers for their text in these columns."""
    return [document | {column: float(document[column]) for column in columns
                        if isinstance(document.get(column), str)} for document in documents]


def _reason(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    cause = error.get("caused_by") or {}
    return ": ".join(filter(None, (error.get("reason"), cause.get("reason"))))
