"""What a personalised search showed, in the form of UBI's query log.

If a request carries ``ext.ubi`` with a query_id, the ids are logged in the order that the client
saw, which is not the engine's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sidecar.search.hit_bytes import with_ext
from sidecar.search.plans import SearchPlan

_COPIED = ("query_id", "user_query", "client_id", "session_id", "user_id", "application",
           "object_id_field", "query_attributes")


class ShownLog(Protocol):
    """Takes a record without making the search wait."""

    def append(self, record: Mapping[str, Any]) -> None:
        """Queue one record of UBI's query log; drops it when the queue is full."""
        ...


class ShownOrders:
    """Logs what was shown if a request asks for it, and returns the request's query_id.

    If OpenSearch has the UBI plugin, the plugin answers ``ext.ubi`` and logs what passes through;
    the sidecar adds its own orders. If the sidecar takes ``ext.ubi``, it does both in the plugin's
    place.
    """

    def __init__(self, log: ShownLog | None, *, takes_ubi: bool) -> None:
        self._log = log
        self._takes_ubi = takes_ubi

    def is_due(self, plan: SearchPlan) -> bool:
        """Return True if a search that passes through has to be logged here."""
        return self._takes_ubi and _ubi_of(plan) is not None

    def tell(self, plan: SearchPlan, ids: Sequence[str], body: bytes) -> bytes:
        """Log one page if the request asks for it; return the answer as the client is to get it.

        Args:
            plan: of the search.
            ids: the page's hits in shown order.
            body: the answer.

        Raises:
            UnreadableError: the answer is no JSON object.
        """
        ubi = _ubi_of(plan)
        if ubi is None or not (self._takes_ubi or ubi.get("query_id")):
            return body
        query_id = str(ubi.get("query_id") or uuid.uuid4())
        if self._log is not None:
            self._log.append(_record(plan, ubi, query_id, ids))
        return with_ext(body, "ubi", {"query_id": query_id}) if self._takes_ubi else body


def _ubi_of(plan: SearchPlan) -> Mapping[str, Any] | None:
    ubi = plan.search.ext.get("ubi") if plan.search is not None else None
    return ubi if isinstance(ubi, Mapping) else None


def _record(plan: SearchPlan, ubi: Mapping[str, Any], query_id: str,
            ids: Sequence[str]) -> dict[str, Any]:
    record = {name: ubi[name] for name in _COPIED if ubi.get(name) not in (None, "")}
    if plan.context is not None and plan.context.query and "user_query" not in record:
        record["user_query"] = plan.context.query
    if plan.controls is not None and plan.controls.user_id:  # by which a user is forgotten
        record["user_id"] = plan.controls.user_id
    if plan.controls is not None and plan.controls.session_id:
        record.setdefault("session_id", plan.controls.session_id)
    return {**record, "query_id": query_id, "query_response_id": str(uuid.uuid4()),
            "query_response_hit_ids": list(ids)}
