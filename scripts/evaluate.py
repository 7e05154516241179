"""Read a model, a catalogue, events and cases, and print how good the orders are.

Each case is ranked with the events before its own time; only the metrics read its answer. The model
is compared with the engine's order, simple rules, the model without its personal part, the model
without each signal, and each signal alone. Slices cover repeats, new items, lengths of the history,
and histories that have nothing to do with what the search found. --rankings-out writes one line per
case, with every candidate once. --report writes the same figures, and curves, as one HTML page with
plots.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from scripts._arguments import new_file, number
from scripts._inputs import bar, counted, ranker_over, scored_cases
from scripts._program import exit_code, known, log_to_stderr
from sidecar.analysis.evaluation_report import evaluation_page, more_figures
from sidecar.errors import InputError, SidecarError
from sidecar.ranking.items import ItemTable
from sidecar.records import Case
from sidecar.stores.files import read_catalogue, read_events
from sidecar.training.evaluation import (
    THRESHOLD,
    TRAINED,
    Evaluated,
    check_baselines,
    evaluate,
    report,
)
from sidecar.training.event_table import EventTable
from sidecar.training.merging import merged_events

SHOWN = ("BM25", "popularity", "BM25+popularity", "BM25+popularity+repeats",
         "BM25+popularity+repeats+association", "unpersonalised", "model")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, the table or JSON to stdout."""
    options = _parser().parse_args(argv)
    log_to_stderr(logging.INFO)
    try:
        cases, evaluated, items = _evaluate(options)
        if options.rankings_out:
            _write_rankings(options.rankings_out, cases, evaluated)
        figures = report(evaluated, options.threshold)
        if options.report:
            figures |= more_figures(evaluated, items)
            options.report.write_text(evaluation_page(figures, f"Orders of {options.model.name}"),
                                      encoding="utf-8")
    except (SidecarError, OSError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 1
    print(json.dumps(known(figures), allow_nan=False) if options.json else _table(figures))
    return 0


def _evaluate(options: argparse.Namespace) -> tuple[list[Case], Evaluated, ItemTable]:
    rows = list(counted(read_catalogue(options.catalogue), "catalogue"))
    ranker = ranker_over(options.model, options.device, options.catalogue, rows)
    ranker.orders_strangers = options.without_history == "model"
    cases = scored_cases(options.cases, rows)
    learnt = ranker.knowledge.statistics.clock - 1.0  # the last event that training saw
    early = sum(0 < case.ts <= learnt for case in cases)
    if early:
        logging.warning("%d cases lie in the time that the model learnt from: it knows what came "
                        "after them; train with --until before the first", early)
    log = EventTable.from_events(
        merged_events(counted(read_events(options.events), "events"), cases),
        ranker.items.row_of)
    evaluated = evaluate(ranker, log, cases, bar("evaluate"), options.baselines, rows)
    return cases, evaluated, ranker.items


def _write_rankings(path: Path, cases: Sequence[Case], evaluated: Evaluated) -> None:
    """Write every case in file order; a case without candidates has an empty ranking."""
    place = {id(case): k for k, case in enumerate(evaluated.cases)}  # a case_id may be there twice
    with path.open("wb") as file:
        for case in cases:
            k = place.get(id(case))
            ranking = [] if k is None else [case.candidates[p] for p in
                                            evaluated.order("model", k).tolist()]
            file.write(msgspec.json.encode({"case_id": case.case_id, "ranking": ranking}) + b"\n")


def _gain(gain: dict[str, Any], which: str) -> str:
    if not gain["cases"]:
        return f"no case got {which}"
    verdict = "excludes" if gain["low"] > 0 or gain["high"] < 0 else "includes"
    return (f"personal gain in MRR over {gain['cases']} cases with {which}: "
            f"{gain['difference']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]: the interval "
            f"{verdict} zero; {gain['loss']:.1%} of them lose by it, worst tenth "
            f"{gain['worst_tenth']:+.3f}")


def _table(figures: dict[str, Any]) -> str:
    lines = [f"{figures['counted']} of {figures['cases']} cases count: a relevant candidate, "
             "at least five candidates"]
    for name, part in figures["slices"].items():
        lines.append(f"\n{name} ({part['cases']} cases)")
        lines.append(f"{'':38}{'MRR':>22}{'NDCG@10':>10}{'hit@10':>8}{'vs BM25 (95 %)':>26}"
                     f"{'win/tie/loss':>16}{'vs unpersonalised (95 %)':>28}{'win/tie/loss':>16}")
        rankers = part["rankers"]
        wanted = [*SHOWN, *(r for r in rankers if r not in SHOWN)] if name == "all" else SHOWN
        lines.extend(_line(ranker, rankers[ranker]) for ranker in wanted if ranker in rankers)
    if not figures["counted"]:
        return "\n".join(lines)
    lines.append("\n" + _gain(figures["personal_gain"], "a personal order"))
    lines.append(_gain(figures["unrelated_gain"], "a personal order by a history unrelated to the "
                       "hits"))
    against = figures["slices"].get("all", {}).get("rankers", {}).get("model", {}).get(
        "mrr vs BM25")
    if against:
        lines.append(f"against BM25: {against['difference']:+.4f}; {against['loss']:.1%} of cases "
                     f"lose, worst tenth {against['worst_tenth']:+.3f}")
    for name, values in figures["classification"].items():
        lines.append(f"{name}: " + ", ".join(f"{k} {v:.3f}" for k, v in values.items()))
    return "\n".join(lines)


def _line(name: str, entry: dict[str, Any]) -> str:
    mean, low, high = entry["mrr"]
    tail = (_versus(entry.get("mrr vs BM25"), 26)
            + _versus(entry.get("mrr vs unpersonalised"), 28)).rstrip()
    return (f"{name:38}{mean:8.4f} [{low:.3f}, {high:.3f}]{entry['ndcg@10'][0]:9.4f}"
            f"{entry['hit_rate@10']:8.3f}{tail}")


def _versus(versus: dict[str, Any] | None, width: int) -> str:
    if versus is None:
        return " " * (width + 16)
    spread = f"{versus['difference']:+.3f} [{versus['low']:+.3f}, {versus['high']:+.3f}]"
    return (spread.rjust(width)
            + f"{versus['win']:.2f}/{versus['tie']:.2f}/{versus['loss']:.2f}".rjust(16))


def _baselines(text: str) -> tuple[str, ...]:
    names = tuple(name for name in (part.strip() for part in text.split(",")) if name)
    try:
        check_baselines(names)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.evaluate", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument("--events", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cases", type=Path, required=True, metavar="FILE")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rankings-out", type=new_file, metavar="FILE")
    parser.add_argument("--report", type=new_file, metavar="FILE",
                        help="write one self-contained HTML page with plots")
    parser.add_argument("--baselines", type=_baselines, default=(), metavar="NAME[,NAME]",
                        help="trained baselines to put beside the model; known: "
                             + ", ".join(TRAINED))
    parser.add_argument("--threshold", type=number(0.0, 1.0), default=THRESHOLD,
                        help="probability from which on a candidate is predicted to be relevant")
    parser.add_argument("--without-history", choices=("engine", "model"), default="engine",
                        help="order for cases without history (default: the engine's)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
