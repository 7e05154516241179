"""Read a catalogue and events, and write one HTML report of what shoppers do.

The report covers basics, trajectories through categories, brands and items, association in visits,
and clusters of like-minded users by item factors. With --model it shows first the segments that the
model ranks by, and then clusters by its interest vectors. With --users (user_id and any other
columns) it shows how clusters and attributes are related. Events at or after --until are not read.
The report is self-contained; --json writes the same findings as data.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from scripts._arguments import instant, new_file, seed
from scripts._inputs import counted, ranker_over
from scripts._program import exit_code, log_to_stderr
from sidecar.analysis.behaviour_report import behaviour_page, findings
from sidecar.analysis.shop import Shop, Tally
from sidecar.errors import FileError, SidecarError
from sidecar.stores.files import read_catalogue, read_events, read_users
from sidecar.training.event_table import EventTable


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, one line of JSON about the log to stdout."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.json == options.out:
        parser.error("--json and --out name the same file")
    log_to_stderr(logging.INFO)
    torch.set_num_threads(1)
    try:
        found = _analyse(options)
        options.out.write_text(behaviour_page(found, f"Shoppers in {options.events.name}"),
                               encoding="utf-8")
        if options.json:
            options.json.write_text(json.dumps(found, default=_plain, allow_nan=False),
                                    encoding="utf-8")
    except (SidecarError, OSError) as error:
        print(f"analyze: {error}", file=sys.stderr)
        return 1
    basics = found["basics"]
    print(json.dumps({"report": str(options.out),
                      **{name: len(found[name]["clusters"]) for name in ("segments", "clusters")
                         if name in found},
                      **{name: basics[name] for name in ("events", "users", "visits", "items")}}))
    return 0


def _analyse(options: argparse.Namespace) -> dict[str, Any]:
    rows = list(counted(read_catalogue(options.catalogue), "catalogue"))
    ranker = None
    by_id = {row["item_id"]: k for k, row in enumerate(rows)}
    if options.model:
        ranker = ranker_over(options.model, options.device, options.catalogue, rows)
        by_id = dict(ranker.items.row_of)
        rows = _in_order_of(ranker.items.ids, rows)
    until = math.inf if options.until is None else options.until
    tally = Tally(until)
    log = EventTable.from_events(
        tally.watch(counted(read_events(options.events), "events")), by_id).until(until)
    if not len(log):
        raise FileError(f"{options.events} has no event before --until; give a later instant")
    users = dict(counted(read_users(options.users), "users")) if options.users else {}
    return findings(Shop.of(rows, log, tally), ranker, users, options.seed)


def _in_order_of(ids: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the catalogue in the order of a model's items; those it lacks have but an id."""
    known = {row["item_id"]: row for row in rows}
    return [known.get(i, {"item_id": i, "title": "no longer in the catalogue"}) for i in ids]


def _plain(value: Any) -> Any:
    return value.item()  # numpy's numbers


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.analyze", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument("--events", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", type=Path, metavar="DIR")
    parser.add_argument("--users", type=Path, metavar="FILE",
                        help="user_id and attributes, such as an age range")
    parser.add_argument("--until", type=instant, metavar="TS",
                        help="ISO 8601 (default: all events)")
    parser.add_argument("--out", type=new_file, required=True, metavar="FILE")
    parser.add_argument("--json", type=new_file, metavar="FILE")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
