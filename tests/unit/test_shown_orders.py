"""What is logged of an order that was shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.records import HttpRequest
from sidecar.search.plans import plan_search
from sidecar.serving.shown import ShownOrders
from sidecar.settings import Settings


def logged(ubi: dict[str, Any], **headers: str) -> dict[str, Any]:
    """Return the record of one search, without the ids that are made up for each."""
    body = json.dumps({"ext": {"ubi": {"query_id": "q", **ubi}}}).encode()
    sent = (("Content-Type", "application/json"),
            *((name.replace("_", "-"), value) for name, value in headers.items()))
    plan = plan_search(HttpRequest("POST", "/i/_search", sent, body), Settings(), 1.0)
    records: list[dict[str, Any]] = []

    class Log:
        def append(self, record):
            records.append(dict(record))

    ShownOrders(Log(), takes_ubi=True).tell(plan, ["b", "a"], b"{}")
    return records[0]


@pytest.mark.parametrize("user", ["u1", ""])
def test_session_that_a_control_names_is_logged_whoever_searches(user):
    record = logged({}, X_Personalize_User=user, X_Personalize_Session="s1")
    assert record["session_id"] == "s1"
    assert record["query_response_hit_ids"] == ["b", "a"]


@pytest.mark.parametrize("switch", ["on", "off"])
def test_user_that_a_header_names_is_logged_to_be_forgotten_by_whatever_was_served(switch):
    assert logged({}, X_Personalize=switch, X_Personalize_User="u1")["user_id"] == "u1"


def test_session_of_ubis_own_is_kept_and_none_is_made_up():
    assert logged({"session_id": "own"}, X_Personalize_Session="s1")["session_id"] == "own"
    assert "session_id" not in logged({}, X_Personalize_User="u1")
