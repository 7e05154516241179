"""What to do with one search: pass it through, with a reason, or reorder a window of it.

The rules are those of README.md's table of what a client may do, read from the request alone. If a
parameter and the body disagree, the parameter counts, as in OpenSearch. Pure; no I/O.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

from sidecar.errors import UnreadableError
from sidecar.records import HttpRequest, QueryContext, SkipReason
from sidecar.search import filter_paths
from sidecar.search.controls import Controls, own_sections, read_controls
from sidecar.search.filter_paths import HitFilter
from sidecar.search.query_texts import query_text
from sidecar.search.requests import SearchRequest, take_apart, without_controls
from sidecar.search.targets import Target, parse
from sidecar.settings import Settings

PREFERENCES = 4096  # users whose preference is kept worked out
DEFAULT_SIZE = 10
# With a preference added: OpenSearch takes request lines of 4,096 bytes, in which a method, a
# version and perhaps a node's path prefix stand too.
LONGEST_TARGET = 4_000
_NUMBER = re.compile(r"[-+.0-9eE]+")  # Python also reads 1_0, blanks and the digits of any script
DEFAULT_RESCORE_WINDOW = 10  # OpenSearch's, where a rescore names none
HIT_KEYS = ("_index", "_id", "_score")  # what has to be seen of a hit


class Window(NamedTuple):
    """The page asked for (``first``, ``size``) and how many hits from the top are reordered."""

    first: int
    size: int
    hits: int

    @property
    def needed(self) -> int:
        """Return how many hits from the top cover both window and page."""
        return max(self.hits, self.first + self.size)


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """One search: what it asked of the sidecar, and what the sidecar is going to do.

    ``skip`` is None exactly if ``search``, ``window`` and ``context`` are there. ``request`` is
    what OpenSearch gets when the search passes through.
    """

    request: HttpRequest
    skip: SkipReason | None
    controls: Controls | None = None
    search: SearchRequest | None = None
    window: Window | None = None
    context: QueryContext | None = None
    hit_filter: HitFilter | None = None


def plan_search(request: HttpRequest, settings: Settings, now: float, *,
                is_template: bool = False) -> SearchPlan:
    """Decide what to do with a search request, whose body is not compressed.

    Args:
        request: as the client sent it.
        settings: defaults and limits.
        now: seconds since 1970, handed on to the ranking.
        is_template: the body is the rendering of a template that the client sent.

    Raises:
        ControlError: a personalization control with a value that it cannot have.
    """
    target = parse(request.target)
    if is_other_format(request, target):
        return SearchPlan(without_controls(request), SkipReason.FORMAT)
    try:
        search = take_apart(request, target, own=own_sections(settings), is_template=is_template)
        controls = read_controls(request.headers, target, search.ext, settings)
        return _plan(search, controls, settings, now)
    except UnreadableError:
        return SearchPlan(without_controls(request), SkipReason.UNREADABLE)


def _plan(search: SearchRequest, controls: Controls, settings: Settings,
          now: float) -> SearchPlan:
    skip = unwanted(controls, settings) or _unfit(search)
    if skip is not None:
        return SearchPlan(search.untouched(), skip, controls, search)
    window = _window(search, controls.window, settings.item_id_field)
    text = search.target.get("filter_path")
    hit_filter = filter_paths.widen(text, HIT_KEYS) if text else None
    if window.size == 0:
        skip = SkipReason.SIZE_ZERO
    elif window.first >= window.hits:
        skip = SkipReason.BEYOND_WINDOW
    elif text and (hit_filter is None or not filter_paths.shows_hits(text)):
        skip = SkipReason.FILTER_PATH
    if skip is None or skip is SkipReason.BEYOND_WINDOW:
        search = with_user_preference(search, controls.user_id)
    context = QueryContext(
        user_id=controls.user_id,
        query=query_text(search.get("query"), search.ext, search.target.get("q")),
        now=now, session_id=controls.session_id, weight=controls.weight,
        explain=controls.explain, min_state=controls.min_state, diversity=controls.diversity,
        attributes=controls.attributes)
    return SearchPlan(search.untouched(), skip, controls, search, window, context, hit_filter)


def with_smaller_window(plan: SearchPlan, limit: int) -> SearchPlan:
    """Return the plan with at most ``limit`` hits reordered: an index allows no wider fetch."""
    assert plan.window is not None
    window = plan.window._replace(hits=min(plan.window.hits, limit))
    skip = SkipReason.BEYOND_WINDOW if window.first >= window.hits else None
    return replace(plan, window=window, skip=skip)


def with_user_preference(search: SearchRequest, user_id: str | None) -> SearchRequest:
    """Let one user's searches go to the same shard copies, so that replicas keep equal scores in
    one order from page to page. A client's own preference stays, and so does a target that would
    become too long for OpenSearch.
    """
    if user_id is None or "preference" in search.target or "pit" in search.members:
        return search
    preferring = search.with_parameter("preference", _preference(user_id))
    return preferring if len(str(preferring.target)) <= LONGEST_TARGET else search


@lru_cache(PREFERENCES)
def _preference(user_id: str) -> str:
    digest = hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"user-{digest}"


def is_other_format(request: HttpRequest, target: Target) -> bool:
    """Return True for CBOR, SMILE and YAML, going in or coming out, and for a body without a
    Content-Type, which OpenSearch refuses. If no other format is asked for, it answers in the
    format of the Content-Type, even of a request without a body."""
    wanted = target.get("format")
    if wanted is not None and wanted.lower() != "json":
        return True
    is_named = not request.body
    for name, text in request.headers:
        if len(name) not in _FORMAT_LENGTHS:
            continue
        name, kind = name.lower(), text.lower()
        if name == "content-type" and request.body and "json" not in kind:
            return True
        if any(other in kind for other in _OTHER_FORMATS) or (
                name == "accept" and "text/plain" in kind):
            return True
        is_named = is_named or name == "content-type"
    return not is_named


_OTHER_FORMATS = ("yaml", "cbor", "smile")
_FORMAT_LENGTHS = frozenset({len("content-type"), len("accept")})


def unwanted(controls: Controls, settings: Settings) -> SkipReason | None:
    """Return why this search is not to be personalised; None if it is."""
    if not controls.enabled:
        return SkipReason.DISABLED
    is_known = controls.user_id is not None or bool(controls.attributes)
    if not is_known and settings.without_history == "engine":
        return SkipReason.ANONYMOUS
    return None


def _unfit(search: SearchRequest) -> SkipReason | None:
    """Return why the order of these hits is not the sidecar's to change."""
    if "scroll" in search.target:
        return SkipReason.SCROLL
    if "search_after" in search.members:
        return SkipReason.SEARCH_AFTER
    if "slice" in search.members:
        return SkipReason.SLICE
    if not all(_is_by_score(key) for keys in _sorts(search) for key in keys[:1]):
        return SkipReason.SORT
    return None


def _sorts(search: SearchRequest) -> list[list[Any]]:
    """Return the sort keys of body and parameter, each where there are some."""
    sorts: list[list[Any]] = []
    for sort in (search.get("sort"), search.target.get("sort")):
        if isinstance(sort, str) and sort:
            sorts.append(sort.split(","))
        elif isinstance(sort, list):
            sorts.append(sort)
        elif sort:
            sorts.append([sort])
    return sorts


def _tells_hits_apart(key: Any, item_id_field: str) -> bool:
    name = next(iter(key), "") if isinstance(key, dict) else str(key).partition(":")[0]
    return name in ("_id", "_shard_doc", item_id_field)


def _is_by_score(key: Any) -> bool:
    if isinstance(key, dict) and len(key) == 1 and "_score" in key:
        order = key["_score"]
        order = order.get("order", "desc") if isinstance(order, dict) else order
        return isinstance(order, str) and order.lower() == "desc"
    return key in ("_score", "_score:desc")


def _window(search: SearchRequest, wanted: int, item_id_field: str) -> Window:
    """Return page and window.

    If the sort ends in a key that tells hits apart, the client may go on by ``search_after`` from
    the page's last hit. So that hit stays the last, and the hits before it are shown before it.
    """
    if b"null" in (search.members.get("from"), search.members.get("size")):
        raise UnreadableError("from or size is null")
    first = _count(search.target.get("from"), search.get("from"), 0)
    size = _count(search.target.get("size"), search.get("size"), DEFAULT_SIZE)
    limits = [wanted, *_rescore_windows(search.get("rescore"))]
    if any(_tells_hits_apart(keys[-1], item_id_field) for keys in _sorts(search) if keys):
        limits.append(max(0, size - 1))
    return Window(first, size, min(limits))


def _count(parameter: str | None, member: Any, default: int) -> int:
    """Read ``from`` or ``size`` as OpenSearch does: text is a number too, a fraction is cut off."""
    given = default if parameter is None and member is None else (
        member if parameter is None else parameter)
    try:
        count = int(given) if parameter is not None else int(float(given))
    except (ValueError, TypeError, OverflowError):
        raise UnreadableError("from or size is no number") from None
    if isinstance(given, str) and not _NUMBER.fullmatch(given):
        raise UnreadableError("from or size is no number as Java writes it")
    if isinstance(given, bool) or not 0 <= count < 2**31:
        raise UnreadableError("from or size is out of range")
    return count


def _rescore_windows(rescore: Any) -> list[int]:
    """Return each rescorer's window: below it, scores are not comparable with those inside."""
    if rescore is None:
        return []
    rescorers = rescore if isinstance(rescore, list) else [rescore]
    return [_count(None, r.get("window_size") if isinstance(r, dict) else None,
                   DEFAULT_RESCORE_WINDOW) for r in rescorers]
