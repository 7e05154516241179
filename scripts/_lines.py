"""JSON lines files that the programs write."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write gzipped JSON lines beside ``path`` and move them there, without name or time inside;
    an interrupted write leaves nothing."""
    partial = path.with_name(path.name + ".part")
    encode = msgspec.json.Encoder().encode
    try:
        with (partial.open("wb") as raw,
              gzip.GzipFile("", "wb", compresslevel=4, fileobj=raw, mtime=0) as lines):
            for row in rows:
                lines.write(encode(row) + b"\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
