"""What changed in an index since the last look? Its documents, in the order of their writes.

Every write to a shard takes the next sequence number, whoever made it and whatever it changed, so
``_seq_no`` is a timestamp that no writer can forget. A reader keeps one number per shard and asks
for documents above it. If nothing changed, this is one cheap request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from sidecar.records import HttpRequest, HttpResponse
from sidecar.stores.documents import check, decode_answer
from sidecar.stores.upstream import Upstream

PAGE = 1000  # documents a request: some 300 KB of grocery products, a few ms
_STATS = ("/_stats/docs?level=shards&filter_path=indices.*.uuid,indices.*.shards.*.seq_no,"
          "indices.*.shards.*.routing.primary,indices.*.shards.*.routing.state")
_Queries = Sequence[Mapping[str, Any]]


_UUIDS = "/_settings/index.uuid?filter_path=*.settings.index.uuid"


class _IndexSettings(msgspec.Struct, frozen=True):
    uuid: str


class _Settings(msgspec.Struct, frozen=True):
    index: _IndexSettings


class _Described(msgspec.Struct, frozen=True):
    settings: _Settings


class _SeqNo(msgspec.Struct, frozen=True):
    global_checkpoint: int = -1
    max_seq_no: int = -1


class _Routing(msgspec.Struct, frozen=True):
    primary: bool = False
    state: str = ""


class _Copy(msgspec.Struct, frozen=True):
    routing: _Routing = _Routing()
    seq_no: _SeqNo = _SeqNo()

    @property
    def is_up(self) -> bool:
        """False while it recovers: it may not have all its writes yet."""
        return self.routing.state in ("STARTED", "RELOCATING")


class _Shard(NamedTuple):
    """The name of a shard's index, the number up to which every copy has every write, and the
    highest that was given; -1 for that where the shard is not up."""

    name: str
    until: int
    highest: int


class _Index(msgspec.Struct, frozen=True):
    uuid: str
    shards: dict[str, list[_Copy]] = {}


class _Stats(msgspec.Struct, frozen=True):
    indices: dict[str, _Index] = {}


class Hit(msgspec.Struct, frozen=True):
    """A document as it was when it was read."""

    id: str = msgspec.field(name="_id")
    source: dict[str, Any] = msgspec.field(name="_source")
    sort: tuple[int]


class _Hits(msgspec.Struct, frozen=True):
    hits: list[Hit] = []


class _Page(msgspec.Struct, frozen=True):
    hits: _Hits


_stats_decoder = msgspec.json.Decoder(_Stats)
_uuids_decoder = msgspec.json.Decoder(dict[str, _Described])
_page_decoder = msgspec.json.Decoder(_Page)
_encode = msgspec.json.Encoder().encode


class ShardReader:
    """Reads what an alias's indices hold, then their changes; used by one thread at a time.

    The reader remembers numbers per index, not per alias: when the alias moves to a new version,
    that version is read from its beginning. So is a shard whose numbers fell, as they do when a
    snapshot is restored over an index. Deletions do not show.
    """

    def __init__(self, upstream: Upstream, alias: str, source: Mapping[str, Any],
                 only: Sequence[Mapping[str, Any]] = ()) -> None:
        """Read ``alias``: what ``source`` (``_source`` of a search) names of the documents that
        fit the queries ``only``."""
        self._upstream = upstream
        self._alias = alias
        self._source = source
        self._only = list(only)
        self._headers = (*upstream.own_headers, ("Content-Type", "application/json"))
        self.uuids: Mapping[str, str] = {}
        self._read: dict[tuple[str, str], int] = {}  # (index uuid, shard) → number read up to
        self._late: dict[tuple[str, str], _Queries] = {}  # that of shards not yet read to the end
        # Index uuid → what its documents must fit at first; None until there is an index.
        self._joined: dict[str, _Queries] | None = None

    @property
    def progress(self) -> list[tuple[str, str, int]]:
        """Return how far each shard was read, for ``resume`` of another reader."""
        return [(uuid, shard, number) for (uuid, shard), number in self._read.items()]

    def resume(self, progress: Iterable[tuple[str, str, int]]) -> None:
        """Go on where another reader was."""
        self._read = {(uuid, shard): number for uuid, shard, number in progress}

    def look(self) -> None:
        """Learn the uuids, and read nothing; raises as ``poll``."""
        self._shards()

    def pages(self) -> Iterator[list[Hit]]:
        """Yield documents written since the last time; the first time, all.

        A page counts as read once the next is asked for, so what a caller failed on comes again.

        Raises:
            UpstreamError: the index could not be asked.
        """
        shards = self._shards()
        self._forget_removed({uuid for uuid, _ in shards})
        if not shards:
            return
        if self._joined is None:  # of the first ones, a shard may not be up yet
            self._joined = dict.fromkeys({uuid for uuid, _ in shards} | self._behind_alias(), ())
        for key, shard in shards.items():
            if 0 <= shard.highest < self._read.get(key, -1):
                self._late[key], self._read[key] = self._only_when_late(), -1
            elif key not in self._read:
                self._late[key] = self._joined.setdefault(key[0], self._only_when_late())
                self._read[key] = -1
        for key, shard in shards.items():
            if shard.until > self._read[key]:
                yield from self._changes(shard.name, key, shard.until)
                self._late.pop(key, None)

    def _only_when_late(self) -> _Queries:
        """Return queries that the documents must also match if a shard is read from its beginning
        after others, or itself, were read: it may hold documents that were read before."""
        return ()

    def _forget_removed(self, answering: set[str]) -> None:
        """Forget how far indices were read that the alias has left, so that one that comes back is
        read from its beginning; not of those whose shards are not up yet, after a restart."""
        if all(uuid in answering for uuid, _ in self._read):
            return
        there = answering | self._behind_alias()
        self._read = {key: done for key, done in self._read.items() if key[0] in there}
        self._joined = self._joined and {uuid: only for uuid, only in self._joined.items()
                                         if uuid in there}

    def _behind_alias(self) -> set[str]:
        """Return the uuids of the alias's indices, whether they are up or not."""
        response = self._fetch("GET", self._alias, _UUIDS)
        found = {} if response.status == 404 else decode_answer(_uuids_decoder, response)
        return {index.settings.index.uuid for index in found.values()}

    def _shards(self) -> dict[tuple[str, str], _Shard]:
        response = self._fetch("GET", self._alias, _STATS)
        if response.status == 404:  # there is no such index yet
            self.uuids = {}
            return {}
        stats = decode_answer(_stats_decoder, response)
        self.uuids = {name: index.uuid for name, index in stats.indices.items()}
        return {(index.uuid, shard): _Shard(name, copy.seq_no.global_checkpoint,
                                            copy.seq_no.max_seq_no if copy.is_up else -1)
                for name, index in stats.indices.items()
                for shard, copies in index.shards.items()
                for copy in copies if copy.routing.primary}

    def _changes(self, index: str, key: tuple[str, str],
                 until: int) -> Iterator[list[Hit]]:
        """Yield the documents whose last write is numbered above what was read, up to ``until``.

        A write shows in searches after a refresh only; without one, a late low number could
        appear below a high one that was seen, and be missed. Later writes wait for the next poll.
        """
        check(self._fetch("POST", index, "/_refresh"))
        # On the primary: a replica copied by segments shows writes later than the refresh.
        path = f"/_search?preference=_shards:{key[1]}%7C_primary&allow_partial_search_results=false"
        while True:
            body = _encode({
                "size": PAGE,
                "query": {"bool": {"filter": [
                    {"range": {"_seq_no": {"gt": self._read[key], "lte": until}}},
                    *self._only, *self._late.get(key, ())]}},
                "sort": ["_seq_no"],
                "track_total_hits": False,
                "_source": self._source,
            })
            page = decode_answer(_page_decoder, self._fetch("POST", index, path, body))
            hits = page.hits.hits
            if hits:
                yield hits
                self._read[key] = hits[-1].sort[0]
            if len(hits) < PAGE:
                break
        self._read[key] = until

    def _fetch(self, method: str, index: str, path: str,
               body: bytes | None = None) -> HttpResponse:
        target = f"/{quote(index, safe=',*')}{path}"
        return self._upstream.fetch(HttpRequest(method, target, self._headers, body),
                                    idempotent=True)
