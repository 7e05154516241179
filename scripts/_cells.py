"""Prints texts side by side on a terminal."""

from __future__ import annotations


def cell(text: str, width: int) -> str:
    """Return a text as wide as its column, cut where it is longer."""
    return f"{text if len(text) <= width else text[:width - 1] + '…':<{width}}"
