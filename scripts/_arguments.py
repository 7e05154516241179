"""Readers of arguments that several programs share, so that argparse reports a mistake at once."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sidecar.stores.file_values import seconds

LARGEST_SEED = 2**31 - 1
LARGEST_PORT = 65_000


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


def _as_whole(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number") from error


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers from ``least`` to ``most``, for argparse."""
    def read(text: str) -> int:
        value = _as_whole(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        if most is not None and value > most:
            raise argparse.ArgumentTypeError(f"{value} is above {most}")
        return value

    return read


def number(least: float = 0.0, most: float = math.inf, *,
           is_open: bool = False) -> Callable[[str], float]:
    """Return a reader of finite numbers from ``least`` (``is_open``: above it) to ``most``."""
    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} must be a number") from error
        if not least <= value <= most or math.isinf(value) or (is_open and value == least):
            above = "above" if is_open else "at least"
            upto = "" if math.isinf(most) else f" and at most {most:g}"
            raise argparse.ArgumentTypeError(f"{text} must be {above} {least:g}{upto}")
        return value

    return read


positive = number(is_open=True)


def port(text: str) -> int:
    """Return a port that a program can listen at, with room for its companions above it."""
    value = _as_whole(text)
    if not 1 <= value <= LARGEST_PORT:
        raise argparse.ArgumentTypeError(f"port is {value}, must be 1-{LARGEST_PORT}")
    return value


def server_url(text: str) -> str:
    """Return where one server answers, for argparse: ``http[s]://HOST[:PORT][/PREFIX]``."""
    if "@" in text:  # not repeated: it may hold a password
        raise argparse.ArgumentTypeError("the URL holds credentials; give them in "
                                         "SIDECAR_OPENSEARCH_AUTHORIZATION, a sidecar's in "
                                         "SIDECAR_ADMIN_AUTHORIZATION")
    try:
        parts = urlsplit(text)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL: {error}") from None
    if not is_one:
        raise argparse.ArgumentTypeError(f"{text!r} must be http://HOST:PORT or https://HOST:PORT")
    return text.rstrip("/")


def server_urls(text: str) -> str:
    """Return where several servers answer, comma-separated as they came, for argparse."""
    return ",".join(server_url(one.strip()) for one in text.split(",") if one.strip())


seed = whole(0, LARGEST_SEED)  # what every generator takes
