"""Read a model, a catalogue and a history, and print one search twice: as it was, and with a
history that was changed.

--without leaves out one event, by its number in the history (#12, as ``scripts.explain`` prints
it), or all events of an item. --add puts in EVENT:ITEM, or search:WORDS, one minute before --at or
at its own @TS. Both may be repeated. The program prints the two orders side by side, with each
hit's move and the parts that changed. The history comes from --events or from a running sidecar.
It writes nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from opensearchpy.exceptions import OpenSearchException

from scripts._asked import Asked, add_arguments, ask, event_words, history_rows
from scripts._cells import cell
from scripts._inputs import when
from scripts._program import exit_code, log_to_stderr
from sidecar.errors import InputError, SettingsError, SidecarError
from sidecar.records import Event, History
from sidecar.serving.counterfactual import (
    TELLING,
    added,
    differences,
    positions_of_item,
    without,
)
from sidecar.stores.file_values import seconds

COLUMN = 40
MOST_PARTS = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, the comparison to stdout."""
    parser = _parser()
    options = parser.parse_args(argv)
    log_to_stderr()
    if (options.events is None) == (options.sidecar is None):
        parser.error("give --events or --sidecar, whichever has the history")
    if not (options.without or options.add):
        parser.error("give --without or --add: what is to be changed")
    try:
        told = _compare(options)
    except SettingsError as error:
        print(f"whatif: {error}", file=sys.stderr)
        return 2
    except (SidecarError, OpenSearchException, OSError) as error:
        print(f"whatif: {error}", file=sys.stderr)
        return 1
    print(json.dumps(told) if options.json else _text(told, options.top))
    return 0


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    asked = ask(options)
    left_out = sorted({position for text in options.without
                       for position in _positions(text, asked.history)})
    put_in = [_event(text, asked) for text in options.add]
    changed = added(without(asked.history, left_out), put_in)
    before, after = asked.replay.show(asked.history), asked.replay.show(changed)
    hits = [{**hit, "title": asked.titles.get(hit["item_id"])}
            for hit in differences(before, after)]
    rows = history_rows(asked.history, asked.titles)
    return {"user": options.user, "query": options.query, "at": when(asked.now),
            "model": asked.ranker.version,
            "without": [rows[position] for position in left_out],
            "added": [{"event": event.event, "item_id": event.item_id, "query": event.query,
                       "ts": when(event.ts or 0.0), "title": asked.titles.get(event.item_id or "")}
                      for event in put_in],
            "before": {"events": len(asked.history), "reason": before.reason},
            "after": {"events": len(changed), "reason": after.reason},
            "hits": hits}


def _positions(text: str, history: History) -> list[int]:
    """Return the events that ``--without`` names: an item's, or the one of a number.

    Raises:
        InputError: the history has neither.
    """
    found = positions_of_item(history, text)
    number = re.fullmatch(r"#?(\d+)", text)
    if number and (text.startswith("#") or not found):
        place = int(number[1])
        if not len(history):
            raise InputError(f"--without {text}: the history has no event; give --add alone")
        if not 1 <= place <= len(history):
            raise InputError(f"--without {text}: the history has the events #1 to #{len(history)}, "
                             "and no item of that id")
        return [place - 1]
    if not found:
        raise InputError(f"--without {text}: no event of the history has that item; "
                         "give an item's id, or an event's number as #12")
    return found


def _event(text: str, asked: Asked) -> Event:
    """Read ``EVENT:ITEM[@TS]`` or ``search:WORDS[@TS]``.

    Raises:
        InputError: not of that form, or the catalogue lacks the item.
    """
    word, colon, what = text.partition(":")
    if not (word and colon and what):
        raise InputError(f"--add {text}: must be EVENT:ITEM or search:WORDS, with @TS where the "
                         "moment counts")
    ts = asked.now - 60.0
    if what not in asked.titles and "@" in what:
        what, _, moment = what.rpartition("@")
        try:
            ts = seconds(moment)
        except ValueError as error:
            raise InputError(f"--add {text}: {moment!r} is no ISO 8601 instant") from error
        if ts >= asked.now:
            raise InputError(f"--add {text}: the event must come before the search, which is at "
                             f"{when(asked.now)}")
    if word == "search":
        return Event("", word, None, ts, what)
    if what not in asked.titles:
        raise InputError(f"--add {text}: the catalogue has no item {what!r}")
    return Event("", word, what, ts)


def _text(told: Mapping[str, Any], top: int | None) -> str:
    lines = [f"{told['user']} searches for {told['query']!r} at {told['at']}"]
    for name, sign in (("without", "−"), ("added", "+")):
        lines += [f"  {sign} {_words(row)}, {row['ts']}" for row in told[name]]
    for name in ("before", "after"):
        why = f", the engine's order: {told[name]['reason']}" if told[name]["reason"] else ""
        lines.append(f"{name}: {told[name]['events']} events{why}")
    earlier = sorted(told["hits"], key=lambda hit: hit["rank"]["before"])
    lines += ["", f"{'':4}  {'before':<{COLUMN}}  {'after':<{COLUMN}}  move  changed parts"]
    for was, now in list(zip(earlier, told["hits"], strict=True))[:top]:
        lines.append(f"{now['rank']['after']:>4}  {_cell(was)}  {_cell(now)}  "
                     f"{_move(now['move']):>4}  {_parts(now)}".rstrip())
    moved = sum(hit["move"] != 0 for hit in told["hits"])
    lines += ["", f"{moved} of {len(told['hits'])} hits moved"]
    return "\n".join(lines)


def _words(row: Mapping[str, Any]) -> str:
    titles = {row["item_id"]: row["title"]} if row["title"] else {}
    return event_words(row["event"], row["item_id"], row["query"], titles)


def _cell(hit: Mapping[str, Any]) -> str:
    return cell(f"{hit['item_id']} {hit['title'] or ''}", COLUMN)


def _move(places: int) -> str:
    return f"{places:+d}" if places else "="


def _parts(hit: Mapping[str, Any]) -> str:
    """Return the score's change and the parts that made most of it."""
    score = hit["score"]
    if score["before"] is None or score["after"] is None:
        return ""
    told = [f"{name} {change:+.2f}" for name, change in hit["parts"].items()
            if abs(change) >= TELLING][:MOST_PARTS]
    return f"{score['after'] - score['before']:+.2f}: {', '.join(told)}" if told else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.whatif", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser, is_model_needed=True)
    parser.add_argument("--without", action="append", default=[], metavar="#NUMBER|ITEM")
    parser.add_argument("--add", action="append", default=[], metavar="EVENT:ITEM[@TS]")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
