"""An index of the sidecar's own, made from ``mappings/`` when it is first written to.

Without this, the first document would make OpenSearch create an index that guesses its mapping,
indexes what nobody searches, and refuses the next client's spelling of the same field.

The same holds for the first document after the index was deleted. So documents are written to an
alias of the index, and say that it must be an alias (``require_alias``). The alias goes with the
index. OpenSearch then refuses the document instead of making an index of the alias's name, and the
refused writer makes the index again. This costs no extra request.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from urllib.parse import quote

import msgspec

from sidecar.errors import UpstreamError, UpstreamUnavailable
from sidecar.records import HttpRequest, HttpResponse
from sidecar.stores.mappings import mapping
from sidecar.stores.upstream import Upstream

log = logging.getLogger(__name__)

SUFFIX = "-writes"  # of the alias
SHARDS_S = 5  # in which the shards of a new index come up


@dataclass(frozen=True, slots=True)
class Place:
    """Where documents are written to; ``parameters`` go with each bulk request."""

    name: str
    parameters: str = "require_alias=true&"

    @property
    def path(self) -> str:
        """Return the name as a request's path."""
        return "/" + quote(self.name, safe="")


class OwnIndex:
    """An index, or alias, that is there from the first ``place`` on."""

    def __init__(self, upstream: Upstream, name: str, mapping: str) -> None:
        """Remember the name, and ``mapping``, the file under ``mappings/`` without its ending."""
        self.name = name
        self._upstream = upstream
        self._mapping = mapping
        self._place: Place | None = None

    def place(self) -> Place:
        """Return where to write; makes the index if it is absent, as others may meanwhile.

        Asks OpenSearch once per process, and once more after each ``look_again``.

        Raises:
            UpstreamError: OpenSearch could not be asked, or did not make it.
        """
        if self._place is None:
            self._place = self._found()
        return self._place

    def look_again(self) -> None:
        """Forget that the index is there: OpenSearch said that it is not."""
        self._place = None

    def wait_for_shards(self) -> None:
        """Wait until the index, which another process may just be making, can be read; at most
        ``SHARDS_S``, and not where OpenSearch does not let the sidecar ask.

        Raises:
            UpstreamError: OpenSearch could not be asked.
        """
        name = Place(self.name).path
        self._upstream.fetch(HttpRequest(
            "GET", f"/_cluster/health{name}?wait_for_status=yellow&timeout={SHARDS_S}s",
            self._upstream.own_headers, b""), idempotent=True)

    def _found(self) -> Place:
        own, alias = Place(self.name), Place(self.name + SUFFIX)
        if self._is_there(f"/_alias{own.path}"):  # the operator's alias
            return own
        beside = f"{own.path}/_alias{alias.path}"
        if self._is_there(beside):
            return alias
        if not self._is_there(own.path):
            self._create(own.path)
        refused = self._ask("PUT", beside)
        if refused.status < 300:
            return alias
        log.warning("index is written to without an alias, and would come back with a guessed "
                    "mapping if it were deleted", extra={"index": self.name, "alias": alias.name,
                                                         "error": _told(refused)})
        return Place(self.name, "")

    def _create(self, path: str) -> None:
        response = self._ask("PUT", path, msgspec.json.encode(mapping(self._mapping)))
        if response.status >= 300 and b"resource_already_exists_exception" not in response.body:
            raise UpstreamError(
                f"index {self.name} is absent and was not made: opensearch answered "
                f"{_told(response)}; make it from mappings/{self._mapping}.json")

    def _is_there(self, path: str) -> bool:
        return self._ask("HEAD", path).status < 300

    def _ask(self, method: str, path: str, body: bytes | None = None) -> HttpResponse:
        headers = (*self._upstream.own_headers, ("Content-Type", "application/json"))
        response = self._upstream.fetch(HttpRequest(method, path, headers, body), idempotent=True)
        if response.status >= 500 or response.status == 429:
            raise UpstreamUnavailable(f"index {self.name} cannot be looked after: opensearch "
                                      f"answered {_told(response)} to {method} {path}")
        return response


def _told(response: HttpResponse) -> str:
    return f"{response.status} {response.body[:300].decode('utf-8', 'replace')}".rstrip()
