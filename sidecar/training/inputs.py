"""What do a catalogue and a log lack? Takes prices from the events, and warns of the rest."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sidecar.ranking.imputation import LARGEST, interpolated, is_known
from sidecar.ranking.items import COLUMNS, ItemTable
from sidecar.ranking.kinds import STRENGTHS, is_impression, meaning
from sidecar.ranking.vocabulary import column_values
from sidecar.training.event_table import EventTable

log = logging.getLogger(__name__)
MOST_TOLD = 10  # words that a warning names


def prices_paid(rows: Sequence[Mapping[str, Any]], events: EventTable) -> dict[str, float]:
    """Return item id → price at the log's end, for items whose price the catalogue does not tell
    and the events do."""
    unpriced = np.array([row.get("price") is None for row in rows], bool)
    told = (events.item >= 0) & (events.price > 0)
    told[told] = unpriced[events.item[told]]
    if not told.any():
        return {}
    found = interpolated(events.item[told], events.ts[told], events.price[told],
                         float(events.ts[-1]))
    log.info("catalogue has no price for %d items that events tell one of", len(found))
    return {str(rows[item]["item_id"]): price for item, price in found.items()}


def tell_of_catalogue(rows: Sequence[Mapping[str, Any]], prices: Mapping[str, float],
                      table: ItemTable) -> None:
    """Log what is absent or odd, so that nobody wonders why a signal is silent or wrong."""
    for name in ("brand", "categories", "price"):
        if name == "price" and prices:
            continue
        if all(row.get(name) in (None, "", []) for row in rows):
            log.warning("catalogue has no %s: signals that read it are silent", name)
    currencies = sorted({str(row["currency"]) for row in rows if row.get("currency")})
    if len(currencies) > 1:
        log.warning("catalogue has prices in %s: they are compared as they are; give all in one "
                    "currency", ", ".join(currencies))
    for name in COLUMNS:
        values = column_values(rows, name)
        absurd = int((np.isfinite(values) & ~is_known(values)).sum())
        if absurd:
            log.warning("%d items have a %s beyond %g, which counts as none", absurd, name, LARGEST)
    for name, count in table.vocabulary.embeddings.lacking(rows).items():
        if count:
            log.warning("%d of %d items have no vector %s", count, len(rows), name)


def tell_of_events(events: EventTable, *, has_cases: bool) -> None:
    """Log what is absent or odd, as for the catalogue."""
    if not (has_cases or any(map(is_impression, events.kinds))):
        log.info("events tell no impressions and there are no cases: BM25 over the catalogue "
                 "stands in for the engine, also where the model is compared with it")
    if not events.has_times:
        log.warning("events have no times (column ts): file order counts, and rhythms mean nothing")
    if events.unknown_items:
        log.warning("%d events name items that the catalogue lacks", events.unknown_items)
    unknown = [word for word in events.kinds if meaning(word) is None]
    if unknown:
        log.warning("events hold words that count as a view each: %s; known: %s",
                    ", ".join(unknown[:MOST_TOLD]) + (", …" if len(unknown) > MOST_TOLD else ""),
                    ", ".join(STRENGTHS))
