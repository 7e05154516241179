"""What the parts of a personalised search cost on their own; each result is checked as well.

``pytest tests/benchmarks`` prints the table; ``--benchmark-disable`` runs the checks alone.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sidecar.ranking.blend import Blend
from sidecar.ranking.encoder import Encoder, EncoderConfig
from sidecar.ranking.kernels import CONTEXT
from sidecar.ranking.packed_blend import PackedBlend
from sidecar.ranking.signals import FEATURES, SIGNALS
from sidecar.records import Candidates, Ranking
from sidecar.search import answers
from sidecar.serving import explanations

WINDOW = 100
WIDTH = 64


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


def test_split_and_join_a_response_of_100_hits(benchmark, response):
    def split_and_join():
        answer = answers.read_answer(response)
        return answer.with_hits(answer.hits[::-1][:10])

    page = json.loads(benchmark(split_and_join))
    assert [hit["_id"] for hit in page["hits"]["hits"]] == [f"item-{99 - n}" for n in range(10)]


def test_blend_100_hits(benchmark, features):
    torch.manual_seed(0)
    packed = PackedBlend(Blend().eval())
    context = np.zeros(len(CONTEXT), np.float32)
    parts = benchmark(packed.parts, features, context, has_history=True)
    assert parts.shape == (WINDOW, len(SIGNALS))


@pytest.mark.parametrize("hits", [100, 1000])
def test_score_hits_by_interest(benchmark, hits):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(100_000, WIDTH)).astype(np.float32)
    rows = rng.integers(0, len(vectors), hits)
    interest = rng.normal(size=WIDTH).astype(np.float32)
    assert benchmark(lambda: vectors[rows] @ interest).shape == (hits,)


def test_one_step_of_the_encoder(benchmark):
    torch.set_num_threads(1)
    encoder = Encoder(EncoderConfig(items=10, brands=2, categories=2)).eval()
    event = torch.randn(1, 1, encoder.config.width)
    hidden = torch.zeros(encoder.config.layers, 1, encoder.config.hidden)

    def step():
        with torch.inference_mode():
            return encoder(event, hidden)[1]

    assert benchmark(step).shape == hidden.shape


def test_explain_a_page_of_ten(benchmark):
    scores = np.linspace(1, 0, WINDOW, dtype=np.float32)
    ranking = Ranking(np.arange(WINDOW), scores, {s: scores / len(SIGNALS) for s in SIGNALS},
                      (("purchase of a, 2 days ago",),) * WINDOW, 7, "v1")
    candidates = Candidates(tuple(f"item-{n}" for n in range(WINDOW)), scores)
    told = benchmark(explanations.applied, ranking, candidates, range(10), ["products"] * WINDOW)
    assert len(told["hits"]) == 10
