"""Renders the benchmark's report as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from scripts._bench_arms import MEANINGS
from scripts._bench_stats import QUANTILES


def render(report: Mapping[str, Any]) -> str:
    """Return the tables of the sections that were run."""
    parts = ["conditions: " + ", ".join(f"{name} {value}"
                                        for name, value in report["conditions"].items())]
    for name, section in (("latency", _latency), ("closed", _closed), ("open", _open),
                          ("events", _events), ("overload", _open), ("soak", _soak),
                          ("first", _first)):
        if name in report:
            parts.append(section(report[name]))
    return "\n\n".join(parts)


def _latency(report: Mapping[str, Any]) -> str:
    rows = []
    for arm, seen in report.items():
        rows.append([arm, *_quantiles(seen["ms"][arm]), _interval(seen, "added_ms", "p50"),
                     _interval(seen, "added_ms", "p99"), _outcomes(seen), str(seen["errors"])])
    stages = [[arm, *(f"{name} {values['p50']:.2f} / {values['p99']:.2f}"
                      for name, values in seen["server_timing_ms"].items())]
              for arm, seen in report.items() if seen["server_timing_ms"]]
    lines = "\n".join(": ".join([row[0], ", ".join(row[1:])]) for row in stages)
    meanings = "\n".join(f"{arm}: {MEANINGS[arm]}" for arm in report)
    return ("One client, milliseconds, arms in turn for each search; added over bare with 95 % "
            "intervals:\n\n"
            + _table(["arm", *QUANTILES, "added p50", "added p99", "outcomes", "errors"], rows)
            + f"\n\n{meanings}" + (f"\n\nServer-Timing, p50 / p99:\n{lines}" if lines else ""))


def _closed(report: Mapping[str, Any]) -> str:
    rows = []
    for arm, seen in report.items():
        last = seen["rounds"][-1]
        cpu = last["cpu_s_per_1000"]
        memory = last.get("memory_mb", {}).get("sidecar")
        rows.append([arm, f"{seen['searches_per_s']:.0f}", _bounds(seen["of_bare"], 3),
                     *_quantiles(last["ms"][arm]),
                     *(f"{cpu[who]:.2f}" if who in cpu else "–"
                       for who in ("sidecar", "opensearch", "bench")),
                     f"{memory['rss']:.0f} / {memory['own']:.0f} in {memory['processes']}"
                     if memory else "–", str(sum(round_["errors"] for round_ in seen["rounds"]))])
    return ("Closed loop; latencies, processor seconds per 1,000 searches and the sidecar's memory "
            "(MB resident / own share) of the last round:\n\n"
            + _table(["arm", "searches/s", "of bare", *QUANTILES, "cpu sidecar", "cpu opensearch",
                      "cpu bench", "memory", "errors"], rows))


def _open(report: Mapping[str, Any]) -> str:
    rows = []
    for arm, seen in report.items():
        if arm == "rate":
            continue
        for kind, values in seen["ms"].items():
            memory = [sample.get("sidecar") for sample in seen["memory"]]
            rows.append([arm if kind == arm else f"{arm}: {kind}", *_quantiles(values),
                         f"{values['max']:.1f}", _outcomes(seen), str(seen["errors"]),
                         str(seen["never_sent"]),
                         f"{memory[0]} → {memory[-1]}" if memory else "–"])
    return (f"Open loop, {report['rate']:.0f} searches a second, milliseconds from when each was "
            "due:\n\n" + _table(["arm", *QUANTILES, "max", "outcomes", "errors", "never sent",
                                 "sidecar MB"], rows))


def _soak(report: Mapping[str, Any]) -> str:
    searches = {name: report[name] for name in ("rate", "personal")}
    return (_open(searches) + f"\n\nclicks acknowledged {report['events']}, kept "
            f"{report['kept']}; the sidecar's memory every ten seconds, MB: "
            + " ".join(str(sample.get("sidecar")) for sample in report["personal"]["memory"]))


def _events(report: Mapping[str, Any]) -> str:
    single, batch, seen = report["single_ms"], report["batch_ms"], report["next_search"]
    return (f"Events: singly p50 {single['p50']:.2f} ms, p99 {single['p99']:.2f} ms; in batches of "
            f"100 {report['batch_events_per_s']:.0f} a second, p50 {batch['p50']:.1f} ms; errors "
            f"{report['errors']}; seen by the very next search {seen['seen']}, missed "
            f"{seen['missed']}")


def _first(report: Mapping[str, Any]) -> str:
    rows = [["one client, no pause", *_quantiles(report["steady"]),
             f"{report['steady']['max']:.1f}", "–", "–"]]
    for what, meaning in (("undisturbed", "open loop"), ("swap", "a model swapped in beside it"),
                          ("reload", "all workers replaced beside it")):
        seen = report[what]
        rows.append([meaning, *_quantiles(seen["ms"]), f"{seen['ms']['max']:.1f}",
                     _outcomes(seen), str(seen["errors"] + seen["never_sent"])])
    start, idle = report["start"], report["idle"]
    return ("First searches, milliseconds:\n\n"
            + _table(["", *QUANTILES, "max", "outcomes", "errors"], rows)
            + f"\n\nvery first after a start: {_values(start['very_first_ms'])}"
            + f"\nthe next connections: {_values(start['next_connections_ms'])}"
            + f"\nafter silence, kept connection: {_values(idle['kept_connection_ms'])}"
            + f"\nafter silence, new connection: {_values(idle['new_connection_ms'])}"
            + f"\nmodel before and after the swap: {', '.join(report['swap']['versions'])}; "
            + _switched(report["swap"]))


def _switched(swap: Mapping[str, Any]) -> str:
    if swap["switched_s"] is None:
        return "not every worker had switched when it was given up"
    covered = "" if swap["loop_covers_switch"] else ", beyond the searches' end: ask for more time"
    return f"every worker had switched after {swap['switched_s']:.1f} s{covered}"


def _values(milliseconds: Sequence[float]) -> str:
    return ", ".join(f"{value:.1f}" for value in milliseconds) or "–"


def _quantiles(values: Mapping[str, float]) -> list[str]:
    return [f"{values[name]:.2f}" for name in QUANTILES]


def _interval(seen: Mapping[str, Any], what: str, quantile: str) -> str:
    return _bounds(seen[what][quantile], 2) if what in seen else "–"


def _bounds(found: Mapping[str, Any], digits: int) -> str:
    if found["low"] is None:
        return f"{found['value']:.{digits}f}"
    return (f"{found['value']:.{digits}f} ({found['low']:.{digits}f} to "
            f"{found['high']:.{digits}f})")


def _outcomes(seen: Mapping[str, Any]) -> str:
    total = max(sum(seen["outcomes"].values()), 1)
    return ", ".join(f"{outcome.replace('skipped; reason=', '')} {100 * count / total:.0f} %"
                     for outcome, count in sorted(seen["outcomes"].items())) or "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
