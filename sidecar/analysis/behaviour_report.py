"""What shoppers do, as one page: basics, trajectories, association, clusters.

``findings`` works everything out as plain data, ``behaviour_page`` draws it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sidecar.analysis.basics import basics
from sidecar.analysis.charts import bars, columns, heat, lines, number
from sidecar.analysis.clusters import clusters, segments
from sidecar.analysis.page import HtmlPage, figure, heading, prose, table
from sidecar.analysis.pairs import SURE, find_pairs, next_visit_pairs
from sidecar.analysis.shop import Shop
from sidecar.analysis.trajectories import trajectories
from sidecar.ranking.ranker import Ranker
from sidecar.records import IntArray

Findings = Mapping[str, Any]
MAPPED = ("widest category", "brand")  # groupings few enough for a matrix
SHOWN = 15  # rows of a table on the page; the JSON has more


def findings(shop: Shop, ranker: Ranker | None = None,
             attributes: Mapping[str, Mapping[str, Any]] | None = None, seed: int = 0,
             ) -> dict[str, Any]:
    """Return every finding: ``basics``, ``trajectories``, ``association`` in a visit,
    ``succession`` from visit to visit (each by grouping, and ``item``), ``segments`` where there is
    a ranker, and ``clusters``.

    Trajectories follow all positive events; only strong events count as taken, together or next.
    """
    log = shop.log
    ways, taken = _states(shop, log.is_positive()), _states(shop, shop.strong())
    names = {name: group.names for name, group in shop.groupings.items()} | {"item": shop.titles}
    return {
        "basics": basics(shop),
        "trajectories": {name: trajectories(log, state, names[name], are_items=name == "item")
                         for name, state in ways.items()},
        "association": {name: find_pairs(log.visit, state, names[name])
                        for name, state in taken.items()},
        "succession": {name: next_visit_pairs(log, state, names[name])
                       for name, state in taken.items()},
        **({"segments": segments(shop, ranker, attributes or {}, seed)} if ranker else {}),
        "clusters": clusters(shop, ranker, attributes or {}, seed),
    }


def _states(shop: Shop, chosen: npt.NDArray[np.bool_]) -> dict[str, IntArray]:
    """Return by grouping, and for ``item``, each event's group; -1 for those not chosen."""
    of_events = {name: group.of_events(shop.log) for name, group in shop.groupings.items()}
    of_events["item"] = shop.log.item.astype(np.int64)
    return {name: np.where(chosen, group, -1) for name, group in of_events.items()}


def behaviour_page(found: Findings, title: str) -> str:
    """Return the HTML document for ``findings``'."""
    told = found["basics"]
    period = f" from {told['first']} to {told['last']}" if told["first"] else ""
    page = HtmlPage(title, f"{told['events']:,} events of {told['users']:,} users in "
                           f"{told['visits']:,} visits{period}; {told['items_taken']:,} of "
                           f"{told['items']:,} items were taken.")
    _basics(page, told)
    for name, ways in found["trajectories"].items():
        _trajectories(page, name, ways)
    _association(page, "Association", found["association"], (
        "Taken in the same visit. Support: share of visits with both. Confidence: share of the "
        "visits with the one that also have the other."))
    _association(page, "Next visit", found["succession"], (
        "b taken in the user's visit after one with a. Support: share of followed visits. a → b: "
        "share of the visits with a that b follows; b → a: share of the visits with b that come "
        "after one with a."))
    if "segments" in found:
        _clusters(page, "Clusters that the model ranks by", found["segments"], (
            "Their number was chosen when the model was trained, by what predicted best what users "
            "took next, as below."))
    _clusters(page, "Clusters", found["clusters"], (
        "The number of clusters is chosen by prediction: by the log-likelihood of what users took "
        "in the last fifth of the log, under what other users of their clusters took before; the "
        "fewest within one standard error of the best."))
    return page.html()


def _basics(page: HtmlPage, told: Findings) -> None:
    tail, between = told["tail"], told["gaps"]
    facts = [["events", number(told["events"])], ["users", number(told["users"])],
             ["visits", number(told["visits"])], ["items", number(told["items"])],
             ["events on items that the catalogue lacks", number(told["unknown_items"])],
             [f"strong events ({', '.join(told['strong_kinds']) or 'none'})",
              number(told["strong_events"])],
             ["of these, taken again by the same user", _percent(told["repeat_share"])],
             ["median days between a user's visits", _number(between["median_days"])],
             ["Gini coefficient of items", _number(tail["gini"])],
             ["share of the most taken 1 % of items", _percent(tail["top_1_percent"])],
             ["share of the most taken 10 %", _percent(tail["top_10_percent"])]]
    page.section("Basics", table(["", ""], facts), heading("Events of each kind"),
                 figure(bars([(kind, float(n)) for kind, n in told["kinds"].items()]), "Counts."))
    days = told["days"]
    page.section("Days", figure(
        lines({kind: [(float(k), float(n)) for k, n in enumerate(counts)]
               for kind, counts in days["kinds"].items()},
              x_label=f"days since {days['first']}", y_label="events"), "Events a day."))
    page.section("Returning", figure(
        columns([(name, float(n)) for name, n in between["histogram"]],
                x_label="days to the user's next visit", y_label="visits"),
        "How long until a user's next visit with a strong event."))
    page.section("Long tail", figure(
        lines({"items": tail["curve"]} if tail["curve"] else {}, diagonal=True,
              x_label="share of items, least taken first", y_label="share of events"),
        "Lorenz curve; on the dashed line all items would be taken equally often."))
    page.section("Funnel", prose(
        "Stages that the log holds, and which share of the visits with the stage before also "
        "have this one."), table(
            ["stage", "events", "users", "visits", "of the stage before"],
            [[s["stage"], number(s["events"]), number(s["users"]), number(s["visits"]),
              _percent(s["passed"])] for s in told["funnel"]]))
    missing = told["missing"]
    page.section("Missing values", *(part for name in ("catalogue", "events") for part in (
        heading(name.capitalize()),
        table(["column", "without a value"],
              [[column, _percent(share)] for column, share in missing[name].items()]))))


def _trajectories(page: HtmlPage, name: str, ways: Findings) -> None:
    parts = [prose(f"States: {name}. Probability: of going there next, from here. Lift: how much "
                   "more often than if events were independent of each other; p: binomial test, "
                   "times the number of transitions looked at; told as above chance are those "
                   f"below {SURE}. Visit to visit, a visit counts as the state that "
                   "most of its events are in; within a visit, only events with times of their "
                   "own make a path, and staying is no step.")]
    for way, chain in ways.items():
        parts.append(heading(f"{way.capitalize()}: {chain['steps']:,} steps"))
        if not chain["steps"]:
            parts.append(table([], []))
            continue
        matrix = chain["matrix"]
        if name in MAPPED or len(matrix["names"]) <= 5:
            parts.append(figure(heat(matrix["names"], matrix["names"], matrix["probability"]),
                                "Probability of the next state (column) from each state (row)."))
        for caption, key in (("Most frequent transitions", "transitions"),
                             ("Transitions most above chance, seen at least "
                              f"{chain['lift_floor']} times", "by_lift")):
            parts += [heading(caption), table(
                ["from", "to", "times", "share", "probability", "lift",
                 *(["p"] if key == "by_lift" else [])],
                [[t["from"], t["to"], number(t["count"]), _percent(t["share"]),
                  _percent(t["probability"]), number(t["lift"], 1),
                  *([f"{t['p']:.1g}"] if "p" in t else [])]
                 for t in chain[key][:SHOWN]], words=2)]
        parts += [heading("Most common paths of three"), table(
            ["first", "second", "third", "times", "share"],
            [[*p["path"], number(p["count"]), _percent(p["share"], 2)]
             for p in chain["paths"][:SHOWN]], words=3)]
        for caption, key in (("Where walks begin", "entries"), ("Where walks end", "exits")):
            parts += [heading(caption), table(
                ["state", "walks", "share", "lift"],
                [[e["state"], number(e["count"]), _percent(e["share"]), number(e["lift"], 2)]
                 for e in chain[key][:8]])]
    page.section(f"Trajectories: {name}", *parts)


def _association(page: HtmlPage, title: str, found: Findings, lead: str) -> None:
    parts = [prose(lead + " Lift: how much more often than if the two were independent. p: "
                   "Fisher's exact test, times the number of pairs looked at; told are pairs "
                   f"below {SURE}.")]
    for name, pairs in found.items():
        parts += [heading(f"Pairs: {name}"), prose(
            f"{pairs['pairs']:,} pairs share at least {pairs['support_floor']} of "
            f"{pairs['visits']:,} visits.")]
        for caption, key in (("Greatest lift", "by_lift"), ("Greatest support", "by_support")):
            parts += [heading(caption), _pairs(pairs[key][:SHOWN])]
    page.section(title, *parts)


def _pairs(pairs: Sequence[Findings]) -> str:
    return table(["a", "b", "visits", "support", "a → b", "b → a", "lift", "p"],
                 [[p["a"], p["b"], number(p["visits"]), _percent(p["support"], 2),
                   _percent(p["confidence_ab"]), _percent(p["confidence_ba"]),
                   number(p["lift"], 1), f"{p['p']:.1g}"] for p in pairs], words=2)


def _clusters(page: HtmlPage, title: str, found: Findings, lead: str) -> None:
    groups, choices = found["clusters"], found["choices"]
    parts = [prose(f"Users in the space of {found['space']}. {lead}")]
    if choices or not groups:
        parts.append(figure(bars([(f"{c['size']} clusters", c["gain"]) for c in choices], digits=4,
                                 intervals=[(c["gain"] - c["error"], c["gain"] + c["error"])
                                            for c in choices]),
                            "Gain over one cluster in nats an item, ± one standard error."))
    if not groups:
        parts.append(prose("No clusters: too few users or events, or none that predict better "
                           "than the shop as a whole."))
    else:
        parts.append(table(
            ["cluster", "users", "share", "median days since the last event", "median visits",
             "median spend"],
            [[str(g["cluster"]), number(g["users"]), _percent(g["share"]),
              _number(g["median_days_since_last"]), _number(g["median_visits"]),
              _number(g["median_spend"], 2)] for g in groups]))
        points: dict[str, list[tuple[float, float]]] = {
            f"cluster {g['cluster']}": [] for g in groups}
        for x, y, k in found["map"]:
            points[f"cluster {k}"].append((x, y))
        parts.append(figure(lines(points, x_label="first direction", y_label="second direction",
                                  dots=True, from_zero=False),
                            "A sample of users, by the two main directions of their vectors."))
        parts += [part for g in groups for part in _marks(g)]
    for told in found["attributes"]:
        parts += [heading(f"{told['attribute']}: Cramér's V {told['cramers_v']:.3f}, "
                          f"p {told['p']:.1g}"), table(
            ["value", "all", *(f"cluster {k + 1}" for k in range(len(told["share"])))],
            [[value, _percent(told["share_of_all"][v]),
              *(_percent(share and share[v]) for share in told["share"])]
             for v, value in enumerate(told["values"])])]
    page.section(title, *parts)


def _marks(group: Findings) -> list[str]:
    parts = [heading(f"Cluster {group['cluster']}: {group['users']:,} users, "
                     f"{group['share']:.0%} of all")]
    for name, marks in group["marks"].items():
        if marks:
            parts.append(table(
                [f"{name} that marks it", "users", "share", "of all users", "lift"],
                [[m["name"], number(m["users"]), _percent(m["share"]),
                  _percent(m["share_of_all"]), number(m["lift"], 2)] for m in marks[:8]]))
    if group.get("raised"):
        parts.append(table(["item that the model raises for it", "lift"],
                           [[m["name"], number(m["lift"], 2)] for m in group["raised"][:8]]))
    return parts


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else number(value, digits)


def _percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}%}"
