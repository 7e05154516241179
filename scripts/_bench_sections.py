"""The benchmark's sections: each applies one kind of load and returns a plain report of numbers."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec

from scripts import _bench_stats as stats
from scripts._bench_arms import BASE, DIRECT, EVENT, Arms, click, mixture, requests_per_search, take
from scripts._bench_client import RawConnection, request
from scripts._bench_load import Samples, closed_loop, in_turn, open_loop
from scripts._bench_processes import ProcessGroup, own_cpu_s
from scripts._bench_searches import Log

Report = dict[str, Any]
Say = Callable[[str], None]

EVENT_BATCH = 100
EVENT_USERS = 50


@dataclass(frozen=True, slots=True)
class Bench:
    """What every section works with."""

    arms: Arms
    log: Log
    seed: int
    say: Say

    def groups(self) -> dict[str, ProcessGroup]:
        """Return the processes measured, by role."""
        target = self.arms.target
        return {"sidecar": ProcessGroup(target.sidecar),
                "opensearch": ProcessGroup(target.opensearch)}


def latency(bench: Bench, searches: int, warm_up: int) -> Report:
    """One client, one request at a time, every arm for each search in turn."""
    bench.say(f"latency: {searches} searches, one client, arms in turn")
    chosen = take(bench.log, searches + warm_up, bench.seed)
    bench.arms.prepare(chosen)
    urls = {arm: bench.arms.target.url(arm) for arm in bench.arms.arms}
    samples = in_turn(urls, (bench.arms.row(search) for search in chosen), warm_up)
    base = samples[BASE].latencies[BASE]
    return {arm: _arm_report(arm, seen, base) for arm, seen in samples.items()}


def throughput(bench: Bench, arms: Sequence[str], *, clients: int, rounds: int,
               seconds: float) -> Report:
    """Closed loop: the arms in turn for ``seconds`` each, ``rounds`` times."""
    by_arm: dict[str, list[Report]] = {arm: [] for arm in arms}
    for number in range(rounds):
        for arm in arms:
            bench.say(f"closed loop: {clients} clients, round {number + 1} of {rounds}, {arm}")
            by_arm[arm].append(_closed_round(bench, arm, clients, seconds, bench.seed + number))
    report: Report = {}
    base = [round_["searches_per_s"] for round_ in by_arm[BASE]]
    for arm, seen in by_arm.items():
        rates = [round_["searches_per_s"] for round_ in seen]
        report[arm] = {"rounds": seen, "searches_per_s": sum(rates) / len(rates),
                       "of_bare": stats.ratio_of_rounds(base, rates)}
    return report


def open_latency(bench: Bench, arms: Sequence[str], *, rate: float, seconds: float,
                 event_every: int = 0) -> Report:
    """Open loop at ``rate`` searches a second: latencies from when each request was due.

    Clicks come besides, at arms that ask the sidecar: every arm is asked as many searches.
    """
    report: Report = {"rate": rate}
    for arm in arms:
        bench.say(f"open loop: {rate:.0f} a second for {seconds:.0f} s, {arm}")
        memory: list[Report] = []
        groups = bench.groups()
        clicks_every = 0 if arm in DIRECT else event_every
        seen = open_loop(
            bench.arms.target.url(arm),
            mixture(bench.arms, bench.log, bench.seed, arm=arm,
                    event_every=clicks_every),
            rate=rate * requests_per_search(bench.log, clicks_every),
            seconds=seconds, seed=bench.seed,
            each_second=partial(_note_memory, into=memory, groups=groups))
        report[arm] = _load_report(seen) | {"memory": memory}
    return report


def soak(bench: Bench, *, rate: float, seconds: float, event_every: int) -> Report:
    """Personalised searches at ``rate`` a second with clicks in between; then count the clicks.

    ``events`` are those acknowledged, ``kept`` by how much the states' counts grew; what a refused
    or broken request sent counts as neither.
    """
    sidecar = bench.arms.target.sidecar
    users = sorted({str(own[0].user_id) for own in bench.log.by_user if own[0].user_id})
    before = _events_kept(sidecar, users)
    report = open_latency(bench, ("personal",), rate=rate, seconds=seconds,
                          event_every=event_every)
    seen = report["personal"]
    report["events"] = seen["acknowledged"].get(EVENT, 0)
    report["kept"] = _events_kept(sidecar, users) - before
    return report


def _events_kept(sidecar: str, users: Sequence[str]) -> int:
    """Return how many events the states of these users have ever taken."""
    connection, total = RawConnection(sidecar), 0
    for user in users:
        answer = connection.ask(request(sidecar, "GET",
                                        f"/_personalize/users/{quote(user, safe='')}"))
        if answer.status == 200:
            total += int(json.loads(answer.body)["event_count"])
    connection.close()
    return total


def events(bench: Bench, *, clients: int, seconds: float) -> Report:
    """Acknowledged events singly and in batches, and what the very next search saw."""
    bench.say("events: singly, in batches, and their effect on the next search")
    sidecar = bench.arms.target.sidecar
    users = [own[0].user_id for own in bench.log.by_user if own[0].user_id][:EVENT_USERS]
    items = [str(event["item_id"]) for event in bench.log.histories[:1000]] or ["unknown"]
    singles = Samples()
    effects = {"seen": 0, "missed": 0}
    connection, reader = RawConnection(sidecar), RawConnection(sidecar)
    for number in range(200 if users else 0):
        user = users[number % len(users)] or ""
        started = time.perf_counter()
        answer = connection.ask(click(sidecar, user, items[number % len(items)]))
        singles.add("single", time.perf_counter() - started, answer)
        effects["seen" if _next_search_sees(bench, reader, user, answer.body) else "missed"] += 1
    connection.close()
    reader.close()
    batches = closed_loop(sidecar, _batches(bench, items), clients=clients,
                          seconds=seconds) if users else Samples()
    return {"single_ms": stats.summary(singles.latencies.get("single", [])),
            "batch_ms": stats.summary(batches.latencies.get("batch", [])),
            "batch_events_per_s": EVENT_BATCH * batches.count / max(batches.seconds, 1e-9),
            "errors": singles.errors + batches.errors, "next_search": effects}


def _next_search_sees(bench: Bench, reader: RawConnection, user: str, body: bytes) -> bool:
    """Search on another connection at once: is the acknowledged version in what it used?"""
    acknowledged = int(json.loads(body)["states"][user])
    search = next(own[0] for own in bench.log.by_user if own[0].user_id == user)
    answer = reader.ask(bench.arms.request("personal", search))
    return int(answer.header("x-personalize-state") or -1) >= acknowledged


def _batches(bench: Bench, items: Sequence[str]) -> Callable[[], tuple[str, bytes]]:
    """Return a source of batches of views, by users as often as the log has them."""
    users = (search.user_id for search in bench.log.draw(bench.seed) if search.user_id)
    viewed = itertools.cycle(items)

    def next_batch() -> tuple[str, bytes]:
        entries = [{"user_id": user, "item_id": item, "event": "view"}
                   for user, item in zip(itertools.islice(users, EVENT_BATCH), viewed,
                                         strict=False)]
        return "batch", request(bench.arms.target.sidecar, "POST", "/_personalize/events",
                                msgspec.json.encode(entries))

    return next_batch


def _closed_round(bench: Bench, arm: str, clients: int, seconds: float, seed: int) -> Report:
    groups = bench.groups()
    before = {name: group.usage() for name, group in groups.items()}
    own_before = own_cpu_s()
    seen = closed_loop(bench.arms.target.url(arm), mixture(bench.arms, bench.log, seed, arm=arm),
                       clients=clients, seconds=seconds)
    per_thousand = 1000.0 / max(seen.count, 1)
    report = _load_report(seen) | {
        "cpu_s_per_1000": {"bench": (own_cpu_s() - own_before) * per_thousand}}
    for name, group in groups.items():
        old, new = before[name], group.usage()
        if old is not None and new is not None:
            report["cpu_s_per_1000"][name] = (new.cpu_s - old.cpu_s) * per_thousand
            report.setdefault("memory_mb", {})[name] = {
                "rss": new.rss_bytes / 2**20, "own": new.own_bytes / 2**20,
                "processes": new.processes}
    return report


def _note_memory(elapsed: float, into: list[Report], groups: dict[str, ProcessGroup]) -> None:
    if int(elapsed) % 10 == 1:
        usages = {name: group.usage() for name, group in groups.items()}
        into.append({"at_s": round(elapsed), **{name: round(usage.own_bytes / 2**20)
                                                for name, usage in usages.items() if usage}})


def _arm_report(arm: str, seen: Samples, base: Sequence[float]) -> Report:
    found = _load_report(seen)
    return found if arm == BASE else found | stats.paired(base, seen.latencies[arm])


def _load_report(seen: Samples) -> Report:
    searches = seen.count - len(seen.latencies.get(EVENT, ()))
    return {"requests": seen.count, "errors": seen.errors, "never_sent": seen.never_sent,
            "searches_per_s": searches / seen.seconds if seen.seconds else None,
            "ms": {kind: stats.summary(values) for kind, values in seen.latencies.items()},
            "acknowledged": seen.acknowledged, "outcomes": seen.outcomes,
            "server_timing_ms": stats.stages(seen.stages)}
