"""One item table for all workers of a machine: files that each of them maps into its memory.

    DIR/TABLES/VERSION/held             held, together, by all workers that use the table
    DIR/TABLES/VERSION/lock             held while a worker looks for, makes or replaces the arrays
    DIR/TABLES/VERSION/writer           held, for as long as it lives, by the worker that writes
    DIR/TABLES/VERSION/current          names the generation in use
    DIR/TABLES/VERSION/GENERATION/*.npy the arrays, with room for new items
    DIR/TABLES/VERSION/read.json        how far the writer has read the catalogue's changes

TABLES keeps them apart from other files in DIR. VERSION is the model's. The first worker that loads
a model writes the arrays to files, with vectors in half precision; the others map these files. One
worker reads the catalogue's changes and writes them in place, where all see them. When it ends,
another goes on from there. A new generation replaces arrays that have become too small; the others
notice it at their next look. When a worker switches to another model's table, it removes tables
that no worker uses any more.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from sidecar.ranking.item_ids import MEAN_BYTES, ItemIds
from sidecar.ranking.items import SHARED, ItemTable
from sidecar.stores.disk import deserted, is_at, take_room

TABLES = "item-tables"
HALF = frozenset({"vectors"})  # kept as float16
SPARE = 0.1  # room for new items, of those there are
LEAST_SPARE = 1024
LOCK, HELD = "lock", "held"
_IDS = ("text", "ends", "slots", "counts")

Arrays = dict[str, npt.NDArray[Any]]


class SharedItems:
    """The shared table of one model, as one process has it; a ``Storage`` of its item table."""

    def __init__(self, folder: Path, version: str) -> None:
        """Keep the model's table below ``folder``, where ``adopt`` puts it."""
        self._folder = folder / TABLES / version
        self._generation = ""
        self._held: IO[bytes] | None = None
        self._writer: IO[bytes] | None = None
        self.was_written = False

    def adopt(self, table: ItemTable) -> None:
        """Let a table, just loaded, go over to the shared arrays, which are made if need be; raises
        OSError."""
        while not self._hold():
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._locked():
                if not self._current():
                    self._write(table, len(table), 0)
        except OSError:
            self.close()
            raise
        self.follow(table)

    def follow(self, table: ItemTable) -> None:
        """Go over to a newer generation, if there is one; stay where the table was removed."""
        if not self._hold():
            return
        current = self._current()
        if current and current != self._generation:
            self._map(table, current)

    def may_write(self) -> bool:
        """Return True if this process keeps the table up to date. No process does once the table
        was removed, while this process had left it for another."""
        if self._writer is not None:
            return True
        path = self._folder / "writer"
        was_written = path.exists()
        try:
            file = path.open("ab")
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._writer, self.was_written = file, was_written
        return True

    def grow(self, table: ItemTable, size: int, text_bytes: int) -> None:
        """Replace the arrays by larger ones; see ``Storage``."""
        with self._locked():
            old = self._generation
            self._write(table, size, text_bytes)
        self.follow(table)
        shutil.rmtree(self._folder / old, ignore_errors=True)  # those who map it keep it

    @property
    def progress(self) -> Any:
        """Return what ``note`` was last given, by whichever process; None if nothing yet."""
        try:
            return json.loads((self._folder / "read.json").read_bytes())
        except (OSError, ValueError):
            return None

    def note(self, progress: Any) -> None:
        """Keep how far the catalogue's changes were read, for the next writer."""
        self._replace("read.json", json.dumps(progress).encode())

    def remove_others(self) -> None:
        """Delete the other models' tables that no living process uses."""
        for held in deserted(self._folder.parent.glob(f"*/{HELD}")):
            if held.parent != self._folder:
                aside = held.parent.with_name(f"{held.parent.name}.removed-{os.getpid()}")
                held.parent.rename(aside)  # whoever wants this table now makes a new one
                shutil.rmtree(aside, ignore_errors=True)

    def close(self) -> None:
        """Let another process write, or remove the table."""
        for file in (self._writer, self._held):
            if file is not None:
                file.close()
        self._writer = self._held = None

    def _hold(self) -> bool:
        """Keep the table from being removed; False if it is not there."""
        if self._held is not None:
            return True
        path = self._folder / HELD
        try:
            file = path.open("ab")
        except FileNotFoundError:
            return False
        fcntl.flock(file, fcntl.LOCK_SH)  # waits for whoever is just removing it
        if is_at(path, file):
            self._held = file
            weakref.finalize(self, file.close)  # a switched-out model is dropped, not closed
        else:
            file.close()
        return self._held is not None

    def _current(self) -> str:
        try:
            return (self._folder / "current").read_text()
        except FileNotFoundError:
            return ""

    def _write(self, table: ItemTable, size: int, text_bytes: int) -> None:
        """Write a table's rows into a new generation with room for more than ``size``."""
        name = str(int(self._current() or 0) + 1)
        capacity = size + max(LEAST_SPARE, int(SPARE * size))
        folder = self._folder / name
        shutil.rmtree(folder, ignore_errors=True)  # of a writer that was killed
        folder.mkdir()
        try:
            self._fill(folder, table, capacity, text_bytes)
            self._replace("current", name.encode())
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)  # or a full disk would stay so
            raise

    @staticmethod
    def _fill(folder: Path, table: ItemTable, capacity: int, text_bytes: int) -> None:
        count = len(table)
        for column in SHARED:
            old = getattr(table, column)
            new = _created(folder / f"{column}.npy", (capacity, *old.shape[1:]),
                           np.float16 if column in HALF else old.dtype)
            new[:count] = old[:count]
        ids = list(table.ids)
        text_bytes += sum(len(i.encode()) for i in ids) + MEAN_BYTES * (capacity - count)
        ItemIds({key: _created(folder / f"ids-{key}.npy", (length,), dtype) for key, (length, dtype)
                 in ItemIds.shapes(capacity, text_bytes).items()}).extend(ids)

    def _map(self, table: ItemTable, generation: str) -> None:
        folder = self._folder / generation
        arrays = {name: _mapped(folder / f"{name}.npy") for name in SHARED}
        ids = ItemIds({name: _mapped(folder / f"ids-{name}.npy") for name in _IDS})
        table.shared_by(self, ids, arrays)
        self._generation = generation

    def _replace(self, name: str, content: bytes) -> None:
        partial = self._folder / f"{name}.partial-{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(self._folder / name)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with (self._folder / LOCK).open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _created(path: Path, shape: tuple[int, ...], dtype: Any) -> npt.NDArray[Any]:
    """Make an array in a file that has all its room: what a full disk has no page for would end
    the process that writes there, by SIGBUS."""
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        take_room(file.fileno(), path.stat().st_size)
    return array.view(np.ndarray)


def _mapped(path: Path) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.lib.format.open_memmap(path, "r+")
    return array.view(np.ndarray)
