"""What OpenSearch's refusal of a widened request means. Pure; no I/O."""

from __future__ import annotations

import re

_TOO_WIDE = re.compile(
    rb"Result window is too large, from \+ size must be less than or equal to: \[(\d{1,9})\]")
# The same whatever is asked for: who asks, of what, and how busy the node is.
_NOT_ABOUT_THE_BODY = frozenset({401, 403, 404, 405, 429, 502, 503, 504})


def window_limit(body: bytes) -> int | None:
    """Return the index's ``max_result_window`` if that is what the refusal is about."""
    found = _TOO_WIDE.search(body)
    return int(found[1]) if found else None


def may_be_our_doing(status: int) -> bool:
    """Return True if the client's own request might fare otherwise, or fail in other words."""
    return status not in _NOT_ABOUT_THE_BODY
