"""Multi-searches: NDJSON lines in, one answer per line out, each on its own. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

import msgspec

from sidecar.errors import UnreadableError
from sidecar.records import HttpRequest
from sidecar.search import answers, spans
from sidecar.search.targets import Target, parse

MOST_SEARCHES = 200  # beyond, the lines pass through: a window for each would be a burst of work


@dataclass(frozen=True, slots=True)
class LinePair:
    """One search of a multi-search: its header line and its body line, as written."""

    header: bytes
    body: bytes


def read_pairs(body: bytes) -> list[LinePair]:
    """Split a multi-search's body into its searches.

    Raises:
        UnreadableError: the body is not pairs of lines, does not end in a line break, or has too
            many searches, or an empty one (for which OpenSearch refuses all).
    """
    if not body.endswith(b"\n"):
        raise UnreadableError("a multi-search ends with a line break")
    lines = body.split(b"\n")[:-1]
    if lines and not lines[0].strip():
        lines = lines[1:]  # OpenSearch takes a first line that is empty
    if not lines or len(lines) % 2:
        raise UnreadableError("a multi-search consists of pairs of lines")
    if not all(search.strip() for search in lines[1::2]):
        raise UnreadableError("a multi-search with a search that is empty")
    if len(lines) > 2 * MOST_SEARCHES:
        raise UnreadableError(f"a multi-search of more than {MOST_SEARCHES} searches")
    return [LinePair(header, search)
            for header, search in zip(lines[::2], lines[1::2], strict=True)]


def pairs_of(request: HttpRequest) -> list[LinePair]:
    """Return a multi-search's searches.

    Raises:
        UnreadableError: as ``read_pairs``; or its answers cannot be told apart.
    """
    if "filter_path" in parse(request.target) or not isinstance(request.body, bytes):
        raise UnreadableError("answers under a filter_path are not told apart line by line")
    return read_pairs(request.body)


def write_pairs(pairs: Sequence[LinePair]) -> bytes:
    """Return a multi-search's body."""
    return b"".join(pair.header + b"\n" + pair.body + b"\n" for pair in pairs)


def as_search(pair: LinePair, request: HttpRequest, target: Target) -> HttpRequest:
    """Return the search that a pair stands for, under the whole request's headers and controls.

    Raises:
        UnreadableError: its header is not a JSON object.
    """
    header = spans.values(pair.header) if pair.header.strip() else {}
    index = target.index_expression()
    if "index" in header:
        named = spans.decode(header["index"])
        index = quote(",".join(map(str, named)) if isinstance(named, list) else str(named),
                      safe=",*")
    inner = target.with_path(f"/{index}/_search" if index else "/_search")
    for name in ("preference", "search_pipeline"):
        if name in header:
            inner = inner.with_parameter(name, str(spans.decode(header[name])))
    return replace(request, method="POST", target=str(inner), body=pair.body)


def as_pair(search: HttpRequest, pair: LinePair) -> LinePair:
    """Return the pair for a search that was derived from ``pair``."""
    body = search.body if isinstance(search.body, bytes) else pair.body
    preference = parse(search.target).get("preference")
    header = spans.values(pair.header) if pair.header.strip() else {}
    if preference is None or "preference" in header:
        return LinePair(pair.header, body)
    header["preference"] = msgspec.json.encode(preference)
    return LinePair(spans.build(header), body)


@dataclass(frozen=True, slots=True)
class MultiAnswer:
    """A multi-search's answer: the bytes of each search's own, and where they stand."""

    body: bytes
    answers: tuple[bytes, ...]
    start: int
    end: int
    between: bytes

    def with_answers(self, answers: Sequence[bytes]) -> bytes:
        """Return the answer with these in the place of its own."""
        return b"".join((self.body[:self.start], self.between.join(answers), self.body[self.end:]))


def read_multi_answer(body: bytes) -> MultiAnswer:
    """Take a multi-search's answer apart; raises UnreadableError."""
    array = spans.raw_members(body).get("responses")
    if array is None:
        raise UnreadableError("an answer without responses")
    return MultiAnswer(body, spans.elements(array), *answers.place_of_elements(body, array))


def status_of(answer: bytes) -> int:
    """Return the status in one search's answer; 200 where it names none."""
    raw = spans.raw_members(answer).get("status")
    status = 200 if raw is None else spans.decode(bytes(raw))
    return status if isinstance(status, int) else 200
