"""Read a catalogue and events, and write how good the orders are in successive stretches of time.

Each fold trains on the events before an instant and ranks searches made from the events up to the
next instant. The instants divide the later half of the log evenly. The program writes to --out:
fold-K.json (every figure of a fold, as evaluate prints them), summary.json (mean and spread over
folds) and inputs.json. After a break, the same command goes on and does not train finished folds
again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scripts._arguments import new_directory, whole
from scripts._inputs import bar, counted, digest, when, write_whole
from scripts._program import INTERRUPTED, exit_code, known, log_to_stderr
from scripts.train import add_config, config_of
from sidecar.errors import FileError, SidecarError
from sidecar.stores.files import read_catalogue, read_events
from sidecar.training.crossvalidation import COMPARED, make_folds, run_fold, summary
from sidecar.training.event_table import EventTable
from sidecar.training.pipeline import TrainConfig

MOST_CASES = 3000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, a table or the summary's JSON to stdout."""
    options = _parser().parse_args(argv)
    log_to_stderr()
    try:
        found = _run(options)
    except (SidecarError, OSError) as error:
        print(f"crossvalidate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("crossvalidate: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    print(json.dumps(found) if options.json else _table(found))
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    config = config_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    inputs, written = _inputs(options, config), options.out / "inputs.json"
    _hold_against(written, inputs)
    rows = list(counted(read_catalogue(options.catalogue), "catalogue"))
    by_id = {row["item_id"]: k for k, row in enumerate(rows)}
    log = EventTable.from_events(counted(read_events(options.events), "events"), by_id)
    folds = make_folds(log, options.folds)
    _write(written, inputs)  # from here on, the folder is of these inputs
    done = []
    for fold in folds:
        path = options.out / f"fold-{fold.number}.json"
        if not path.exists():
            figures = run_fold(fold, rows, log, config, partial(bar, leave=False),
                               most_cases=options.most_cases)
            _write(path, known(figures))
        done.append(json.loads(path.read_text()))
        _tell(done[-1], options.folds)
    found = summary([fold for fold in done if fold["counted"]])
    _write(options.out / "summary.json", found)
    return found


def _inputs(options: argparse.Namespace, config: TrainConfig) -> dict[str, Any]:
    """Return what has to be the same in every run into a folder."""
    return {"catalogue": digest(options.catalogue), "events": digest(options.events),
            "folds": options.folds, "most_cases": options.most_cases,
            "config": dataclasses.asdict(config)}


def _hold_against(path: Path, inputs: dict[str, Any]) -> None:
    """Hold the inputs against those of a run that began in this folder, if one did."""
    if not path.exists():
        return
    before = json.loads(path.read_text())
    different = sorted(name for name in inputs if before.get(name) != inputs[name])
    if different:
        raise FileError(f"{path.parent} holds folds of other inputs ({', '.join(different)} "
                        "differ); give another --out")


def _write(path: Path, value: object) -> None:
    write_whole(path, json.dumps(value, indent=1) + "\n")


def _tell(fold: dict[str, Any], folds: int) -> None:
    since, until = (when(fold[name])[:len("2017-01-01")] for name in ("since", "until"))
    said = "no case counts"
    if fold["counted"]:
        rankers = fold["slices"]["all"]["rankers"]
        said = ", ".join(f"{name} {rankers[name]['mrr'][0]:.4f}"
                         for name in ("BM25", "unpersonalised", "model"))
    print(f"fold {fold['fold']} of {folds} ({since} to {until}, {fold['counted']} cases): {said}",
          file=sys.stderr)


def _table(found: dict[str, Any]) -> str:
    lines = [f"{found['folds']} folds, {found['cases']} cases; MRR and NDCG@10: mean over folds "
             "± standard deviation [least, greatest]"]
    for name, part in found["slices"].items():
        lines.append(f"\n{name} ({part['folds']} folds)")
        lines.extend(f"{ranker:38}{_spread(part['rankers'][ranker]['mrr'])}   "
                     f"{_spread(part['rankers'][ranker]['ndcg@10'])}" for ranker in COMPARED)
        lines.extend(f"{'model, ' + against:38}{_spread(spread, '+')}"
                     for against, spread in part["differences"].items())
    return "\n".join(lines)


def _spread(spread: dict[str, float | None], sign: str = "") -> str:
    std = "" if spread["std"] is None else f" ± {spread['std']:.4f}"
    return (f"{spread['mean']:{sign}.4f}{std} "
            f"[{spread['min']:{sign}.4f}, {spread['max']:{sign}.4f}]")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.crossvalidate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument("--events", type=Path, required=True, metavar="FILE")
    parser.add_argument("--folds", type=whole(1), default=4, metavar="N",
                        help="trainings (default: 4)")
    parser.add_argument("--most-cases", type=whole(1), default=MOST_CASES, metavar="N",
                        help=f"searches that a fold is judged by (default: {MOST_CASES})")
    parser.add_argument("--out", type=new_directory, required=True, metavar="DIR")
    parser.add_argument("--json", action="store_true")
    add_config(parser)
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
