"""The files under ``mappings/``: one JSON file per index, with its settings and mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

MAPPINGS = Path(__file__).resolve().parents[2] / "mappings"


def mapping(name: str) -> dict[str, Any]:
    """Return the body that ``mappings/<name>.json`` creates an index with."""
    body: dict[str, Any] = msgspec.json.decode((MAPPINGS / f"{name}.json").read_bytes())
    return body
