"""What a personalised search showed, in the form of UBI's query log.

Logged when a request carries ``ext.ubi`` with a query_id: the ids in the order that the client
saw, which is not the engine's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sidecar.search.plans import SearchPlan

_COPIED = ("query_id", "user_query", "client_id", "session_id", "user_id", "application",
           "object_id_field", "query_attributes")


class ShownLog(Protocol):
    """Takes a record without making the search wait."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Queue one record of UBI's query log; drops it when the queue is full."""
        ...


def shown_record(plan: SearchPlan, ids: Sequence[str]) -> dict[str, Any] | None:
    """Return the record of one page; None if the request does not ask for one.

    Args:
        plan: of the search.
        ids: the page's hits in shown order.
    """
    ubi = plan.search.ext.get("ubi") if plan.search is not None else None
    if not isinstance(ubi, Mapping) or not ubi.get("query_id"):
        return None
    record = {name: ubi[name] for name in _COPIED if ubi.get(name) not in (None, "")}
    if plan.context is not None and plan.context.query and "user_query" not in record:
        record["user_query"] = plan.context.query
    return {**record, "query_response_id": str(uuid.uuid4()), "query_response_hit_ids": list(ids)}
