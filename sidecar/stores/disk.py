"""Allocates disk space before it is needed, and finds lock files whose owner has died."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO


def take_room(file: int, size: int) -> None:
    """Give an open file all its blocks, where the system can (Linux). Else, if a full disk has no
    room for a page of a mapped file, SIGBUS ends the process that writes there.

    Raises:
        OSError: there is no room.
    """
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, size)


def deserted(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the files on which no living process holds a lock: their writer was killed. Each is
    locked until the next is asked for; files that may not be opened are left out."""
    for path in paths:
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(path, file):
                yield path


def is_at(path: Path, file: IO[bytes]) -> bool:
    """Return whether an open file is the one at a path; it may have been removed, and another put
    there, before it was locked."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
