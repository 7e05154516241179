"""Read a catalogue and events, and write the training options that rank a dev window best.

Each trial trains on the events before --until and ranks the searches of the dev window, from
--until to --dev-until: those of --cases if given, else searches made from the log. The objective is
the model's mean reciprocal rank. The program writes to --out: config.json (the best options so far,
for ``train --config``), trials.jsonl (one line per trial) and study.db. After a break, the same
command goes on. Keep the test window after --dev-until: it must not choose anything.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from scripts._arguments import instant, new_directory, seed, whole
from scripts._inputs import bar, counted, digest, scored_cases, write_whole
from scripts._program import INTERRUPTED, exit_code, log_to_stderr
from scripts.train import requirement
from sidecar.errors import FileError, SidecarError
from sidecar.records import Case
from sidecar.stores.files import read_catalogue, read_events
from sidecar.stores.models import pick_device
from sidecar.training.dev_cases import cases_of_log
from sidecar.training.evaluation import case_is_counted
from sidecar.training.event_table import EventTable
from sidecar.training.examples import FEWEST_CANDIDATES
from sidecar.training.merging import merged_events
from sidecar.training.pipeline import TrainConfig

try:
    from sidecar.training.search_space import DEFAULT, NOT_TUNED, Space
    from sidecar.training.tuning import METHODS, DevWindow, Study, TrialRecord, open_study
except ModuleNotFoundError as error:  # Optuna is no package that serving or training needs
    if error.name != "optuna":
        raise
    sys.exit("tune: the package optuna is not installed; pip install optuna")

MOST_CASES = 3000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, one line of JSON about the winner to stdout."""
    parser = _parser()
    options = parser.parse_args(argv)
    if options.dev_until is not None and options.dev_until <= options.until:
        parser.error("--dev-until must lie after --until: the dev window is between them")
    log_to_stderr()
    try:
        print(json.dumps(_tune(options)))
    except (SidecarError, OSError) as error:
        print(f"tune: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tune: interrupted; the same command goes on from here", file=sys.stderr)
        return INTERRUPTED
    return 0


def _tune(options: argparse.Namespace) -> dict[str, Any]:
    described = _read_space(options.space) if options.space else DEFAULT
    space = Space.of(described, requirement)
    options.out.mkdir(parents=True, exist_ok=True)
    base = TrainConfig(seed=options.seed, device=pick_device(options.device))
    window = _window(options)  # before the study takes the folder for these inputs
    with _alone(options.out), open_study(options.out / "study.db", space, options.seed,
                                         _inputs(options, described)) as study:
        _write(options.out, study)
        objective = window.objective(partial(bar, leave=False))
        for row in study.run(options.method, options.trials, objective, base):
            _write(options.out, study)
            _tell(row, study)
        return _winner(options.out, study)


def _window(options: argparse.Namespace) -> DevWindow:
    rows = list(counted(read_catalogue(options.catalogue), "catalogue"))
    by_id = {row["item_id"]: k for k, row in enumerate(rows)}
    log = EventTable.from_events(counted(read_events(options.events), "events"), by_id)
    if not log.has_times:
        raise FileError(f"{options.events} has no times, so nothing lies before --until")
    end = options.dev_until if options.dev_until is not None else float("inf")
    log = log.until(end)
    taught = log.until(options.until)
    if not len(taught):
        raise FileError(f"{options.events} has no event before --until; give a later instant")
    if not options.cases:
        return DevWindow(rows, taught, log, cases_of_log(
            log, rows, since=options.until, until=end, most=options.most_cases, seed=options.seed))
    cases = _cases(options, rows, end)
    told = merged_events(counted(read_events(options.events), "events, for the cases"), cases)
    return DevWindow(rows, taught, EventTable.from_events(told, by_id).until(end), cases)


def _cases(options: argparse.Namespace, rows: Sequence[dict[str, Any]], end: float) -> list[Case]:
    cases = [case for case in scored_cases(options.cases, rows)
             if options.until <= case.ts < end]
    if not cases:
        raise FileError(f"{options.cases} has no case between --until and --dev-until")
    # In the order of a hash, so that a cut keeps cases of the whole window.
    cases.sort(key=lambda case: hashlib.sha256(case.case_id.encode()).digest())
    cases = cases[:options.most_cases]
    if not any(map(case_is_counted, cases)):
        raise FileError(f"{options.cases} has no case to judge by: one needs a relevant item among "
                        f"{FEWEST_CANDIDATES} candidates or more")
    return cases


def _read_space(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read as JSON: {error}") from error


def _inputs(options: argparse.Namespace, space: object) -> dict[str, Any]:
    """Return what has to be the same in every run of a study."""
    files = {name: digest(path) for name in ("catalogue", "events", "cases")
             if (path := getattr(options, name)) is not None}
    return files | {"until": options.until, "dev-until": options.dev_until, "space": space,
                    "seed": options.seed, "most-cases": options.most_cases}


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this run; raise FileError where another has it."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FileError(f"another run is tuning into {folder}; wait for it, or give another "
                            "--out") from error
        yield


def _write(folder: Path, study: Study) -> None:
    """Write the table of trials, and the best configuration if there is one."""
    write_whole(folder / "trials.jsonl",
                "".join(json.dumps(row.as_json()) + "\n" for row in study.rows()))
    best = study.best()
    if best is not None:
        write_whole(folder / "config.json", json.dumps(_whole_config(best, study), indent=2) + "\n")


def _whole_config(best: TrialRecord, study: Study) -> dict[str, Any]:
    """Return every option that decides what a model is, so that a later default changes nothing."""
    whole = dataclasses.asdict(TrainConfig()) | dict(study.space.fixed) | dict(best.config)
    return {name: value for name, value in whole.items() if name not in NOT_TUNED}


def _tell(row: TrialRecord, study: Study) -> None:
    best = study.best()
    so_far = f"best {best.figures['mrr']:.4f} (trial {best.trial})" if best else "no best yet"
    said = f"MRR {row.figures['mrr']:.4f}" if row.state == "complete" else f"failed: {row.error}"
    print(f"trial {row.trial}: {said}; {so_far}; {row.seconds:.0f} s; {json.dumps(row.config)}",
          file=sys.stderr)


def _winner(folder: Path, study: Study) -> dict[str, Any]:
    rows, best = study.rows(), study.best()
    failed = [row for row in rows if row.state == "failed"]
    if best is None:
        first = f"; the first: {failed[0].error}" if failed else ""
        raise FileError(f"not one of {len(failed)} trials could be completed{first}")
    return {"config": str(folder / "config.json"), "trials": str(folder / "trials.jsonl"),
            "complete": sum(row.state == "complete" for row in rows), "failed": len(failed),
            **{name: value for name, value in best.as_json().items() if name != "config"}}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.tune", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="A space is a JSON object of training options: VALUE, {\"choices\": [...]} or "
               "{\"low\": A, \"high\": B}, with \"log\": true, \"step\": S, and \"points\": N "
               "for a grid. Built in:\n" + json.dumps(DEFAULT))
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument("--events", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cases", type=Path, metavar="FILE",
                        help="searches to judge by (default: made from the log)")
    parser.add_argument("--until", type=instant, required=True, metavar="TS",
                        help="end of training and start of the dev window, ISO 8601")
    parser.add_argument("--dev-until", type=instant, metavar="TS",
                        help="end of the dev window (default: of the events)")
    parser.add_argument("--method", choices=METHODS, default="bayesian")
    parser.add_argument("--trials", type=whole(1), default=20, metavar="N",
                        help="trials of the study, those of earlier runs among them (default: 20)")
    parser.add_argument("--most-cases", type=whole(1), default=MOST_CASES, metavar="N",
                        help=f"searches that a trial is judged by (default: {MOST_CASES})")
    parser.add_argument("--out", type=new_directory, required=True, metavar="DIR")
    parser.add_argument("--space", type=Path, metavar="FILE", help="see below")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
