"""An index of the sidecar's own, made from ``mappings/`` when it is first written to.

Left to OpenSearch, the first document would make an index that guesses its mapping, indexes what
nobody searches, and refuses the next client's spelling of the same field.
"""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from sidecar.errors import UpstreamError
from sidecar.records import HttpRequest, HttpResponse
from sidecar.stores.mappings import mapping
from sidecar.stores.upstream import Upstream


class OwnIndex:
    """An index, or alias, that is there from the first ``ensure`` on."""

    def __init__(self, upstream: Upstream, name: str, mapping: str) -> None:
        """Remember the name, and ``mapping``, the file under ``mappings/`` without its ending."""
        self.name = name
        self._upstream = upstream
        self._mapping = mapping
        self._is_there = False

    def ensure(self) -> None:
        """Make the index if it is absent; asks once a process. Others may make it meanwhile.

        Raises:
            UpstreamError: OpenSearch could not be asked, or did not make it.
        """
        if self._is_there:
            return
        if self._ask("HEAD").status == 404:
            self._create()
        self._is_there = True

    def _create(self) -> None:
        response = self._ask("PUT", msgspec.json.encode(mapping(self._mapping)))
        if response.status >= 300 and b"resource_already_exists_exception" not in response.body:
            raise UpstreamError(
                f"index {self.name} is absent and was not made: opensearch answered "
                f"{response.status} {response.body[:300].decode('utf-8', 'replace')}; make it from "
                f"mappings/{self._mapping}.json")

    def _ask(self, method: str, body: bytes | None = None) -> HttpResponse:
        headers = (*self._upstream.own_headers, ("Content-Type", "application/json"))
        request = HttpRequest(method, "/" + quote(self.name, safe=""), headers, body)
        return self._upstream.fetch(request, idempotent=True)
