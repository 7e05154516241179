"""The products in OpenSearch: which of them changed since the last look?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.settings import Settings
from sidecar.stores.changes import Hit, ShardReader
from sidecar.stores.file_rows import item
from sidecar.stores.upstream import Upstream

log = logging.getLogger(__name__)


class ProductChanges(ShardReader):
    """Reads the catalogue, then its changes; one reader, used by one thread at a time."""

    def __init__(self, settings: Settings, upstream: Upstream) -> None:
        super().__init__(upstream, settings.products_index, {"excludes": ["item_vector"]})

    def poll(self) -> Iterator[list[Mapping[str, Any]]]:
        """Yield batches of catalogue rows changed since the last poll; the first time, all rows.

        A row is in the loader's normal form (``files.read_catalogue``); a product that is none is
        left out and logged. A batch counts as read once the next is asked for, so what a caller
        failed on comes again.

        Raises:
            UpstreamError: the index could not be asked.
        """
        for page in self.pages():
            yield _rows(page)


def _rows(hits: Sequence[Hit]) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = []
    reason = ""
    for hit in hits:
        try:
            rows.append(item({**hit.source, "item_id": hit.id}))
        except ValueError as error:
            reason = str(error)
    if reason:
        log.warning("products are not as a catalogue row must be and were left out",
                    extra={"products": len(hits) - len(rows), "last_reason": reason})
    return rows
