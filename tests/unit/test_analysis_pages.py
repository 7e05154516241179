"""Charts and pages: well-formed, self-contained, safe with any title, honest about nothing."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import pytest

from sidecar.analysis import charts
from sidecar.analysis.evaluation_report import evaluation_page
from sidecar.analysis.page import HtmlPage, figure, prose, table
from sidecar.training.metrics import RANKING_METRICS

NASTY = '<script>alert("x")</script> & co'
EVIL = [
    charts.bars([(NASTY, 1.0), ("b", -2.0), ("c", math.nan)], intervals=[(0, 2), (-3, -1), (
        math.nan, math.nan)]),
    charts.lines({NASTY: [(0, 1), (1, math.inf), (2, 3)], "other": [(0, 0)]}, x_label=NASTY,
                 y_label="y", diagonal=True),
    charts.lines({"dots": [(0.5, 0.5)]}, x_label="x", y_label="y", dots=True),
    charts.columns([(NASTY, 3), ("b", 0)], x_label="x", y_label=NASTY),
    charts.heat([NASTY], [NASTY, "b"], [[0.5, 0.0]]),
]


class Checker(HTMLParser):
    """Holds tags against each other, and gathers what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not {name for name, _ in attrs} & {"src", "onload", "onclick"}
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def check(html: str) -> None:
    """Assert that a page is well-formed, fetches nothing and runs nothing."""
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert not checker.tags & {"script", "link", "img", "iframe"}
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", html)


@pytest.mark.parametrize("drawn", EVIL)
def test_charts_are_well_formed_svg_whatever_they_are_given(drawn):
    ET.fromstring(drawn[:drawn.index("</svg>") + 6])
    assert "<script" not in drawn
    assert "nan" not in drawn
    assert "inf" not in drawn


@pytest.mark.parametrize("drawn", [
    charts.bars([]), charts.lines({}, x_label="", y_label=""), charts.heat([], [], []),
    charts.lines({"a": [(math.nan, 1.0)]}, x_label="", y_label=""),
    charts.columns([("a", 0.0)], x_label="", y_label=""), table(["a"], [])])
def test_nothing_is_said_to_be_nothing(drawn):
    assert "Nothing to show" in drawn


def test_values_are_named_for_readers():
    drawn = charts.bars([("sugar", 1234.0), ("salt", 0.25)])
    assert "sugar: 1,234" in drawn
    assert "salt: 0.250" in drawn


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.05, 0.38), (0, 91_234), (3, 3), (-5, -1)])
def test_ticks_are_round_and_within(low, high):
    found = charts.ticks(low, high)
    assert 1 <= len(found) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_page_is_self_contained_and_escapes():
    page = HtmlPage(NASTY, NASTY)
    page.section(NASTY, prose(NASTY), table([NASTY], [[NASTY]]), *(figure(e, NASTY) for e in EVIL))
    html = page.html()
    check(html)
    assert "prefers-color-scheme:dark" in html
    assert "alert(&quot;x&quot;)" in html


def test_evaluation_without_counted_cases_is_a_page_that_says_so():
    html = evaluation_page({
        "cases": 2, "counted": 0, "slices": {}, "classification": {}, "personal_gain": {}}, "t")
    check(html)
    assert "No case counts" in html


def versus(difference=0.1):
    return {"difference": difference, "low": difference - 0.05, "high": difference + 0.05,
            "win": 0.5, "tie": 0.3, "loss": 0.2, "worst_tenth": -0.4}


def test_evaluation_page_tells_gains_losses_and_signals():
    ranker = {**dict.fromkeys(RANKING_METRICS, 0.5), "mrr": (0.5, 0.4, 0.6),
              "ndcg@10": (0.5, 0.4, 0.6), "mrr vs BM25": versus(),
              "mrr vs unpersonalised": versus(0.02)}
    names = ("BM25", "unpersonalised", "model", "repeat alone", "without repeat", "lightgbm")
    part = {"cases": 10, "rankers": dict.fromkeys(names, ranker)}
    html = evaluation_page({
        "cases": 10, "counted": 10,
        "slices": {"all": part, "history 1-9": part, "history unrelated": part},
        "classification": {"model": {"threshold": 0.1, "accuracy": 0.9, "precision": 0.5,
                                     "recall": 0.5, "f1": 0.5, "auc": 0.8}},
        "personal_gain": {"cases": 8, **versus(0.02)},
        "unrelated_gain": {"cases": 3, **versus(0.01)},
        "curves": {"model": {"roc": [(0, 0), (1, 1)], "precision_recall": [(1, 0.5)],
                             "reliability": {"bins": [(0.1, 0.2, 5)], "error": 0.1}}},
        "diversity": [{"strength": 0.5, "mrr": 0.5, "ndcg@10": 0.5, "distance@10": 0.3,
                       "brand_entropy@10": 1.0, "category_entropy@10": 1.0,
                       "mrr_change": versus(-0.01)}]}, "Orders")
    check(html)
    assert "over the 8 cases that got a personal order; 20% of them lose by it" in html
    assert "+0.0100 [-0.0400, +0.0600] over the 3 cases that got a personal order by such" in html
    assert html.count(">unrelated<") == 0  # no length of a history
    assert "+0.0200 [-0.0300, +0.0700]" in html
    for word in ("lightgbm", "-0.400", "repeat", "history 1-9", "Reliability", "Diversity"):
        assert word in html
