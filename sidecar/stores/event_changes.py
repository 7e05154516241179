"""The events in OpenSearch: which came since the last look, through any sidecar?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sidecar.records import ItemEvent
from sidecar.settings import Settings
from sidecar.stores.changes import Hit, ShardReader
from sidecar.stores.file_values import seconds
from sidecar.stores.ubi import timestamp
from sidecar.stores.upstream import Upstream

_FIELDS = ["action_name", "timestamp", "event_attributes.object.object_id"]


class EventChanges(ShardReader):
    """Reads the events about items from an instant on; one reader, used by one thread at a time."""

    def __init__(self, settings: Settings, upstream: Upstream, since: float) -> None:
        """Read events of ``since`` (seconds) and later."""
        super().__init__(upstream, settings.events_index, {"includes": _FIELDS},
                         (_from(since),))
        self._polled_at = since

    def poll(self) -> Iterator[list[ItemEvent]]:
        """Yield batches of events written since the last poll, in the order of their writing.

        Of an index that joins the alias later, it yields only events since the last poll: the index
        may be the log itself, reindexed, and a count cannot recognise repetitions. An index that a
        rollover has made holds no older events.

        Raises:
            UpstreamError: the index could not be asked.
        """
        began = time.time()
        for page in self.pages():
            yield [event for event in map(_item_event, page) if event is not None]
        self._polled_at = began

    def _only_when_late(self) -> Sequence[Mapping[str, Any]]:
        return (_from(self._polled_at),)


def _from(instant: float) -> Mapping[str, Any]:
    return {"range": {"timestamp": {"gte": timestamp(instant)}}}


def _item_event(hit: Hit) -> ItemEvent | None:
    """Return what a document says of an item; None if it names none, or no time that can be read:
    other programs write to the index too."""
    source = hit.source
    attributes = source.get("event_attributes")
    item = attributes.get("object") if isinstance(attributes, Mapping) else None
    item_id: Any = item.get("object_id") if isinstance(item, Mapping) else None
    word: Any = source.get("action_name")
    written: Any = source.get("timestamp")
    if item_id in (None, "") or not isinstance(word, str):
        return None
    try:
        ts = seconds(written) if isinstance(written, str) else float(written) / 1000.0
    except (TypeError, ValueError):
        return None
    return ItemEvent(str(item_id), word, ts)
