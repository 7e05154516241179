"""How are columns mapped that the catalogue's format does not document?

By what they hold. Numbers, true and false, and words can be searched and filtered. Mixed values are
taken as words. Values with an inner structure are kept and not searched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

_SCALARS = {bool: "boolean", int: "double", float: "double", str: "keyword"}
_OPAQUE = "object"
_NUMERAL = "numeral"  # a CSV cell's text that is a number; the column may hold other text yet
_NUMBER = re.compile(r"-?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)  # not 007
_EXACT = 2**53  # whole numbers beyond lose digits as a double, and are rather somebody's ids
_METADATA = frozenset({"_id", "_index", "_source", "_routing", "_field_names", "_ignored",
                       "_nested_path", "_seq_no", "_primary_term", "_version", "_doc_count",
                       "_data_stream_timestamp"})  # OpenSearch's own fields


def check_names(names: Collection[str]) -> None:
    """Check that a mapping can hold columns of these names side by side.

    Raises:
        ValueError: one cannot be had; says which and the remedy.
    """
    for name in sorted(names):
        parts = name.split(".")
        above = {".".join(parts[:count]) for count in range(1, len(parts))}
        if not all(part.strip() for part in parts):
            reason = "is no name that opensearch takes"
        elif name in _METADATA:
            reason = "has the name of a field of opensearch's own"
        elif beside := sorted(above.intersection(names)):
            reason = f"stands beside column {beside[0]!r}, and would be a part of it"
        else:
            continue
        raise ValueError(f"column {name!r} {reason}; rename or drop it")


def type_of(value: Any) -> str | None:
    """Return the type that a value of an undocumented column is mapped with, None for any."""
    if not isinstance(value, list):
        return _SCALARS.get(type(value), _OPAQUE)
    types = {type_of(entry) for entry in value if entry is not None} - {None}
    if len(types) <= 1:
        return types.pop() if types else None
    return _OPAQUE if _OPAQUE in types else "keyword"


def type_of_cell(value: Any) -> str | None:
    """Return ``type_of`` a CSV cell, of which a number's text is not known to be words."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        number = float(value)
        if math.isfinite(number) and (not number.is_integer() or abs(number) <= _EXACT):
            return _NUMERAL
    return type_of(value)


def merged(one: str | None, other: str | None) -> str | None:
    """Return the type that takes the values of both."""
    if one is None or other is None or one == other:
        return one or other
    if {one, other} == {_NUMERAL, "double"}:
        return "double"
    return _OPAQUE if _OPAQUE in (one, other) else "keyword"


def settled(kind: str | None) -> str:
    """Return the type of a column whose values are all seen."""
    return "double" if kind == _NUMERAL else kind or "keyword"


def mapped(kind: str) -> dict[str, Any]:
    """Return a type's mapping; an opaque value is kept as it is and not searched."""
    if kind == _OPAQUE:
        return {"type": "object", "enabled": False}
    return {"type": kind} | ({"ignore_above": 1024} if kind == "keyword" else {})
