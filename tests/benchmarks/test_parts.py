"""What the parts of a personalised search cost on their own; each result is checked as well.

``pytest tests/benchmarks`` prints the table; ``--benchmark-disable`` runs the checks alone.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sidecar.ranking.association import Association
from sidecar.ranking.blend import Blend, window_scores
from sidecar.ranking.encoder import Encoder, EncoderConfig, KindCodes
from sidecar.ranking.explain import Reasons
from sidecar.ranking.history import Trail
from sidecar.ranking.items import ItemTable
from sidecar.ranking.kernels import ASSOCIATIONS, CONTEXT
from sidecar.ranking.logits import half_logits, logits
from sidecar.ranking.packed_blend import PackedBlend
from sidecar.ranking.signals import FEATURES, SIGNALS, Knowledge, Situation, facts
from sidecar.ranking.statistics import ItemStatistics
from sidecar.ranking.stepper import Stepper
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import Candidates, History, Ranking
from sidecar.search import answers
from sidecar.serving import explanations
from tests.shops import DAY_S, START, make_rows

WINDOW = 100
WIDTH = 64
ITEMS = 200
EVENTS = 200
NEIGHBOURS, FACTORS = 100, 48  # an item, as training keeps them
NOW = START + EVENTS * DAY_S  # a day after the last event


@pytest.fixture(scope="module")
def response() -> bytes:
    hits = [{"_index": "products-1", "_id": f"item-{n}", "_score": 10 - n / 20,
             "_source": {"title": f"WHOLE MILK {n}", "brand": "National", "price": n / 3,
                         "categories": ["GROCERY", "MILK"], "description": "x" * 1000}}
            for n in range(WINDOW)]
    return json.dumps({"took": 3, "hits": {"total": {"value": WINDOW}, "hits": hits}}).encode()


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(WINDOW, len(FEATURES))).astype(np.float32)


@pytest.fixture(scope="module")
def shop() -> Knowledge:
    rng = np.random.default_rng(0)
    rows = make_rows(items=ITEMS)
    table = ItemTable(Vocabulary.fit(rows), WIDTH)
    table.upsert(rows)
    table.vectors[:] = rng.normal(size=table.vectors.shape)
    ties = {name: Association(np.arange(ITEMS, dtype=np.int32),
                              rng.integers(0, ITEMS, (ITEMS, NEIGHBOURS), np.int32),
                              rng.random((ITEMS, NEIGHBOURS), np.float32))
            for name in ASSOCIATIONS}
    return Knowledge(table, ItemStatistics(ITEMS), ties,
                     rng.normal(size=(ITEMS, FACTORS)).astype(np.float32),
                     rng.random((ITEMS, 2), np.float32))


@pytest.fixture(scope="module")
def history() -> History:
    """A purchase a day: the first is of i0, and so is every tenth after it."""
    return History(tuple(f"i{n % 10 * 7}" for n in range(EVENTS)), ("purchase",) * EVENTS,
                   tuple(START + n * DAY_S for n in range(EVENTS)), (None,) * EVENTS,
                   tuple(f"e{n}" for n in range(EVENTS)))


@pytest.fixture(scope="module")
def situation(shop, history) -> Situation:
    """The items i0 to i99, of which the history has i0, i7, i14 to i63."""
    trail = Trail.from_events(shop.items.rows(history.item_ids), history.ts, history.events,
                              frozenset(["purchase"]))
    return Situation(np.arange(WINDOW), np.linspace(9, 2, WINDOW, dtype=np.float32), trail, NOW)


def test_split_and_join_a_response_of_100_hits(benchmark, response):
    def split_and_join():
        answer = answers.read_answer(response)
        return answer.with_hits(answer.hits[::-1][:10])

    page = json.loads(benchmark(split_and_join))
    assert [hit["_id"] for hit in page["hits"]["hits"]] == [f"item-{99 - n}" for n in range(10)]


def test_facts_of_100_hits(benchmark, shop, situation):
    facts(shop, situation)  # compiled, as by a warm-up
    found, context = benchmark(facts, shop, situation)
    bought = found[:, FEATURES.index(("repeat", "bought"))]
    assert np.flatnonzero(bought).tolist() == list(range(0, 70, 7))
    assert context[CONTEXT.index("length")] == pytest.approx(np.log1p(EVENTS))


def test_blend_100_hits(benchmark, features):
    torch.manual_seed(0)
    blend = Blend().eval()
    context = np.zeros(len(CONTEXT), np.float32)
    parts = benchmark(PackedBlend(blend).parts, features, context, has_history=True)
    with torch.inference_mode():
        scaled = blend.standardise(torch.from_numpy(features),
                                   torch.from_numpy(window_scores(features)))
        expected = blend(scaled, torch.from_numpy(context)[None], torch.tensor([True]),
                         torch.zeros(WINDOW, dtype=torch.int64)).numpy()
    np.testing.assert_allclose(parts, expected, atol=1e-4)


@pytest.mark.parametrize("hits", [100, 1000])
@pytest.mark.parametrize("precision", [np.float32, np.float16])
def test_score_hits_by_interest(benchmark, hits, precision):
    """In half precision where processes share the items."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100_000, WIDTH)).astype(precision)
    rows = rng.integers(0, len(vectors), hits)
    interest = rng.normal(size=WIDTH).astype(np.float32)
    score, table = ((half_logits, vectors.view(np.uint16)) if precision is np.float16
                    else (logits, vectors))
    score(table, rows, interest, 0.5)  # compiled, as by a warm-up
    found = benchmark(score, table, rows, interest, 0.5)
    np.testing.assert_allclose(found, vectors[rows].astype(np.float32) @ interest + 0.5, atol=1e-4)


def test_one_step_of_the_encoder(benchmark, shop, history):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    encoder = Encoder(EncoderConfig(items=ITEMS, brands=4, categories=8, width=WIDTH)).eval()
    stepper = Stepper(encoder, shop.items, KindCodes(["purchase"]))
    before, event, both = (history.take(slice(*cut)) for cut in ((0, 1), (1, 2), (0, 2)))
    hidden = benchmark(stepper.advance, stepper.advance(None, before), event)
    np.testing.assert_allclose(hidden, stepper.advance(None, both), rtol=1e-5, atol=1e-6)


def test_explain_a_page_of_ten(benchmark, shop, situation, history):
    """Every part is told of, so that all that can be put into words is."""
    part = np.ones(WINDOW, np.float32)
    parts = dict.fromkeys(SIGNALS, part)
    ranking = Ranking(np.arange(WINDOW), part * len(SIGNALS), parts,
                      Reasons(shop, situation, history, parts), 7, "v1")
    candidates = Candidates(tuple(f"i{n}" for n in range(WINDOW)), situation.engine_scores)
    told = benchmark(explanations.applied, ranking, candidates, range(10), ["products"] * WINDOW)
    assert [hit["_id"] for hit in told["hits"]] == [f"i{n}" for n in range(10)]
    assert told["hits"][0]["events"][0] == "purchase of i0, 20 times, last 10 days ago"
    assert all(sum(hit["parts"].values()) == hit["score"] and hit["events"]
               for hit in told["hits"])
