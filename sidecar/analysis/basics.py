"""How much, how often, how evenly, how completely: the figures that come before any model."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.analysis.shop import EVENT_COLUMNS, Shop
from sidecar.ranking.kinds import meaning
from sidecar.ranking.statistics import DAY_S

Findings = dict[str, Any]
GAP_EDGES = (0, 1, 2, 3, 5, 7, 10, 14, 21, 30, 45, 60, 90, 180, 10**6)  # days
STAGES = (("search", ("search",)), ("impression", ("impression",)),
          ("view", ("view", "click")), ("cart", ("add_to_cart",)), ("purchase", ("purchase",)))


def basics(shop: Shop) -> Findings:
    """Return counts, days, the long tail, repeats, gaps between visits, funnel, missing values."""
    log, strong = shop.log, shop.strong()
    items = np.bincount(log.item[strong], minlength=len(shop.titles))
    return {
        "events": len(log), "users": len(np.unique(log.user)),
        "visits": len(np.unique(log.visit)), "items": len(shop.titles),
        "items_taken": int((items > 0).sum()), "unknown_items": log.unknown_items,
        "kinds": {kind: int((log.kind == code).sum()) for code, kind in enumerate(log.kinds)},
        "strong_kinds": sorted(log.target_kinds()), "strong_events": int(strong.sum()),
        "first": _date(log.ts[0]) if len(log) and log.has_times else None,
        "last": _date(log.ts[-1]) if len(log) and log.has_times else None,
        "days": _days(shop), "tail": long_tail(items), "repeat_share": repeat_share(shop, strong),
        "gaps": gaps(shop, strong), "funnel": funnel(shop), "missing": _missing(shop),
    }


def long_tail(counts: npt.NDArray[np.integer]) -> Findings:
    """Return how unevenly items are taken: Gini coefficient over all items (0: evenly, 1: all of
    one), the share that the most taken 1 % and 10 % have, and the Lorenz curve."""
    total, size = int(counts.sum()), len(counts)
    if not total:
        return {"gini": None, "top_1_percent": None, "top_10_percent": None, "curve": []}
    ordered = np.sort(counts).astype(np.float64)
    share = np.cumsum(ordered) / total
    gini = 1.0 - 2.0 * float(share.sum()) / size + 1.0 / size
    points = np.unique(np.linspace(0, size - 1, 60).astype(np.int64))
    return {"gini": gini,
            **{f"top_{percent}_percent": float(ordered[size - max(1, size * percent // 100):].sum()
                                               / total) for percent in (1, 10)},
            "curve": [(0.0, 0.0), *((float((k + 1) / size), float(share[k])) for k in points)]}


def repeat_share(shop: Shop, strong: npt.NDArray[np.bool_]) -> float | None:
    """Return the share of strong events whose user took the item in an earlier visit."""
    log = shop.log
    if not strong.any():
        return None
    user, item, visit = log.user[strong], log.item[strong], log.visit[strong]
    pair = user.astype(np.int64) * max(len(shop.titles), 1) + item
    _, first, inverse = np.unique(pair, return_index=True, return_inverse=True)
    return float((visit != visit[first[inverse]]).mean())


def gaps(shop: Shop, strong: npt.NDArray[np.bool_]) -> Findings:
    """Return days between one user's visits with a strong event: median, mean, histogram."""
    log = shop.log
    visits, first = np.unique(log.visit[strong], return_index=True)
    user, ts = log.user[strong][first], log.ts[strong][first]
    order = np.lexsort((ts, user))
    same = user[order][1:] == user[order][:-1]
    days = (np.diff(ts[order]) / DAY_S)[same]
    if not len(days) or not log.has_times:
        return {"visits": len(visits), "median_days": None, "mean_days": None, "histogram": []}
    counts, _ = np.histogram(days, GAP_EDGES)
    names = [*(f"{low}–{high}" for low, high in pairwise(GAP_EDGES[:-1])),
             f"{GAP_EDGES[-2]}+"]
    return {"visits": len(visits), "median_days": float(np.median(days)),
            "mean_days": float(days.mean()),
            "histogram": list(zip(names, counts.tolist(), strict=True))}


def funnel(shop: Shop) -> list[Findings]:
    """Return the logged stages from search to purchase: events, users and visits of each, and the
    share of the stage before's visits that also hold this one."""
    log, found = shop.log, []
    before: npt.NDArray[np.integer] | None = None
    for stage, words in STAGES:
        of_stage = np.array([meaning(kind) in words for kind in log.kinds], bool)
        chosen = of_stage[log.kind] if len(log) else np.zeros(0, bool)
        if not chosen.any():
            continue
        visits = np.unique(log.visit[chosen])
        passed = None if before is None else float(np.isin(before, visits).mean())
        found.append({"stage": stage, "events": int(chosen.sum()), "visits": len(visits),
                      "users": len(np.unique(log.user[chosen])), "passed": passed})
        before = visits
    return found


def _days(shop: Shop) -> Findings:
    """Return the first day (ISO) and events of each kind a day from it, most frequent first."""
    log = shop.log
    if not len(log) or not log.has_times:
        return {"first": None, "kinds": {}}
    day = (log.ts // DAY_S).astype(np.int64)
    start, length = int(day[0]), int(day[-1] - day[0]) + 1
    if length > 20_000:  # times that are no dates
        return {"first": None, "kinds": {}}
    kinds = {kind: np.bincount(day[log.kind == code] - start, minlength=length).tolist()
             for code, kind in enumerate(log.kinds)}
    return {"first": _date(start * DAY_S),
            "kinds": dict(sorted(((k, v) for k, v in kinds.items() if any(v)),
                                 key=lambda pair: -sum(pair[1])))}


def _missing(shop: Shop) -> Findings:
    items, events = max(len(shop.titles), 1), max(shop.tally.events, 1)
    return {"catalogue": {c: n / items for c, n in shop.item_missing.items()},
            "events": {c: shop.tally.missing[c] / events for c in EVENT_COLUMNS}}


def _date(ts: float) -> str | None:
    try:
        return datetime.fromtimestamp(float(ts), UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return None
