"""From a catalogue file to a searched index: look the file over, fill a new version, switch to it.

The file is read twice. The first pass counts and refuses rows, and finds the columns that the
mapping does not know. The second pass writes. Everything is written under the item's id, so any
part may be written again, and a load that was killed goes on after its last checkpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from opensearchpy import OpenSearch, helpers

from sidecar.errors import FileError, RowError, UpstreamError, UpstreamUnavailable
from sidecar.stores.catalogue_columns import mapped
from sidecar.stores.catalogue_survey import EncodesItems, Item, Progress, Survey, survey_of
from sidecar.stores.catalogue_versions import (
    ATTEMPTS,
    RETRIED,
    CatalogueVersions,
    Load,
    Version,
    pause,
)
from sidecar.stores.files import RefusedRows, read_catalogue
from sidecar.stores.mappings import mapping

BATCH_ROWS = 5000  # rows between two checkpoints
MOST_REFUSED = 0.1  # share of a file's rows: an export that broke is not served
REFUSED_ROWS = 1000  # by OpenSearch, before the load is given up; they are kept in _meta
NOT_FOUND = 404
REQUEST_ROWS = 500
REQUEST_BYTES = 10 * 2**20

Numbered = tuple[int, Item]  # a row with its line


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
    """Loads one catalogue file behind one alias.

    ``most_refused`` is the share (0 to 1) of the file's rows that may be refused, by the reader and
    by OpenSearch together, where the alias serves a version already: with more it stays there.
    """

    def __init__(self, client: OpenSearch, alias: str, path: Path, refused: RefusedRows,
                 encoder: EncodesItems | None = None, *,
                 most_refused: float = MOST_REFUSED) -> None:
        self._client = client
        self._versions = CatalogueVersions(client, alias)
        self._path = path
        self._refused = refused
        self._encoder = encoder
        self._most_refused = most_refused
        self._body = mapping("products")

    def load(self, progress: Progress) -> Loaded:
        """Load the file unless it is what is searched already.

        Raises:
            FileError: the file cannot be read, or was written to meanwhile, or holds no row that
                can be taken, here or there, or too many that cannot; or refused rows cannot be
                written down.
            ModelError: the model knows none of the items.
            InputError: the alias is an index.
            UpstreamError: OpenSearch could not be asked, or does not hold what it took.
        """
        rows = read_catalogue(self._path, self._refused.write)
        found = self._stamp()
        survey = survey_of(self._path, rows, self._body, self._encoder, progress)
        refused = len(rows.refused)
        for version in self._versions.current():
            if version.load and version.load.is_complete and version.load.digest == survey.digest:
                self._refuse_again(version.load)
                self._refused.flush()
                taken = survey.items - len(version.load.refused)
                return Loaded(version.name, taken, refused + len(version.load.refused), False)
        self._check_share(refused, survey.items + refused)  # nothing has been made yet
        version, load = self._begin(survey)
        start = load.lines
        load = self._fill(version, load, survey, progress)
        self._check_unchanged(version, found)
        self._check_taken(version, load, survey.items)
        self._check_share(refused + len(load.refused), survey.items + refused, version)
        self._check_count(version, survey.items - len(load.refused))
        self._refused.flush()  # while the alias is as it was
        self._versions.note(version, replace(load, is_complete=True))
        self._versions.publish(version, self._body["settings"])
        return Loaded(version.name, survey.items - len(load.refused), refused + len(load.refused),
                      True, tuple(survey.other_columns), survey.known_to_model, start)

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
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                pause(attempt, reason)
            again: list[tuple[Numbered, Item]] = []
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

    def _stamp(self) -> tuple[int, int]:
        """Return what changes with whatever is written to the file."""
        told = self._path.stat()
        return told.st_mtime_ns, told.st_size

    def _check_unchanged(self, version: Version, found: tuple[int, int]) -> None:
        """Fail where the rows that were written may be others than those that were looked over."""
        if self._stamp() != found:
            self._versions.drop(version.name)
            raise FileError(f"{self._path} was written to while it was loaded; {version.name} was "
                            "deleted and the alias left as it was; load the file again once it is "
                            "complete")

    def _check_taken(self, version: Version, load: Load, items: int) -> None:
        if len(load.refused) == items:
            self._versions.drop(version.name)
            raise FileError(f"{self._path} holds no row that opensearch takes, the first because "
                            f"{load.refused[0][1]}; the alias was left as it was")

    def _check_share(self, refused: int, rows: int, filled: Version | None = None) -> None:
        """Fail if too many rows were refused to replace what is served; what was filled with the
        others is deleted."""
        served = " and ".join(version.name for version in self._versions.current())
        if not served or refused / rows <= self._most_refused:
            return
        if filled is not None:
            self._versions.drop(filled.name)
        self._refused.flush()
        raise FileError(
            f"{refused} of {rows} rows of {self._path} were refused, more than the share of "
            f"{self._most_refused:g} that may be; they are listed with their reasons in "
            f"{self._refused.path}; {self._versions.alias} still serves {served}; mend the file "
            "and load it again, or say with --most-refused SHARE that more may be left out")

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
