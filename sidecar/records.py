"""Records that several packages share: events, histories, states, candidates, rankings.

Records are frozen and slotted, and have no behaviour beyond their own shape; no I/O, no torch.
Times are seconds since 1970-01-01 UTC as float; item and user ids are non-empty strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]


class SkipReason(StrEnum):
    """Why a search came back in the engine's order; the WORD of ``X-Personalize-Status``."""

    DISABLED = "disabled"
    ANONYMOUS = "anonymous"
    NO_HISTORY = "no_history"
    NO_MODEL = "no_model"
    GATED = "gated"  # neither order of this model beat the engine's on the held-out lists
    SORT = "sort"
    SCROLL = "scroll"
    SEARCH_AFTER = "search_after"
    SLICE = "slice"
    SIZE_ZERO = "size_zero"
    BEYOND_WINDOW = "beyond_window"
    FORMAT = "format"  # CBOR, SMILE, YAML: passed through, not decoded
    UNREADABLE = "unreadable"  # the body is not JSON that the sidecar can read
    NOT_A_SEARCH = "not_a_search"
    NO_HITS = "no_hits"
    UNKNOWN_ITEMS = "unknown_items"  # no hit is of the catalogue: a search of something else
    NO_IDS = "no_ids"  # the hits carry no _id, and no doc value stands for it
    FILTER_PATH = "filter_path"  # leaves no hits, or hides their ids behind a wildcard
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"  # history or ranking missed the deadline
    STATE_UNAVAILABLE = "state_unavailable"
    STATE_BEHIND = "state_behind"  # X-Personalize-State asked for a version not yet written
    RANKING_ERROR = "ranking_error"
    OVERLOAD = "overload"


LONGEST_ID_BYTES = 512  # of users, items and events: OpenSearch's limit of an _id
NEVER_WRITTEN = -1  # stands for the version of a state that is not there


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a shopper did. ``item_id`` is None for a search, ``ts`` None when unknown."""

    user_id: str
    event: str
    item_id: str | None = None
    ts: float | None = None
    query: str | None = None
    event_id: str | None = None
    session_id: str | None = None
    order_id: str | None = None
    quantity: float | None = None
    unit_price: float | None = None
    position: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class ItemEvent(NamedTuple):
    """What an event says of an item: its id, the event's word, and when, in seconds."""

    item_id: str
    event: str
    ts: float


@dataclass(frozen=True, slots=True)
class History:
    """A user's kept events, oldest first, as columns of one length n (n may be 0)."""

    item_ids: tuple[str | None, ...] = ()
    events: tuple[str, ...] = ()
    ts: tuple[float, ...] = ()
    queries: tuple[str | None, ...] = ()
    event_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.events)

    def take(self, places: slice | Sequence[int]) -> History:
        """Return the events at some places, in the order of these."""
        columns = (self.item_ids, self.events, self.ts, self.queries, self.event_ids)
        if isinstance(places, slice):
            return History(*(column[places] for column in columns))  # type: ignore[arg-type]
        return History(*(tuple(column[k] for k in places) for column in columns))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Case:
    """One search of a known user with what was bought afterwards; candidates in engine order.

    Where the history came without times, ``is_timed`` is False and its times are made up.
    """

    case_id: str
    user_id: str
    query: str
    ts: float
    history: History
    candidates: tuple[str, ...]
    bm25: tuple[float, ...]
    relevant: tuple[str, ...]
    in_candidates: bool
    repeat: bool
    is_timed: bool = True


@dataclass(frozen=True, slots=True)
class UserState:
    """What is known of one user: kept history and the encoder's hidden state after it.

    ``hidden`` has shape (layers + 1, width), its last row being the instant of the last event (see
    ``ranking.stepper``), or is None when no model has stepped yet;
    ``model_version`` names the model that produced it. ``event_count`` counts every event ever
    taken, kept or not. ``version`` is the document's ``_seq_no`` (NEVER_WRITTEN: none yet),
    ``primary_term`` goes with it. ``memo`` is for a ranker to keep what it has worked out from this
    very state: a state that is read again unchanged brings it along. It is never stored, may be
    filled by several threads, and is empty in a copy.
    """

    user_id: str
    history: History = field(default_factory=History)
    hidden: FloatArray | None = None
    model_version: str | None = None
    event_count: int = 0
    version: int = NEVER_WRITTEN
    primary_term: int = 0
    memo: dict[str, Any] = field(init=False, default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class QueryContext:
    """Who searches, for what, and how the operator or the request wants it ranked.

    ``weight`` of the personal part and ``diversity`` of the page lie in 0 to 1. ``attributes`` hold
    what is known of a user besides events, column → value.
    """

    user_id: str | None
    query: str | None
    now: float
    session_id: str | None = None
    weight: float = 1.0
    explain: bool = False
    min_state: int | None = None
    diversity: float = 0.0
    attributes: Mapping[str, Any] = field(default_factory=dict)


class PackedIds(Sequence[str]):
    """K ids as slices of one buffer; an id becomes text only when it is read.

    ``spans`` (K, 2) are [start, end) of UTF-8 in ``buffer``.
    """

    __slots__ = ("buffer", "spans")

    def __init__(self, buffer: bytes, spans: npt.NDArray[np.int32]) -> None:
        self.buffer = buffer
        self.spans = spans

    def __len__(self) -> int:
        return len(self.spans)

    @overload
    def __getitem__(self, position: int) -> str: ...

    @overload
    def __getitem__(self, position: slice) -> PackedIds: ...

    def __getitem__(self, position: int | slice) -> str | PackedIds:
        if isinstance(position, slice):
            return PackedIds(self.buffer, self.spans[position])
        start, end = self.spans[position].tolist()
        return self.buffer[start:end].decode()

    def __iter__(self) -> Iterator[str]:
        return (self.buffer[start:end].decode() for start, end in self.spans.tolist())


@dataclass(frozen=True, slots=True)
class Candidates:
    """The window's hits in engine order: ids (K), engine scores (K; NaN where a hit has none)."""

    item_ids: Sequence[str]
    engine_scores: FloatArray

    def __len__(self) -> int:
        return len(self.item_ids)


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order over K candidates.

    ``order`` (K) holds candidate positions, best first; ``scores`` (K) the blended scores, aligned
    with the candidates; ``parts`` maps each signal's name to its part (K), whose sum over names is
    ``scores`` to rounding. ``reasons`` (K, only when explained) names the events behind each score.
    """

    order: IntArray
    scores: FloatArray
    parts: Mapping[str, FloatArray] = field(default_factory=dict)
    reasons: Sequence[tuple[str, ...]] = ()
    state_version: int = NEVER_WRITTEN
    model_version: str = ""


Headers = tuple[tuple[str, str], ...]  # names as they came, in order, repeats kept


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request as it goes over the wire, less what belongs to one connection (Host, framing).

    ``target`` is path and query, percent-encoded as it came. A body that is an iterator is sent as
    it is produced: under the Content-Length in ``headers`` if there is one, else chunked.
    """

    method: str
    target: str
    headers: Headers = ()
    body: bytes | Iterator[bytes] | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer; ``body`` holds the bytes as they came, still compressed if they were."""

    status: int
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """An answer whose body is still on its way; close it unless all ``chunks`` were read."""

    status: int
    headers: Headers
    chunks: Iterator[bytes]
