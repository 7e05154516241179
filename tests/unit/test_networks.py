"""Many searches and users in one batch come out as each does by itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sidecar.ranking.networks import BlendJob, Networks, StepJob
from sidecar.ranking.packed_blend import PackedBlend
from sidecar.ranking.ranker import Ranker
from sidecar.ranking.signals import CONTEXT, FEATURES
from sidecar.ranking.vocabulary import TEXT_WIDTH
from sidecar.records import FloatArray
from tests.shops import context, fresh_ranker, history_of, make_events, make_rows, state_of, window

EVENTS = make_events(make_rows())


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return fresh_ranker()


@pytest.fixture(scope="module")
def networks(ranker: Ranker) -> Networks:
    return Networks(ranker.encoder, ranker.blend, "cpu")


def blend_job(count: int, *, has_history: bool) -> BlendJob:
    rng = np.random.default_rng(count)
    features = (rng.normal(size=(count, len(FEATURES))) * 3).astype(np.float32)
    features[rng.random(features.shape) < 0.1] = np.nan
    return BlendJob(features, rng.normal(size=len(CONTEXT)).astype(np.float32), has_history)


def step_job(ranker: Ranker, users: int, events: int) -> StepJob:
    rng = np.random.default_rng(users * 100 + events)
    layers, hidden = ranker.encoder.hidden_shape

    def drawn(*shape: int) -> FloatArray:
        return rng.normal(size=shape).astype(np.float32)

    return StepJob(drawn(users, events, ranker.encoder.config.width),
                   rng.integers(0, 4, (users, events)), np.abs(drawn(users, events)) * 1e4,
                   drawn(users, events, TEXT_WIDTH), np.tanh(drawn(layers, users, hidden)))


@pytest.mark.parametrize("counts", [(1,), (100,), (7, 100, 1, 30), (64, 64), tuple(range(1, 12))])
def test_searches_of_one_batch_get_the_parts_that_each_gets_alone(
        ranker: Ranker, networks: Networks, counts: Sequence[int]) -> None:
    jobs = [blend_job(count, has_history=k % 3 != 1) for k, count in enumerate(counts)]
    packed = PackedBlend(ranker.blend)
    for job, found in zip(jobs, networks.parts(jobs), strict=True):
        alone = packed.parts(job.features, job.context, has_history=job.has_history)
        np.testing.assert_allclose(found, alone, atol=1e-4)


def test_users_of_one_batch_step_as_each_does_alone(ranker: Ranker, networks: Networks) -> None:
    jobs = [step_job(ranker, users, events)
            for users, events in ((1, 1), (3, 1), (1, 20), (2, 1), (1, 20), (4, 2))]
    for job, found in zip(jobs, networks.steps(jobs), strict=True):
        assert found.shape == job.layers.shape
        np.testing.assert_allclose(found, networks.steps([job])[0], atol=1e-5)


def test_no_jobs_are_no_answers(networks: Networks) -> None:
    assert networks.parts([]) == []
    assert networks.steps([]) == []


class Nearby:
    """Networks that answer or do not, as if from elsewhere."""

    def __init__(self, networks: Networks, *, answers: bool) -> None:
        self.networks = networks
        self.answers = answers
        self.asked: list[tuple[str, str]] = []

    def parts(self, version: str, job: BlendJob) -> FloatArray | None:
        self.asked.append(("parts", version))
        return self.networks.parts([job])[0] if self.answers else None

    def steps(self, version: str, job: StepJob) -> FloatArray | None:
        self.asked.append(("steps", version))
        return self.networks.steps([job])[0] if self.answers else None


@pytest.mark.parametrize("answers", [True, False])
def test_ranker_gives_the_same_order_with_networks_elsewhere(answers: bool) -> None:
    history = history_of([event for event in EVENTS if event.user_id == "u1"])
    hits = window([f"i{k}" for k in range(0, 60, 3)])
    alone, helped = fresh_ranker(), fresh_ranker()
    nearby = Nearby(Networks(helped.encoder, helped.blend, "cpu"), answers=answers)
    helped.use(nearby)
    expected, found = (one.rank(hits, state_of(history, one), context()) for one in (alone, helped))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.order.tolist() == expected.order.tolist()
    assert {what for what, _ in nearby.asked} == {"parts", "steps"}
    assert {version for _, version in nearby.asked} == {helped.version}
