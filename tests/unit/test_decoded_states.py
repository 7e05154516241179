"""States kept decoded: only for the very answer that they came in, and never without bound."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.errors import UpstreamError
from sidecar.records import HttpResponse
from sidecar.stores.states import Decoded, _read_one


def answer(seq_no, events=1):
    columns = {"item_ids": ["a"] * events, "events": ["click"] * events, "ts": [1.0] * events,
               "queries": [None] * events, "event_ids": ["e"] * events}
    return HttpResponse(200, (), msgspec.json.encode({
        "found": True, "_seq_no": seq_no, "_primary_term": 1,
        "_source": {"user_id": "u", "event_count": events, "events": columns}}))


def test_same_answer_is_decoded_once():
    kept = Decoded(100)
    first = _read_one("u", answer(3), kept)
    first.memo["worked out"] = 1
    assert _read_one("u", answer(3), kept).memo == {"worked out": 1}


def test_new_version_is_a_new_state():
    kept = Decoded(100)
    _read_one("u", answer(3), kept).memo["worked out"] = 1
    again = _read_one("u", answer(4), kept)
    assert (again.version, again.memo) == (4, {})


def test_other_content_under_the_same_version_is_a_new_state():
    """An index that was deleted and made anew counts from the beginning."""
    kept = Decoded(100)
    _read_one("u", answer(3, events=1), kept)
    assert len(_read_one("u", answer(3, events=2), kept).history) == 2


def test_no_more_events_are_kept_than_allowed():
    kept = Decoded(20)
    first = _read_one("u", answer(3, events=100), kept)
    assert _read_one("u", answer(3, events=100), kept) is not first
    first = _read_one("v", answer(3, events=2), kept)
    for user in "wxyz":
        _read_one(user, answer(3, events=4), kept)
    assert _read_one("v", answer(3, events=2), kept) is not first


@pytest.mark.parametrize("body", [b"<html>Please log in</html>", b"",
                                  b'{"found": "jane"}', b"\xff"])
def test_answer_that_is_none_of_opensearchs_is_a_failure_of_opensearch(body):
    """A proxy before it has pages of its own, with status 200."""
    with pytest.raises(UpstreamError, match="opensearch answered 200") as told:
        _read_one("u", HttpResponse(200, (), body), Decoded(100))
    assert "jane" not in str(told.value)
