"""Versions of the catalogue: whole indices behind one alias, of which one is searched.

``products`` is an alias; ``products-v1``, ``products-v2``, … are the indices. A version is filled
where no search sees it, and moves behind the alias in one step. The version's ``_meta.load``
records what its load has done so far, so that a load that was killed can go on.

Rows are written to an alias of the version (``products-v2-writes``) that goes when the version is
deleted or published. A bulk request that requires this alias cannot make the index again with a
guessed mapping, and cannot change what is searched.
"""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, TransportError

from sidecar.errors import InputError, UpstreamError, UpstreamUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
RETRIED = frozenset({429, 502, 503, 504, "N/A", "TIMEOUT"})  # words: no answer came at all
ATTEMPTS = 10
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
_WHILE_LOADING = {"refresh_interval": "-1", "auto_expand_replicas": "false",
                  "number_of_replicas": 0}
DEFAULT_PIPELINE = "search.default_pipeline"


@dataclass(frozen=True, slots=True)
class Load:
    """What one load has done so far, as ``_meta.load`` keeps it.

    ``digest`` stands for everything that the version is made of; ``lines`` is the last line of the
    file that was handled; ``refused`` lists the rows that OpenSearch would not take, as
    (line, reason).
    """

    digest: str
    lines: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)
    is_complete: bool = False


@dataclass(frozen=True, slots=True)
class Version:
    """One index of the alias; ``load`` is None if another program made it.

    ``options`` are the alias's, such as its filter and routing; ``pipeline`` is the default one of
    its searches.
    """

    name: str
    number: int
    load: Load | None
    options: dict[str, Any] = field(default_factory=dict)
    pipeline: str | None = None

    @property
    def writes(self) -> str:
        """Name the alias that it is written through."""
        return f"{self.name}-writes"

    def lost(self) -> UpstreamError:
        """Return the error of a load whose version is gone, or is searched already."""
        return UpstreamError(f"{self.name} was deleted or published while it was filled, as by "
                             "another load of the same alias; load again, one at a time")


class CatalogueVersions:
    """The versions behind (and waiting to get behind) one alias."""

    def __init__(self, client: OpenSearch, alias: str) -> None:
        self._client = client
        self.alias = alias

    def current(self) -> list[Version]:
        """Return the versions that are searched: one, several or none.

        Raises:
            InputError: the alias's name is that of an index.
        """
        try:
            indices = patiently(lambda: self._client.indices.get(index=self.alias))
        except NotFoundError:
            return []
        if self.alias in indices:
            raise InputError(f"{self.alias} is an index, must be an alias or free; "
                             "delete it or choose another name")
        return [self._version(name, body) for name, body in indices.items()]

    def waiting(self, digest: str) -> Version | None:
        """Return the version that a killed load of the same digest left, newer than the current.

        A complete version may have been searched, and changed, before the alias was moved back; so
        may an older one. Neither is ever used again.
        """
        newest = max((version.number for version in self.current()), default=0)
        candidates = [version for version in self._all()
                      if version.load and version.load.digest == digest
                      and not version.load.is_complete and version.number > newest]
        return max(candidates, key=lambda version: version.number, default=None)

    def create(self, body: dict[str, Any], load: Load) -> Version:
        """Make the next version, tuned for filling, with the load's ``_meta``."""
        taken = [*self._all("open,closed"), *self.current()]
        number = 1 + max((version.number for version in taken), default=0)
        name = f"{self.alias}-v{number}"
        settings = body["settings"] | _WHILE_LOADING
        mappings = body["mappings"] | {"_meta": _meta(body["mappings"].get("_meta", {}), load)}
        # Not asked again on a lost answer: the name would be taken, by ourselves or by another.
        version = Version(name, number, load)
        self._client.indices.create(index=name, body={
            "settings": settings, "mappings": mappings, "aliases": {version.writes: {}}})
        return version

    def resume(self, version: Version) -> None:
        """Let a version be written to that an earlier release may have left."""
        self._ask(version, lambda: self._client.indices.put_alias(
            index=version.name, name=version.writes))

    def note(self, version: Version, load: Load) -> None:
        """Write down how far the load is."""
        found = self._ask(version, lambda: self._client.indices.get_mapping(index=version.name))
        meta = _meta(found[version.name]["mappings"].get("_meta", {}), load)
        self._ask(version, lambda: self._client.indices.put_mapping(
            index=version.name, body={"_meta": meta}))

    def count(self, version: Version) -> int:
        """Return the version's documents, all writes included."""
        self._ask(version, lambda: self._client.indices.refresh(index=version.name))
        return int(self._ask(version, lambda: self._client.count(index=version.name))["count"])

    def publish(self, version: Version, settings: dict[str, Any]) -> None:
        """Move the alias to the version, with its filter, routing and default search pipeline.

        The one searched before stays, for open scrolls and for a way back; older ones go.
        ``settings`` are those that the mapping file asks for.

        Raises:
            UpstreamError: the version is gone, or a newer one is searched by now.
            InputError: the alias has several filters, of which one would be lost.
        """
        searched = self.current()
        options = searched[0].options if searched else {}
        if any(other.options != options for other in searched):
            self.drop(version.name)
            raise InputError(f"{self.alias} has another filter or routing for each of "
                             f"{', '.join(other.name for other in searched)}; it was left as it "
                             "was, make them alike and load again")
        newer = max(searched, key=lambda other: other.number, default=version)
        if newer.number > version.number:
            self.drop(version.name)
            raise UpstreamError(f"{self.alias} serves {newer.name} meanwhile, which is newer than "
                                f"{version.name}; that was deleted, load again")
        before = [old.name for old in searched if old.name != version.name]
        for_searches = {name: settings.get(name) for name in _WHILE_LOADING}
        if searched and searched[0].pipeline:
            for_searches[DEFAULT_PIPELINE] = searched[0].pipeline
        self._ask(version, lambda: self._client.indices.put_settings(
            index=version.name, body={"index": for_searches}))
        actions: list[dict[str, Any]] = [
            {"remove": {"index": name, "alias": self.alias}} for name in before]
        actions.append({"add": {"index": version.name, "alias": self.alias, **options}})
        actions.append({"remove": {"index": version.name, "alias": version.writes,
                                   "must_exist": False}})  # the answer may have been lost
        self._ask(version, lambda: self._client.indices.update_aliases(body={"actions": actions}))
        for other in self._all():
            if other.number < version.number and other.name not in before:
                self.drop(other.name)

    def drop(self, name: str) -> None:
        """Delete a version; one that is gone is no error."""
        patiently(lambda: self._client.indices.delete(index=name, ignore_unavailable=True))

    def _ask(self, version: Version, call: Callable[[], T]) -> T:
        """Call patiently; a version that is gone is said to be."""
        try:
            return patiently(call)
        except NotFoundError as error:
            raise version.lost() from error

    def _all(self, states: str = "open") -> list[Version]:
        pattern = re.compile(re.escape(self.alias) + r"-v\d+")
        indices = patiently(lambda: self._client.indices.get(
            index=f"{self.alias}-v*", expand_wildcards=states))
        return [self._version(name, body) for name, body in indices.items()
                if pattern.fullmatch(name)]

    def _version(self, name: str, body: dict[str, Any]) -> Version:
        number = re.fullmatch(re.escape(self.alias) + r"-v(\d+)", name)
        load = body["mappings"].get("_meta", {}).get("load")
        return Version(name, int(number[1]) if number else 0, Load(**load) if load else None,
                       body["aliases"].get(self.alias, {}),
                       body["settings"]["index"].get("search", {}).get("default_pipeline"))


def _meta(meta: dict[str, Any], load: Load) -> dict[str, Any]:
    return meta | {"load": asdict(load)}


def patiently(call: Callable[[], T]) -> T:
    """Call, and call again with growing waits while OpenSearch is overloaded or away.

    Raises:
        UpstreamUnavailable: it still was after ``ATTEMPTS``, some two minutes.
    """
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            pause(attempt, reason)
        try:
            return call()
        except TransportError as error:
            if error.status_code not in RETRIED:
                raise
            reason = str(error)
    raise UpstreamUnavailable(f"opensearch did not take {ATTEMPTS} attempts in a row: {reason}")


def pause(failed: int, reason: str) -> None:
    """Wait after so many failed attempts: half a second after the first, then twice as long after
    each, up to half a minute."""
    wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failed - 1)) * random.uniform(0.75, 1.25)
    log.warning("opensearch did not take a request, trying again",
                extra={"attempt": failed, "wait_s": round(wait, 1), "reason": reason[:200]})
    time.sleep(wait)
