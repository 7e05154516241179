"""Readers of arguments that several programs take: argparse then says at once what is wrong."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from sidecar.stores.file_values import seconds

LARGEST_SEED = 2**31 - 1


def instant(text: str) -> float:
    """Return an ISO 8601 argument as seconds, for argparse."""
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no ISO 8601 instant") from error


def new_file(text: str) -> Path:
    """Return the path of a file that can be written, for argparse: before the work, not after."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is a directory, must be a file")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"{str(path.parent)!r} is no directory; make it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text!r} may not be written")
    return path


def new_directory(text: str) -> Path:
    """Return the path of a directory that is there or can be made, for argparse."""
    path = Path(text)
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not there.is_dir():
        raise argparse.ArgumentTypeError(f"{str(there)!r} is a file, must be a directory")
    if not os.access(there, os.W_OK):
        raise argparse.ArgumentTypeError(f"{str(there)!r} may not be written")
    return path


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` to ``most``, for argparse."""
    def number(text: str) -> int:
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{value} is above {most}")
        return value

    return number


seed = whole(0, LARGEST_SEED)  # what every generator takes
