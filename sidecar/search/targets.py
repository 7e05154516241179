"""A request's target: its path, what it asks of OpenSearch, and its parameters.

Paths and parameters keep their percent-encoding as it came; decoded forms are kept apart.
OpenSearch compares a path's fixed words undecoded, and so does this module: a request that is a
search here is one there. Pure; no I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, KeysView
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

PARSED = 1024  # targets that are kept parsed: a shop's searches have a handful
_ABSOLUTE = re.compile(r"https?://", re.IGNORECASE)


class Endpoint(StrEnum):
    """What a path asks for, as far as the sidecar treats it differently."""

    SEARCH = "_search"
    MULTI_SEARCH = "_msearch"
    TEMPLATE = "_search/template"
    MULTI_TEMPLATE = "_msearch/template"
    OTHER = "other"


class Parameter(NamedTuple):
    """One query parameter, decoded, and as it was written (``name=value``)."""

    name: str
    value: str
    written: str


@dataclass(frozen=True, slots=True)
class Target:
    """Path and parameters of a request, in order, repeats kept; ``raw`` as it came, if it has not
    been changed since.
    """

    path: str
    parameters: tuple[Parameter, ...] = ()
    raw: str | None = None
    _last: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_last", {p.name: p.value for p in self.parameters})

    def get(self, name: str) -> str | None:
        """Return a parameter's value; of repeats the last, as OpenSearch takes it."""
        return self._last.get(name)

    @property
    def names(self) -> KeysView[str]:
        """Return the parameters' names."""
        return self._last.keys()

    def __contains__(self, name: str) -> bool:
        return name in self._last

    def without(self, names: Iterable[str]) -> Target:
        """Leave parameters out; the others stay as they were written."""
        gone = frozenset(names)
        if gone.isdisjoint(self._last):
            return self
        left = tuple(p for p in self.parameters if p.name not in gone)
        return replace(self, parameters=left, raw=None)

    def with_parameter(self, name: str, value: str) -> Target:
        """Set a parameter, in place of any that bear its name."""
        written = Parameter(name, value, f"{name}={quote(value, safe=',*')}")
        others = self.without((name,)).parameters
        return Target(self.path, (*others, written))

    def with_path(self, path: str) -> Target:
        """Return the target with another path."""
        return replace(self, path=path, raw=None)

    def index_expression(self) -> str:
        """Return the path's index part as it was written; empty: all indices."""
        first = segments(self.path)[:1]
        return "" if not first or (first[0].startswith("_") and first[0] != "_all") else first[0]

    def __str__(self) -> str:
        if self.raw is not None:
            return self.raw
        if not self.parameters:
            return self.path
        return f"{self.path}?{'&'.join(p.written for p in self.parameters)}"


def origin_form(target: str) -> str:
    """Return path and query of a target; an absolute one's host is not the client's to choose."""
    if target.startswith("/"):
        return target
    if not _ABSOLUTE.match(target):
        return "/" + target
    return "/" + target.partition("://")[2].partition("/")[2]


@lru_cache(PARSED)
def parse(raw: str) -> Target:
    """Take a request target apart; the scheme and host of an absolute one are dropped."""
    raw = origin_form(raw)
    path, _, query = raw.partition("?")
    parts = query.replace(";", "&").split("&")  # OpenSearch takes either
    return Target(path, tuple(_parameter(part) for part in parts if part), raw)


def _parameter(written: str) -> Parameter:
    name, _, text = written.partition("=")
    return Parameter(unquote_plus(name), unquote_plus(text), written)


def segments(path: str) -> list[str]:
    """Return a path's segments, undecoded; a trailing slash adds none."""
    return path[1:].rstrip("/").split("/") if path.strip("/") else []


_ENDPOINTS = {(str(e),): e for e in (Endpoint.SEARCH, Endpoint.MULTI_SEARCH)} | {
    tuple(e.split("/")): e for e in (Endpoint.TEMPLATE, Endpoint.MULTI_TEMPLATE)}


@lru_cache(PARSED)
def endpoint(method: str, path: str) -> Endpoint:
    """Return what a request asks for; everything that is not a kind of search is OTHER."""
    if method not in ("GET", "POST"):
        return Endpoint.OTHER
    parts = segments(path)
    if not parts:
        return Endpoint.OTHER
    if not parts[0].startswith("_") or parts[0] == "_all":
        parts = parts[1:]
    return _ENDPOINTS.get(tuple(parts), Endpoint.OTHER)
