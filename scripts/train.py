"""Read a catalogue and events, and write a model directory.

FILE is JSON lines (optionally .gz), Parquet or CSV. Refused rows are counted and the first are
reported; the others are used. Events at or after --until are not read. With --cases, the cases
before --until join the lists that the blend learns from, and events that only their histories hold
join the events.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts._arguments import LARGEST_SEED, instant, new_directory, seed
from scripts._inputs import bar, counted, scored_cases, when
from scripts._program import exit_code, log_to_stderr
from sidecar.errors import FileError, SidecarError
from sidecar.ranking.encoder import CELLS
from sidecar.ranking.imputation import DEFAULT_RULES, RULES, rules_named
from sidecar.ranking.signals import HYBRID, SIGNALS, signals_named
from sidecar.serving.event_forms import MAX_AHEAD_S
from sidecar.stores.files import read_catalogue, read_events, read_users
from sidecar.stores.models import pick_device, save_ranker
from sidecar.training.event_table import EventTable
from sidecar.training.merging import merged_events
from sidecar.training.pipeline import TrainConfig, train_ranker

DEVICES = ("auto", "cpu", "cuda")
# Options that are texts of a form of their own: what they hold, and how they are read.
READERS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "signals": ("names of signals", signals_named), "imputation": ("COLUMN=RULE", rules_named)}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, one line of JSON about the model to stdout."""
    options = _parser().parse_args(argv)
    log_to_stderr(logging.INFO)
    try:
        print(json.dumps(_train(options)))
    except (SidecarError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> dict[str, object]:
    started = time.monotonic()
    config = config_of(options)
    rows = list(counted(read_catalogue(options.catalogue), "catalogue"))
    by_id = {row["item_id"]: k for k, row in enumerate(rows)}
    cases = scored_cases(options.cases, rows) if options.cases else []
    if options.until is not None:
        cases = [case for case in cases if case.ts < options.until]
    log = EventTable.from_events(
        merged_events(counted(read_events(options.events), "events"), cases), by_id)
    if options.until is not None:
        log = log.until(options.until)
    if not len(log):
        raise FileError(f"{options.events} has no event before --until; give a later instant")
    if log.ts[-1] > time.time() + MAX_AHEAD_S:
        logging.warning("the last event is of %s, which lies in the future: by then the model has "
                        "forgotten what followed each query; correct the time, or pass --until",
                        when(log.ts[-1]))
    users = dict(counted(read_users(options.users), "users")) if options.users else None
    ranker, evidence = train_ranker(rows, log, config, bar, cases, users)
    version = save_ranker(ranker, options.out, evidence)
    ranker.warm_up()  # compiles what serving runs, and keeps it on disk
    return {"model": str(options.out), "version": version, "items": len(rows),
            "events": len(log), "seconds": round(time.monotonic() - started, 1),
            "threads": torch.get_num_threads(), **evidence}


def config_of(options: argparse.Namespace) -> TrainConfig:
    """Return the training options: the command line's, else the file's of ``--config``, else the
    defaults.

    Raises:
        FileError: the file cannot be read, or holds an unknown option or value.
        ModelError: cuda is asked for and there is none.
    """
    told = vars(options)
    given = _read_config(options.config) | {
        name: told[name] for name in ("seed", "cell", "device", "signals", "imputation")
        if told.get(name) is not None}
    given["device"] = pick_device(given.get("device", "auto"))
    return dataclasses.replace(TrainConfig(), **given)


def _read_config(path: Path | None) -> dict[str, Any]:
    """Read a configuration file as tuning writes it: a JSON object of TrainConfig's fields."""
    if path is None:
        return {}
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(given, dict):
        raise FileError(f"{path} must be a JSON object of training options")
    known = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    for name, value in given.items():
        if name not in known:
            raise FileError(f"{path}: {name} is not a training option; known: "
                            f"{', '.join(sorted(known))}")
        wanted = requirement(name, value, known[name])
        if wanted:
            raise FileError(f"{path}: {name} is {value!r}, must be {wanted}")
    return given


def requirement(name: str, value: object, default: object) -> str | None:
    """Return what an option's value must be, None where it is that."""
    if name in ("cell", "device"):
        choices = CELLS if name == "cell" else DEVICES
        return None if value in choices else f"one of {', '.join(choices)}"
    if name in READERS:
        wanted, read = READERS[name]
        try:
            read(str(value))
        except ValueError as error:
            return f"{wanted}: {error}"
        return None
    if isinstance(default, float):
        fits = isinstance(value, int | float) and 0 <= value < 1
        return None if fits else "a share from 0 to less than 1"
    if value is None and default is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        return "a whole number"
    if name == "seed":
        return None if 0 <= value <= LARGEST_SEED else f"from 0 to {LARGEST_SEED}"
    return None if value >= 1 else "at least 1"


def _read_by(read: Callable[[str], object]) -> Callable[[str], str]:
    """Return an argparse type that keeps a text as it is given and refuses what ``read`` does."""
    def kept(text: str) -> str:
        try:
            read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text
    return kept


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.train", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument("--events", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cases", type=Path, metavar="FILE")
    parser.add_argument("--signals", type=_read_by(signals_named), metavar="NAME[,NAME]",
                        help=f"train with these alone and the engine's score: {HYBRID} (all) or "
                             f"any of {', '.join(SIGNALS[1:])}")
    parser.add_argument("--impute", dest="imputation", type=_read_by(rules_named),
                        metavar="COLUMN=RULE[,…]",
                        help="what stands in for a number that a product does not have: "
                             f"{', '.join(RULES)} (default: "
                             f"{', '.join('='.join(rule) for rule in DEFAULT_RULES.items())})")
    parser.add_argument("--users", type=Path, metavar="FILE",
                        help="user_id and any attributes, which place users without events")
    parser.add_argument("--until", type=instant, metavar="TS",
                        help="ISO 8601 (default: all events)")
    parser.add_argument("--out", type=new_directory, required=True, metavar="DIR")
    parser.add_argument("--cell", choices=CELLS, help="(default: torch)")
    add_config(parser)
    return parser


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``config_of`` reads and no program goes without."""
    parser.add_argument("--config", type=Path, metavar="FILE",
                        help="JSON object of training options, as a tuning run writes it; options "
                             "given here win")
    parser.add_argument("--seed", type=seed, help="(default: 0)")
    parser.add_argument("--device", choices=DEVICES, help="(default: auto)")


if __name__ == "__main__":
    sys.exit(exit_code(main))
