"""Measures what personalization costs a search; reads a query log and two servers, writes numbers.

Usage::

    python -m scripts.bench --sidecar http://127.0.0.1:8080 --opensearch http://127.0.0.1:9200 \\
        --queries cases.jsonl.gz --window 100 --clients 8

The bare engine and the sidecar get the same searches in the same run from the same client, in turn,
so that a busy machine is busy for both. Sections:

- latency: one client, paired;
- closed loop (``--clients``): the ceiling, processor time, memory;
- open loop: latency under load, counted from when a request was due;
- events: acknowledgements, and whether the next search saw them;
- overload: an open loop at twice the slowest arm's ceiling or, if that is not measured, at twice
  ``--rate``;
- soak: ten minutes of searches and clicks at three quarters of the ceiling: memory, errors, and
  whether every click is in its shopper's state;
- first (``--model DIR``): what a search costs right after a start, after silence, and while a model
  is swapped in or the workers are replaced, with sidecars of its own.

``--plot FILE`` draws the latencies. Histories in the queries file are sent to the sidecar first; it
keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from scripts import _bench_first, _bench_plot, _bench_report, _bench_sections
from scripts._arguments import new_file, positive, seed, server_url, whole
from scripts._bench_arms import BASE, MEANINGS, PLUGIN, Arms, BenchTarget
from scripts._bench_searches import Log, check_index, generate, read, send_histories
from scripts._bench_sections import Bench, Report
from scripts._program import exit_code, known
from sidecar.errors import SidecarError
from sidecar.stores.addresses import default_port

SECTIONS = ("latency", "closed", "open", "events", "overload", "soak", "first")
FIRST_RATE = 100.0  # searches a second beside a swap: far from any ceiling
BY_DEFAULT = ("latency", "closed", "open", "events")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the sections and print their numbers; 0 done, 1 failed, 2 misused."""
    parser = _parser()
    options = parser.parse_args(argv)
    options.opensearch = _with_port(options.opensearch)
    if wrong := _misuse(options):
        parser.error(wrong)
    for name in ("arms", "load_arms"):  # the others are held against it
        setattr(options, name, list(dict.fromkeys([BASE, *getattr(options, name)])))
    try:
        report = run(options)
        if options.plot is not None:
            options.plot.write_text(_bench_plot.page(report))
    except (SidecarError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps(known(report), indent=1, allow_nan=False) if options.json
          else _bench_report.render(report))
    return 0


def run(options: argparse.Namespace) -> Report:
    """Run the sections asked for and return their reports.

    Raises:
        SidecarError: no searches, no products, or a server that does not take what it is sent.
        OSError: a server cannot be reached.
    """
    log = _log(options)
    check_index(options.opensearch, options.index)
    if not options.no_histories:
        progress = partial(tqdm, desc="histories", unit="batch", file=sys.stderr,
                           disable=not sys.stderr.isatty())
        send_histories(options.sidecar, log, progress)
    target = BenchTarget(options.sidecar, options.opensearch, options.index,
                         options.fields.split(","), options.window, options.pipeline)
    bench = Bench(Arms(target, options.arms), log, options.seed, _say)
    report: Report = {"conditions": _conditions(options, log)}
    if "latency" in options.sections:
        report["latency"] = _bench_sections.latency(bench, options.searches, options.warm_up)
    if "closed" in options.sections:
        report["closed"] = _bench_sections.throughput(
            bench, options.load_arms, clients=options.clients, rounds=options.rounds,
            seconds=options.seconds)
    if "open" in options.sections:
        report["open"] = _bench_sections.open_latency(
            bench, options.load_arms, rate=options.rate or _three_quarters(report),
            seconds=options.open_seconds, event_every=options.event_every)
    if "events" in options.sections:
        report["events"] = _bench_sections.events(bench, clients=min(options.clients, 4),
                                                  seconds=options.seconds)
    if "overload" in options.sections:
        report["overload"] = _bench_sections.open_latency(
            bench, options.load_arms, seconds=options.open_seconds,
            rate=2.0 * (_ceiling(report) or options.rate))
    if "soak" in options.sections:
        report["soak"] = _bench_sections.soak(
            bench, rate=options.rate or _three_quarters(report), seconds=options.soak_seconds,
            event_every=options.event_every)
    if "first" in options.sections:
        report["first"] = _bench_first.first(bench, _bench_first.Plan(
            options.model, starts=options.starts, idle_rounds=options.rounds,
            idle_seconds=options.idle_seconds, searches=options.searches,
            rate=options.rate or FIRST_RATE, seconds=options.open_seconds))
    return report


def _misuse(options: argparse.Namespace) -> str | None:
    """Return what is wrong with options that are right one by one; None where nothing is."""
    if PLUGIN in (*options.arms, *options.load_arms) and not options.pipeline:
        return "the arm plugin needs --pipeline NAME; make one with scripts.pipeline"
    if "first" in options.sections and options.model is None:
        return "the section first needs --model DIR; write one with scripts.train"
    if "overload" in options.sections and "closed" not in options.sections and not options.rate:
        return "the section overload needs a ceiling: add the section closed, or give --rate"
    if not all(url.startswith("http://") for url in (options.sidecar, options.opensearch)):
        return "the benchmark speaks plain HTTP; give --sidecar and --opensearch as http://"
    return None


def _with_port(node: str) -> str:
    """Return a node's URL with the port that the sidecar would take it to have."""
    parts = urlsplit(node)
    if parts.port is not None:
        return node
    netloc = f"{parts.netloc.rstrip(':')}:{default_port(parts.scheme)}"
    return parts._replace(netloc=netloc).geturl()


def _log(options: argparse.Namespace) -> Log:
    if options.generate:
        return generate(options.opensearch, options.index, options.generate, options.seed)
    return read(options.queries)


def _three_quarters(report: Report) -> float:
    """Return three quarters of the slowest arm's ceiling; 50 where none was measured."""
    ceiling = _ceiling(report)
    return 0.75 * ceiling if ceiling else 50.0


def _ceiling(report: Report) -> float | None:
    """Return the slowest arm's searches a second in the closed loop; None where it was not run."""
    return min((arm["searches_per_s"] for arm in report.get("closed", {}).values()), default=None)


def _conditions(options: argparse.Namespace, log: Log) -> dict[str, Any]:
    load = round(os.getloadavg()[0], 1)  # before the benchmark adds its own
    return {"cores": os.cpu_count(), "load_before": load, "machine": platform.machine(),
            "system": platform.system(), "python": platform.python_version(),
            "window": options.window, "clients": options.clients, "index": options.index,
            "users": len(log.by_user),
            "searches_in_log": sum(map(len, log.by_user)), "seed": options.seed}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench",
                                     description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--sidecar", type=server_url, required=True, metavar="URL")
    add("--opensearch", type=server_url, required=True, metavar="URL",
        help="the node behind the sidecar")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--queries", type=Path, metavar="FILE",
                        help="rows with query and user_id, or a cases file")
    source.add_argument("--generate", type=whole(1), metavar="N",
                        help="make up N searches and histories from the products' titles")
    add("--index", default="products", metavar="ALIAS")
    add("--fields", default="title,brand,categories", help="fields searched, comma-separated")
    add("--window", type=whole(1, 10_000), default=100, metavar="K")
    add("--clients", type=whole(1), default=8, metavar="N", help="clients of the closed loop")
    add("--json", action="store_true", help="print every number as JSON")
    add("--sections", nargs="+", choices=SECTIONS, default=BY_DEFAULT)
    add("--pipeline", metavar="NAME", help="a search pipeline with the plugin (scripts.pipeline), "
                                           "for the arm plugin")
    add("--arms", nargs="+", choices=MEANINGS,
        default=[arm for arm in MEANINGS if arm != PLUGIN],
        help="arms of the latency section; bare is always among them")
    add("--load-arms", nargs="+", choices=MEANINGS,
        default=["bare", "off", "personal"], help="arms of the closed and the open loop; "
                                                   "bare is always among them")
    add("--searches", type=whole(1), default=1000, metavar="N",
        help="searches of the latency section")
    add("--warm-up", type=whole(0), default=200, metavar="N",
        help="warm-up searches before them, not counted")
    add("--rounds", type=whole(1), default=5, metavar="N", help="rounds of the closed loop")
    add("--seconds", type=positive, default=4.0, metavar="S", help="seconds an arm in each round")
    add("--rate", type=positive, metavar="R",
        help="searches a second of the open loop (default: 3/4 of the slowest arm's ceiling)")
    add("--open-seconds", type=positive, default=20.0, metavar="S",
        help="seconds of each arm of the open loop and of the overload")
    add("--model", type=Path, metavar="DIR", help="model for the section first")
    add("--starts", type=whole(1), default=5, metavar="N", help="starts of the section first")
    add("--idle-seconds", type=positive, default=60.0, metavar="S",
        help="seconds of silence before a search after silence (--rounds times two)")
    add("--soak-seconds", type=positive, default=600.0, metavar="S")
    add("--plot", type=new_file, metavar="FILE", help="write the latencies as a page (HTML, SVG)")
    add("--event-every", type=whole(0), default=10, metavar="N",
        help="in the open loop, a click after every N searches; 0: none")
    add("--no-histories", action="store_true", help="send no histories before measuring")
    add("--seed", type=seed, default=0, metavar="N")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
