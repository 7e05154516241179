"""``filter_path``: what it leaves of the hits, and how to see ids and scores through it.

The sidecar needs each hit's ``_index``, ``_id`` and ``_score``. Where a client's filter takes
them away, the filter is widened for the upstream, and what was added is cut out of each hit again.
It also needs to see failed shards: a fetch wider than the client's may fail on some, and their hits
would then be missing silently. Pure; no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

HITS = ("hits", "hits")
FAILURES = ("_shards", "failures")  # there only where shards failed, so that nothing is to be cut
_Pattern = tuple[str, ...]
_NOTHING: _Pattern = ("no_such_key",)
_SHARDS: _Pattern = ("_shards",)
_ALL_BUT_FAILURES = tuple((*_SHARDS, key) for key in ("total", "successful", "skipped", "failed"))


@dataclass(frozen=True, slots=True)
class HitFilter:
    """A filter that still shows what is needed, and the hits' keys that it shows only for that."""

    text: str
    hidden: frozenset[str]


def shows_hits(text: str) -> bool:
    """Return True if anything inside ``hits.hits`` can be left by the filter."""
    includes, excludes = _patterns(text)
    if any(_covers(pattern, HITS) for pattern in excludes):
        return False
    return not includes or any(_meets(pattern, HITS) for pattern in includes)


def widen(text: str, keys: Iterable[str]) -> HitFilter | None:
    """Return a filter that also shows these keys of every hit, and the failures of shards.

    None if a pattern with wildcards takes one of them away: it may take others too, so it can be
    neither kept nor dropped.
    """
    includes, excludes = _patterns(text)
    kept = [part for pattern in excludes
            for part in (_ALL_BUT_FAILURES if pattern == _SHARDS else (pattern,))
            if part != FAILURES]
    if any(_covers(pattern, FAILURES) for pattern in kept):
        return None
    added: list[_Pattern] = []
    hidden = set()
    if includes and not any(_covers(pattern, FAILURES) for pattern in includes):
        added.append(FAILURES)
    for key in keys:
        path = (*HITS, key)
        for pattern in [p for p in kept if _covers(p, path)]:
            if pattern != path:
                return None
            kept.remove(pattern)
            hidden.add(key)
        if includes and not any(_covers(pattern, path) for pattern in includes):
            added.append(path)
            hidden.add(key)
    if excludes and not kept:
        kept.append(_NOTHING)  # any filter at all makes OpenSearch write numbers anew
    written = [_write(p) for p in (*includes, *added)] + ["-" + _write(p) for p in kept]
    return HitFilter(",".join(written), frozenset(hidden))


@lru_cache(maxsize=256)
def _patterns(text: str) -> tuple[tuple[_Pattern, ...], tuple[_Pattern, ...]]:
    """Split into the patterns to show and the patterns to leave out."""
    names = [name.strip() for name in text.split(",")]
    return (tuple(_split(name) for name in names if name and not name.startswith("-")),
            tuple(_split(name[1:]) for name in names if name.startswith("-")))


def _split(name: str) -> _Pattern:
    name = name.replace("\\.", "\0").rstrip(".")  # OpenSearch takes dots at the end for nothing
    return tuple(part.replace("\0", "\\.") for part in name.split("."))


def _write(pattern: _Pattern) -> str:
    return ".".join(pattern)


def _covers(pattern: _Pattern, path: tuple[str, ...]) -> bool:
    """Return True if the pattern selects the path or something that it lies in."""
    if not pattern:
        return True
    if not path:
        return False
    if pattern[0] == "**":
        return (_covers(pattern[1:], path) if pattern[1:] else True) or _covers(pattern, path[1:])
    return _matches(pattern[0], path[0]) and _covers(pattern[1:], path[1:])


def _meets(pattern: _Pattern, path: tuple[str, ...]) -> bool:
    """Return True if the pattern selects the path, something around it, or something inside."""
    if not pattern or not path or pattern[0] == "**":
        return True
    return _matches(pattern[0], path[0]) and _meets(pattern[1:], path[1:])


def _matches(pattern: str, name: str) -> bool:
    """Compare one segment; ``*`` stands for any characters."""
    first, *others = pattern.split("*")
    if not others:
        return pattern == name
    if not name.startswith(first):
        return False
    at = len(first)
    for piece in others[:-1]:
        at = name.find(piece, at)
        if at < 0:
            return False
        at += len(piece)
    return len(name) - at >= len(others[-1]) and name.endswith(others[-1])
