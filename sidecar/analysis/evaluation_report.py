"""An evaluation as one page: how good each order is, for whom, and what the gain costs.

Reads the figures of ``evaluation.report`` and, if given, of ``more_figures``; computes none anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sidecar.analysis.charts import bars, lines, number
from sidecar.analysis.page import HtmlPage, figure, heading, prose, table
from sidecar.ranking.items import ItemTable
from sidecar.training.diversity_effect import FACTS, diversity_effect
from sidecar.training.evaluation import UNRELATED, Evaluated, case_is_counted
from sidecar.training.metrics import (
    RANKING_METRICS,
    curves,
    list_probabilities,
    mean_of,
    reliability,
)

Figures = Mapping[str, Any]
CURVED = ("model", "unpersonalised", "BM25+popularity")
PLAIN = ("BM25", "popularity", "BM25+popularity", "BM25+popularity+repeats",
         "BM25+popularity+repeats+association", "unpersonalised", "model",
         "model, another's history")


def more_figures(evaluated: Evaluated, items: ItemTable) -> dict[str, Any]:
    """Return what only a report shows: ``curves`` by ranker (ROC, precision and recall,
    reliability, over all candidates of the counted cases) and ``diversity`` by strength."""
    counted = np.array([case_is_counted(case) for case in evaluated.cases], bool)
    valid = evaluated.lists.valid[counted]
    label = evaluated.lists.target[counted][valid]
    found = {}
    for name in CURVED if counted.any() else ():
        probability = list_probabilities(evaluated.scores[name][counted], valid)[valid]
        found[name] = {**curves(probability, label),
                       "reliability": reliability(probability, label)}
    return {"curves": found, "diversity": diversity_effect(evaluated, items)}


def evaluation_page(figures: Figures, title: str) -> str:
    """Return the HTML document for ``report``'s figures joined with ``more_figures``'."""
    page = HtmlPage(title, (
        f"{figures['counted']:,} of {figures['cases']:,} cases count: a relevant candidate, at "
        "least five candidates. Intervals are 95 % bootstrap intervals over cases. "
        f"{_gain(figures['personal_gain'], 'a personal order')}" if figures["counted"] else
        "No case counts: none has a relevant candidate among at least five."))
    slices = figures["slices"]
    if "all" in slices:
        _orders(page, slices["all"]["rankers"])
        _slices(page, slices, figures["unrelated_gain"])
        _lengths(page, slices)
        _losses(page, slices["all"]["rankers"])
        _signals(page, slices["all"]["rankers"])
    _classes(page, figures)
    _diversity(page, figures.get("diversity") or ())
    return page.html()


def _gain(gain: Figures, which: str) -> str:
    if not gain["cases"]:
        return f"No case got {which}."
    return (f"Personal gain in MRR: {_signed(gain)} over the {gain['cases']:,} cases that got "
            f"{which}; {gain['loss']:.0%} of them lose by it.")


def _orders(page: HtmlPage, rankers: Figures) -> None:
    names = [*(n for n in PLAIN if n in rankers), *(n for n in rankers if _is_baseline(n))]
    page.section(
        "Orders", figure(
            bars([(n, rankers[n]["mrr"][0]) for n in names],
                 intervals=[tuple(rankers[n]["mrr"][1:]) for n in names]),
            "MRR over all counted cases, with its interval."),
        table(["", *(m.upper() if m in ("mrr", "map") else m for m in RANKING_METRICS)],
              [[n, *(number(mean_of(rankers[n][m])) for m in RANKING_METRICS)] for n in names]))


def _slices(page: HtmlPage, slices: Figures, unrelated: Figures) -> None:
    parts = [prose(
        "An unrelated history shares no item, brand or narrowest category with any hit, and holds "
        "nothing that goes with one. "
        f"{_gain(unrelated, 'a personal order by such a history')}")]
    for baseline in ("BM25", "unpersonalised"):
        found = {name: part["rankers"]["model"].get(f"mrr vs {baseline}")
                 for name, part in slices.items()}
        told = {name: versus for name, versus in found.items() if versus}
        parts += [heading(f"The model against {baseline}"), figure(
            bars([(f"{name} ({slices[name]['cases']:,})", versus["difference"])
                  for name, versus in told.items()],
                 intervals=[(v["low"], v["high"]) for v in told.values()]),
            "Difference in MRR a slice (cases); an interval that holds zero shows nothing.")]
    rows = [[name, number(part["cases"]), *(
        _spread(part["rankers"][ranker]["mrr"]) for ranker in ("BM25", "unpersonalised", "model")),
        _spread(part["rankers"]["model"]["ndcg@10"])] for name, part in slices.items()]
    page.section("Slices", *parts, table(
        ["slice", "cases", "MRR, BM25", "MRR, unpersonalised", "MRR, model", "NDCG@10, model"],
        rows))


def _lengths(page: HtmlPage, slices: Figures) -> None:
    lengths = [name for name in slices if name.startswith("history ") and name != UNRELATED]
    series = {f"against {baseline}": [
        (float(k), slices[name]["rankers"]["model"][f"mrr vs {baseline}"]["difference"])
        for k, name in enumerate(lengths)] for baseline in ("BM25", "unpersonalised")}
    page.section("Gain by history", figure(
        lines(series, x_label="events in the history", y_label="difference in MRR",
              x_names=[name.removeprefix("history ") for name in lengths]),
        "What the model adds, by how many events of the shopper it knew."))


def _losses(page: HtmlPage, rankers: Figures) -> None:
    rows, shares = [], []
    for baseline in ("BM25", "unpersonalised"):
        versus = rankers["model"].get(f"mrr vs {baseline}")
        if versus is None:
            continue
        rows.append([baseline, f"{versus['win']:.1%}", f"{versus['tie']:.1%}",
                     f"{versus['loss']:.1%}", _signed(versus), f"{versus['worst_tenth']:+.3f}"])
        shares += [(f"{what} against {baseline}", versus[what]) for what in ("win", "tie", "loss")]
    page.section("Wins and losses", prose(
        "How often the model's order puts the first relevant item higher, as high or lower, and "
        "how much MRR the tenth of the cases that lose most loses on average."),
        table(["against", "win", "tie", "loss", "mean difference", "worst tenth"], rows),
        figure(bars(shares), "Shares of cases."))


def _signals(page: HtmlPage, rankers: Figures) -> None:
    full = rankers["model"]["mrr"][0]
    signals = [n.removesuffix(" alone") for n in rankers if n.endswith(" alone")]
    without = [(s, full - rankers[f"without {s}"]["mrr"][0]) for s in signals]
    alone = [(s, rankers[f"{s} alone"]["mrr"][0]) for s in signals]
    page.section(
        "Signals", heading("Left out"), figure(
            bars(without), "MRR that the trained model loses without one signal, as it serves."),
        heading("Alone"), figure(
            bars(alone, intervals=[tuple(rankers[f"{s} alone"]["mrr"][1:]) for s in signals]),
            "MRR of one signal's part by itself."))


def _classes(page: HtmlPage, figures: Figures) -> None:
    found: Figures = figures.get("curves") or {}
    names = ("threshold", "accuracy", "precision", "recall", "f1", "auc")
    rows = [[ranker, *(number(values[n]) for n in names)]
            for ranker, values in figures["classification"].items()] if figures["counted"] else []
    parts = [prose("Each list's scores as probabilities (a softmax over its candidates), a "
                   "candidate said to be relevant from the threshold on."),
             table(["", "threshold", "accuracy", "precision", "recall", "F1", "AUC"], rows)]
    if found:
        parts += [
            heading("ROC"), figure(lines({n: c["roc"] for n, c in found.items()}, diagonal=True,
                                         x_label="false positive rate",
                                         y_label="true positive rate"),
                                   "Over all thresholds; the dashed line is chance."),
            heading("Precision and recall"), figure(
                lines({n: c["precision_recall"] for n, c in found.items()}, x_label="recall",
                      y_label="precision"), "Over all thresholds."),
            heading("Reliability"), figure(
                lines({n: [(said, was) for said, was, _ in c["reliability"]["bins"]]
                       for n, c in found.items()}, diagonal=True,
                      x_label="mean probability of a bin", y_label="share relevant"),
                "Ten bins of equal width; on the dashed line, probabilities are what they say. "
                "Expected calibration error: " + ", ".join(
                    f"{n} {c['reliability']['error']:.4f}" for n, c in found.items()) + "."),
            table(["the model's bins: mean probability", "share relevant", "candidates"],
                  [[number(said), number(was), number(count)]
                   for said, was, count in found["model"]["reliability"]["bins"]])]
    page.section("Relevant or not", *parts)


def _diversity(page: HtmlPage, effect: Any) -> None:
    if not effect:
        return
    series = {"MRR": [(e["strength"], e["mrr"]) for e in effect],
              "distance of the first ten": [(e["strength"], e["distance@10"]) for e in effect]}
    rows = [[f"{e['strength']:g}", *(number(e[f]) for f in FACTS), _signed(e["mrr_change"])]
            for e in effect]
    page.section("Diversity", prose(
        "What X-Personalize-Diversity costs and brings: mean cosine distance of two of the first "
        "ten hits' item vectors, and entropy of their brands and narrowest categories in bits."),
        figure(lines(series, x_label="strength", y_label="mean"), "By strength."),
        table(["strength", "MRR", "NDCG@10", "distance", "brands", "categories",
               "change in MRR"], rows))


def _is_baseline(name: str) -> bool:
    """True for a ranker that is neither ours nor a part of ours, such as a trained baseline."""
    return not (name in PLAIN or name.endswith(" alone") or name.startswith("without "))


def _spread(value: Any) -> str:
    mean, low, high = value
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _signed(versus: Figures) -> str:
    return f"{versus['difference']:+.4f} [{versus['low']:+.4f}, {versus['high']:+.4f}]"
