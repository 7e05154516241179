"""Reads an events file and sends it to a running sidecar, which writes states and event log.

Usage::

    python -m scripts.replay_events --sidecar http://127.0.0.1:8080 --events events.jsonl.gz

Events are sent as fast as the sidecar takes them or, with ``--speed X``, at X times the pace at
which they happened. Every event has an id; if the file has none, it is made from the content. So a
replay that was cut off may be started again: events that the sidecar knows count as duplicates.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm

from scripts._arguments import instant, positive, server_url, whole
from scripts._event_client import EventClient
from scripts._program import exit_code
from sidecar.errors import SidecarError
from sidecar.records import Event
from sidecar.serving.event_forms import derived_id
from sidecar.stores.files import Rows, read_events, row_count_hint

MAX_BATCH = 10_000
SHOWN_REFUSALS = 10

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class Report:
    """What became of the events that were sent, and how long it took."""

    taken: int = 0
    refused: int = 0
    duplicates: int = 0
    seconds: float = 0.0
    events_per_second: float = 0.0
    unreadable_rows: int = 0
    reasons: list[str] = field(default_factory=list)

    def count(self, answer: dict[str, Any], batch: Sequence[Event]) -> None:
        """Add one batch's answer."""
        self.taken += answer["taken"]
        self.duplicates += answer["duplicates"]
        self.refused += len(answer["refused"])
        for refusal in answer["refused"][:SHOWN_REFUSALS - len(self.reasons)]:
            event = batch[refusal["position"]]
            self.reasons.append(f"{event.event_id} of user {event.user_id}: {refusal['reason']}")

    def text(self) -> str:
        """Return the figures for a reader."""
        return (f"taken {self.taken:,} ({self.duplicates:,} were known already), "
                f"refused {self.refused:,}, unreadable rows {self.unreadable_rows:,}; "
                f"{self.seconds:.1f} s, {self.events_per_second:,.0f} events a second")


def named(events: Iterable[Event]) -> Iterator[Event]:
    """Yield events with an id: their own, or one of their content.

    Equal events of unknown time differ by their number among the equal ones.
    """
    seen: Counter[str] = Counter()
    for event in events:
        if event.event_id is None:
            made = derived_id(event)
            if event.ts is None:
                seen[made] += 1
                made = f"{made}-{seen[made]}"
            event = dataclasses.replace(event, event_id=made)
        yield event


def chosen(events: Iterable[Event], options: argparse.Namespace) -> Iterator[Event]:
    """Yield the events that the options ask for; those of unknown time only without a period."""
    users = frozenset(options.user)
    low, high = options.since, options.until
    for event in events:
        if users and event.user_id not in users:
            continue
        if low is not None and (event.ts is None or event.ts < low):
            continue
        if high is not None and (event.ts is None or event.ts >= high):
            continue
        yield event


def batches(events: Iterable[Event], size: int, pace: Callable[[Event], float] | None,
            ) -> Iterator[list[Event]]:
    """Yield batches of at most ``size``; with a pace, each as soon as its events are due."""
    batch: list[Event] = []
    for event in events:
        is_early = pace is not None and pace(event) > 0
        if batch and (len(batch) >= size or is_early):
            yield batch
            batch = []
        if pace is not None:
            time.sleep(max(0.0, pace(event)))
        batch.append(event)
    if batch:
        yield batch


def paced(speed: float) -> Callable[[Event], float]:
    """Return how long to wait for an event, in seconds, at ``speed`` times the real pace."""
    started = time.monotonic()
    first: float | None = None

    def wait_s(event: Event) -> float:
        nonlocal first
        if event.ts is None:
            return 0.0
        first = event.ts if first is None else first
        return started + (event.ts - first) / speed - time.monotonic()

    return wait_s


def replay(client: EventClient, rows: Rows[Event], options: argparse.Namespace) -> Report:
    """Send the file's events; returns what became of them."""
    report = Report()
    pace = paced(options.speed) if options.speed else None
    started = time.monotonic()
    with tqdm(total=row_count_hint(rows.path), unit=" events", disable=options.quiet,
              mininterval=0.5, file=sys.stderr) as bar:
        for batch in batches(named(chosen(rows, options)), options.batch, pace):
            report.count(client.send(batch), batch)
            bar.update(rows.taken + len(rows.refused) - bar.n)
    report.seconds = time.monotonic() - started
    report.events_per_second = (report.taken + report.refused) / max(report.seconds, 1e-9)
    report.unreadable_rows = len(rows.refused)
    report.reasons += [str(error) for error in rows.refused[:SHOWN_REFUSALS]]
    return report


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; 0: sent, 1: the file or the sidecar failed, or nothing was taken."""
    options = _parser().parse_args(argv)
    try:
        report = replay(EventClient(options.sidecar), read_events(options.events), options)
    except SidecarError as error:
        print(f"replay_events: {error}", file=sys.stderr)
        return 1
    for reason in report.reasons:
        print(f"refused: {reason}", file=sys.stderr)
    figures = {name: value for name, value in dataclasses.asdict(report).items()
               if name != "reasons"}
    print(_encode(figures).decode() if options.json else report.text())
    return 1 if report.refused and not report.taken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.replay_events", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sidecar", metavar="URL", type=server_url, required=True,
                        help="a running sidecar")
    parser.add_argument("--events", metavar="FILE", type=Path, required=True,
                        help="events as JSON lines (.gz too), Parquet or CSV")
    parser.add_argument("--speed", metavar="X", type=positive,
                        help="times real time (default: as fast as possible)")
    parser.add_argument("--batch", metavar="N", type=whole(1, MAX_BATCH), default=100,
                        help=f"events per request, 1 to {MAX_BATCH:,} (default: 100)")
    parser.add_argument("--user", metavar="ID", action="append", default=[],
                        help="only this user's events; may be given again")
    parser.add_argument("--since", metavar="TS", type=instant, help="no earlier events, ISO 8601")
    parser.add_argument("--until", metavar="TS", type=instant, help="only earlier events, ISO 8601")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--quiet", action="store_true", help="show no progress bar")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
