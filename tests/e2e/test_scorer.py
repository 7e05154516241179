"""Workers with a scorer of their own give the orders of workers without, come what may."""

from __future__ import annotations

import os
import re
import signal

import numpy as np
import pytest

from sidecar.stores.models import save_ranker
from tests.processes import scorers_of
from tests.shops import fresh_ranker, make_rows

ITEMS = [row["item_id"] for row in make_rows()][:40]
HITS = [{"id": item_id, "score": 40.0 - place} for place, item_id in enumerate(ITEMS)]


@pytest.fixture
def trained_dir(tmp_path):
    folder = tmp_path / "trained"
    save_ranker(fresh_ranker(), folder, {})
    return folder


def buy(sidecar, *items):
    answer = sidecar.request("POST", "/_personalize/events", [
        {"user_id": "u1", "item_id": item, "event": "purchase"} for item in items])
    assert answer.status == 200, answer.body


def scores(sidecar):
    answer = sidecar.request("POST", "/_personalize/rescore",
                             {"user_id": "u1", "query": "mug", "hits": HITS})
    assert answer.status == 200, answer.body
    assert answer.outcome == "applied"
    return np.array(answer.json["scores"])


def answered(sidecar):
    """Return how many batches the scorer has run for this sidecar's workers."""
    found = re.search(r'personalize_scorer_requests_total\{outcome="answered"\} (\S+)',
                      sidecar.request("GET", "/metrics").body.decode())
    return float(found[1]) if found else 0.0


def asked_until_it_answers(sidecar, until):
    before = answered(sidecar)

    def is_answered():
        scores(sidecar)
        return answered(sidecar) > before

    until(is_answered, "the scorer does not answer", seconds=60.0)


def test_scorer_changes_no_order_and_its_death_costs_none(sidecars, trained_dir, until):
    alone = sidecars.start(model_dir=trained_dir, scorer="off")
    shared = sidecars.start(model_dir=trained_dir, scorer="on")
    buy(alone, *ITEMS[5:8])
    asked_until_it_answers(shared, until)
    buy(shared, *ITEMS[20:22])
    until(lambda: all(np.allclose(scores(shared), scores(alone), atol=1e-3) for _ in range(100)),
          "scores differ")  # while a worker, by turns of a second, has yet to read what is popular
    [pid] = scorers_of(shared.process.pid)
    os.kill(pid, signal.SIGKILL)
    for _ in range(20):
        np.testing.assert_allclose(scores(shared), scores(alone), atol=1e-3)
    asked_until_it_answers(shared, until)
    [successor] = scorers_of(shared.process.pid)
    assert successor != pid
    assert scorers_of(alone.process.pid) == []
    shared.stop()
    until(lambda: scorers_of(shared.process.pid) == [], "the scorer outlived its sidecar")


def test_scorer_ends_with_a_sidecar_whose_master_is_killed(sidecars, trained_dir, until):
    sidecar = sidecars.start(model_dir=trained_dir, scorer="on", workers=1)
    until(lambda: scorers_of(sidecar.process.pid), "no scorer was started")
    sidecar.stop(signal.SIGKILL)
    until(lambda: scorers_of(sidecar.process.pid) == [], "the scorer outlived its sidecar", 60.0)
