"""Raw rows out of JSON lines (optionally .gz), Parquet and CSV files, with their line numbers.

A source yields ``(line, raw)``; its ``parse`` turns ``raw`` into a row (a dict from column to
value). The two are apart, so that a row that cannot be parsed can be reported as it is. Lines count
from 1; a Parquet row's line is its number, a CSV row's is the line it ends on. ``file_rows`` checks
the values.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from sidecar.errors import FileError

Row = dict[str, Any]
_BATCH_ROWS = 50_000
_SAMPLE_BYTES = 2**20
_IDS = frozenset({"item_id", "user_id", "case_id", "order_id", "session_id"})
_TEXTS = _IDS | {"event_id", "title", "brand", "description", "query"}  # never JSON
_FLOAT_ID = re.compile(r"\d+\.0")  # how pandas writes whole numbers where some of a column are null
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # as JSON escapes it
_NO_NUMBER = re.compile(rb"\b(NaN|Infinity)\b")
_OTHER_SEPARATOR = re.compile("[;\t|]")  # as spreadsheets write where the comma is a decimal one
_BEYOND = "\n"  # key of the cells beyond a CSV's header
BROKEN = (OSError, EOFError, zlib.error, UnicodeDecodeError, OverflowError, pa.ArrowException)


class Source(Protocol):
    """One file in one format."""

    def rows(self) -> Iterator[tuple[int, Any]]:
        """Yield line numbers and raw rows, in file order."""
        ...

    def parse(self, raw: Any) -> Row:
        """Return the row's columns; ValueError when it has none."""
        ...


def open_source(path: Path, required: tuple[str, ...]) -> Source:
    """Choose the format by the file's name: ``.parquet``, ``.csv`` or ``.csv.gz``, else JSON lines.

    Raises:
        FileError: the file is absent, or is a table that lacks a required column.
    """
    if not path.is_file():
        raise FileError(f"{path} is not a file")
    name = path.name.lower()
    if name.endswith(".parquet"):
        return ParquetSource(path, required)
    if name.endswith((".csv", ".csv.gz")):
        return CsvSource(path, required)
    return JsonLinesSource(path)


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, gunzipping where its name ends in ``.gz``."""
    if path.suffix.lower() == ".gz":
        # GzipFile alone reads lines some five times slower than through a buffer of this size.
        return io.BufferedReader(gzip.GzipFile(path), _SAMPLE_BYTES)
    return path.open("rb", buffering=_SAMPLE_BYTES)


class JsonLinesSource:
    """One JSON object a line; blank lines are passed over. NaN and Infinity, which are no JSON but
    what Python writes of pandas' missing numbers, are nulls."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decode = msgspec.json.Decoder().decode

    def rows(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line that is not blank, with its number."""
        with open_bytes(self._path) as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = line.removeprefix(BOM_UTF8)
                if line and not line.isspace():
                    yield number, line

    def parse(self, raw: bytes) -> Row:
        """Decode one line."""
        try:
            row = self._decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            row = _without_nan(raw, error)
        if type(row) is not dict:
            raise ValueError(f"line holds a {type(row).__name__}, must be one JSON object")
        return row


def _without_nan(raw: bytes, error: Exception) -> Any:
    """Decode a line in which Python wrote NaN or Infinity; refuse any other for ``error``."""
    refused = ValueError(f"line must be one JSON object, in UTF-8: {error}")
    if not _NO_NUMBER.search(raw) or _SURROGATE.search(raw.decode(errors="replace")):
        raise refused from error
    try:
        return json.loads(raw, parse_constant=lambda _: None)
    except ValueError:
        raise refused from error


class CsvSource:
    """Comma-separated with a header line. An empty cell is a null, and so is nan; JSON text stands
    for itself. In columns that are text anyway, both are text."""

    def __init__(self, path: Path, required: tuple[str, ...]) -> None:
        self._path = path
        csv.field_size_limit(sys.maxsize)  # a vector's JSON text outgrows the default of 128 KB
        try:
            with self._open() as text:
                columns = next(csv.reader(text), [])
        except BROKEN as error:
            raise FileError(f"{path} cannot be read as UTF-8 CSV: {error}") from error
        _check_columns(path, columns, required)

    def _open(self) -> io.TextIOWrapper:
        return io.TextIOWrapper(open_bytes(self._path), encoding="utf-8-sig", newline="")

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield each row's cells, with the number of its last line."""
        own: list[str] = []  # the lines of the row that is being read
        last: list[str] = []
        with self._open() as text:
            reader = csv.DictReader(_noted(text, own), restkey=_BEYOND, restval=None)
            for row in reader:
                last[:] = own
                own.clear()
                yield reader.line_num, row
        if _is_open(last):
            raise EOFError(f"a quote in the row that begins with {last[0][:80].rstrip()!r} is "
                           "never closed, so all after it is one cell")

    def parse(self, raw: Row) -> Row:
        """Read nulls, lists and objects out of the cells; numbers stay text."""
        if _BEYOND in raw:
            raise ValueError("row has more cells than the header has columns")
        # pandas writes its index under no name
        row = {column: _cell(column, text) for column, text in raw.items() if column}
        for column in _IDS & row.keys():
            if isinstance(text := row[column], str) and _FLOAT_ID.fullmatch(text):
                row[column] = text.removesuffix(".0")
        return row


def _noted(lines: Iterable[str], into: list[str]) -> Iterator[str]:
    for line in lines:
        into.append(line)
        yield line


def _is_open(lines: Sequence[str]) -> bool:
    """Return True if a CSV row ends within a quoted cell, which the reader takes as it is."""
    try:
        list(csv.reader(lines, strict=True))
    except csv.Error as error:
        return str(error) == "unexpected end of data"
    return False


def _cell(column: str, text: str | None) -> Any:
    if not text:
        return None
    if column in _TEXTS:
        return text
    if text.lower() == "nan":
        return None
    if text[0] in "[{":
        try:
            value = json.loads(text)
        except ValueError:
            return text
        if _SURROGATE.search(text):
            _check_text(column, value)
        return value
    return text


def _check_text(column: str, value: Any) -> None:
    """Refuse halves of characters, which Python's JSON reads but no encoder can write."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise ValueError(f"{column} holds {half}, half a character; remove it") from error


class ParquetSource:
    """A Parquet table, read in batches, so that it need not fit in memory."""

    def __init__(self, path: Path, required: tuple[str, ...]) -> None:
        self._path = path
        try:
            columns = pq.read_schema(path).names
        except (pa.ArrowException, OSError) as error:
            raise FileError(f"{path} is not a Parquet file: {error}") from error
        _check_columns(path, columns, required)

    def rows(self) -> Iterator[tuple[int, Row]]:
        """Yield each row, with its number."""
        number = 0
        with pq.ParquetFile(self._path) as table:
            for batch in table.iter_batches(_BATCH_ROWS):
                columns = [_values(column) for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    yield number, dict(zip(batch.schema.names, values, strict=True))

    def parse(self, raw: Row) -> Row:
        """Turn NaN into null."""
        # pandas writes a missing number as NaN, which is unequal to itself.
        return {column: None if value != value else value for column, value in raw.items()}


def _values(column: pa.Array) -> list[Any]:
    """Return a column's Python values, maps as dicts; nanoseconds are cut, as Python's times have
    none."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return list(column.to_pylist(maps_as_pydicts="lossy"))


def _check_columns(path: Path, columns: list[str], required: tuple[str, ...]) -> None:
    missing = [name for name in required if name not in columns]
    if missing and len(columns) == 1 and (parted := _OTHER_SEPARATOR.search(columns[0])):
        raise FileError(f"{path} has its columns parted by {parted[0]!r}, must be by ','; export "
                        "it with commas")
    if missing:
        found = ", ".join(columns) or "none"
        raise FileError(f"{path} has no column {missing[0]}; its columns are {found}")
    twice = next((name for name in columns if name and columns.count(name) > 1), None)
    if twice is not None:
        raise FileError(f"{path} has column {twice!r} twice; rename or drop one")


def row_count_hint(path: Path) -> int | None:
    """Estimate a file's rows from its size and first megabyte, for progress bars.

    Exact for Parquet, and for smaller files of the other kinds. None if the file is empty or
    broken; reading it says what is wrong.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return int(pq.read_metadata(path).num_rows)
        with open_bytes(path) as content:
            sample = content.read(_SAMPLE_BYTES)
        whole = _size(path) if len(sample) == _SAMPLE_BYTES else len(sample)
    except BROKEN:
        return None
    return max(1, round(sample.count(b"\n") * whole / len(sample))) if sample else None


def _size(path: Path) -> int:
    """Return a file's bytes, uncompressed: gzip keeps them, modulo 4 GiB, in its last four."""
    if path.suffix.lower() != ".gz":
        return path.stat().st_size
    with path.open("rb") as content:
        content.seek(-4, io.SEEK_END)
        return int.from_bytes(content.read(4), "little")
