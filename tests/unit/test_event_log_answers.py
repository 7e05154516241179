"""What the event log makes of answers that OpenSearch did not write, or not as expected."""

from __future__ import annotations

import pytest

from sidecar.errors import UpstreamError
from sidecar.records import HttpResponse
from sidecar.stores.event_log import OpenSearchEventLog

FIELDS = b'{"fields":{"user_id":{"keyword":{"type":"keyword","searchable":true}}}}'
DELETED = b'{"took":3,"deleted":2,"failures":[]}'


class Answering:
    """An index that says what the test wants said, a body for each path."""

    def __init__(self, fields, deleted):
        self._bodies = {"_field_caps": fields, "_delete_by_query": deleted, "_refresh": b"{}"}

    def fetch(self, method, path, body=None):
        return HttpResponse(200, (), self._bodies[path[1:].partition("?")[0]])


def forget(fields=FIELDS, deleted=DELETED):
    return OpenSearchEventLog(Answering(fields, deleted), dict).forget("jane")


def test_forgetting_tells_how_many_there_were():
    assert forget() == 2


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b"", b"{}", b'["jane"]', b"\xff",
                                  b'{"fields":"jane","deleted":"jane"}'])
@pytest.mark.parametrize("place", ["fields", "deleted"])
def test_answer_that_is_none_of_opensearchs_is_a_failure_of_opensearch(place, page):
    """A proxy before it has pages of its own, with status 200."""
    with pytest.raises(UpstreamError, match="opensearch answered 200") as told:
        forget(**{place: page})
    assert "jane" not in str(told.value)
