"""Remembers a few things for some seconds."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

Value = TypeVar("Value")

MOST = 1024


class Expiring(Generic[Value]):
    """A small mapping whose entries count for ``seconds``; thread-safe.

    An entry that no longer counts stays until it is put again, or until the mapping holds MOST
    entries, at which it forgets them all.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._entries: dict[str, tuple[float, Value]] = {}

    def get(self, name: str) -> Value | None:
        """Return what was put under the name, or None if that was long ago."""
        entry = self._entries.get(name)
        return entry[1] if entry is not None and entry[0] > time.monotonic() else None

    def put(self, name: str, value: Value) -> None:
        """Remember a value from now on."""
        if len(self._entries) >= MOST:
            self._entries = {}
        self._entries[name] = (time.monotonic() + self._seconds, value)
