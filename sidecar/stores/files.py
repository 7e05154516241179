"""Catalogue, events and cases files, read row by row; a bad row is refused, the others are taken.

JSON lines (optionally .gz), Parquet and CSV hold the same columns. ``file_formats`` opens them,
``file_rows`` says what a row must hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Generic, TypeVar

from sidecar.errors import FileError, RowError
from sidecar.records import Case, Event
from sidecar.stores import file_rows
from sidecar.stores.file_formats import BROKEN, CsvSource, open_source, row_count_hint

__all__ = ["RefusedRows", "Rows", "read_cases", "read_catalogue", "read_events", "read_users",
           "row_count_hint"]

T = TypeVar("T")
OnRefused = Callable[[RowError, Any], None]


class Rows(Iterable[T], Generic[T]):
    """A file's records, in file order. May be iterated again, which starts over.

    While iterating, ``taken`` counts the records, ``refused`` gathers why others were not, and
    ``line`` is the line of the last row looked at.

    Iterating raises FileError when the file breaks off, and at the end if no row was good.
    """

    def __init__(self, path: Path, required: tuple[str, ...],
                 make_converter: Callable[[], Callable[[dict[str, Any]], T]],
                 on_refused: OnRefused | None = None) -> None:
        self.path = path
        self.taken = 0
        self.line = 0
        self.refused: list[RowError] = []
        self._source = open_source(path, required)
        self._make_converter = make_converter
        self._on_refused = on_refused

    @property
    def are_cells(self) -> bool:
        """Return whether the format tells numbers by their text alone."""
        return isinstance(self._source, CsvSource)

    def __iter__(self) -> Iterator[T]:
        self.taken, self.line, self.refused = 0, 0, []
        convert, parse = self._make_converter(), self._source.parse
        for line, raw in self._raw_rows():
            self.line = line
            try:
                record = convert(parse(raw))
            except ValueError as reason:
                self._refuse(raw, str(reason))
                continue
            except RecursionError:
                self._refuse(raw, "row is nested too deeply, flatten it")
                continue
            self.taken += 1
            yield record
        if not self.taken:
            first = f"; the first refusal: {self.refused[0]}" if self.refused else ""
            raise FileError(f"{self.path} holds no row that can be taken{first}")

    def _raw_rows(self) -> Iterator[tuple[int, Any]]:
        try:
            yield from self._source.rows()
        except BROKEN as error:
            remedy = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
            raise FileError(f"{self.path} breaks off after line {self.line}: {error}{remedy}"
                            ) from error

    def _refuse(self, raw: Any, reason: str) -> None:
        error = RowError(str(self.path), self.line, reason)
        self.refused.append(error)
        if self._on_refused:
            self._on_refused(error, raw)


def read_catalogue(path: Path, on_refused: OnRefused | None = None) -> Rows[dict[str, Any]]:
    """Read items: ``item_id``, ``title``, ``brand`` and ``categories`` always, others as given.

    Numbers are float, ``created_at`` ISO 8601 text in UTC, ``vectors`` lists of float by name;
    nulls are left out (but a null brand), columns that are not documented are kept as they are.

    Raises:
        FileError: the file cannot be read at all.
    """
    return Rows(path, file_rows.CATALOGUE_COLUMNS, file_rows.CatalogueConverter, on_refused)


def read_events(path: Path, on_refused: OnRefused | None = None) -> Rows[Event]:
    """Read events in file order; ``item_id`` is None for a search, ``ts`` None when unknown.

    JSON lines may be documents of the logs (``ubi_events``, ``ubi_queries``), or the hits of a
    search or scroll that hold them.

    Raises:
        FileError: the file cannot be read at all.
    """
    return Rows(path, file_rows.EVENT_COLUMNS, lambda: file_rows.event, on_refused)


def read_cases(path: Path, on_refused: OnRefused | None = None) -> Rows[Case]:
    """Read evaluation cases; a history of length n has n empty event ids and no queries.

    Raises:
        FileError: the file cannot be read at all.
    """
    return Rows(path, file_rows.CASE_COLUMNS, lambda: file_rows.case, on_refused)


def read_users(path: Path, on_refused: OnRefused | None = None) -> Rows[tuple[str, dict[str, Any]]]:
    """Read user attributes: (user id, {column: value}), empty values left out.

    Raises:
        FileError: the file cannot be read at all.
    """
    return Rows(path, file_rows.USER_COLUMNS, lambda: file_rows.user, on_refused)


class RefusedRows:
    """Writes refused rows to a JSON lines file: ``line``, ``reason`` and the ``row`` as it was.

    The file is made at the first refusal; one of an earlier run is removed at once, so that the
    file is there exactly when rows were refused. Used as a context manager.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None
        path.unlink(missing_ok=True)

    def write(self, error: RowError, raw: Any) -> None:
        """Append one row; fits ``on_refused`` of the readers.

        Raises:
            FileError: it cannot be written.
        """
        row = raw.decode("utf-8", "replace").rstrip("\r\n") if isinstance(raw, bytes) else raw
        entry = {"line": error.line, "reason": error.reason, "row": row}
        with self._named():
            if self._file is None:
                self._file = self.path.open("w", encoding="utf-8")
            self._file.write(json.dumps(entry, ensure_ascii=False, default=str) + "\n")

    def flush(self) -> None:
        """See that every row is in the file, so that its end cannot fail any more.

        Raises:
            FileError: one cannot be written.
        """
        if self._file is not None:
            with self._named():
                self._file.flush()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FileError(f"refused rows cannot be written to {self.path}: {error}") from error

    def __enter__(self) -> RefusedRows:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._file is None:
            return
        try:
            with self._named():
                self._file.close()
        except FileError:
            if error is None:  # else it has been told, or matters less
                raise
