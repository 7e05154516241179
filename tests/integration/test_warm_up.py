"""A worker's own searches before the first: they are ranked, and leave nothing behind."""

from __future__ import annotations

import time

import pytest
from opensearchpy import OpenSearch, helpers

from scripts._machine import find_free_port
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.telemetry import exposition
from sidecar.settings import Settings
from sidecar.stores.models import save_ranker
from sidecar.web.services import build
from sidecar.web.warm_up import SEARCHES, warm_up
from tests.shops import fresh_ranker, make_rows


@pytest.fixture
def services_at(index_prefix, tmp_path):
    """Build services over a node, with a model and indices of the test's own."""
    built = []

    def at(url):
        save_ranker(fresh_ranker(), tmp_path / "model", {})
        names = {f"{name}_index": f"{index_prefix}{name}"
                 for name in ("products", "states", "events", "queries")}
        built.append(build(Settings(opensearch_url=url, model_dir=str(tmp_path / "model"),
                                    device="cpu", timeout_ms=5000.0, **names)))
        built[-1].models.check()
        return built[-1]

    yield at
    for services in built:
        services.close()


def counts():
    """Return what is counted and timed of searches."""
    return [line for line in exposition().splitlines()
            if line.startswith((b"personalize_searches", b"personalize_stage"))]


def test_searches_are_ranked_and_leave_nothing_behind(opensearch, services_at, index_prefix,
                                                      monkeypatch):
    services = services_at(opensearch)
    with OpenSearch([opensearch]) as client:
        helpers.bulk(client, ({"_index": f"{index_prefix}products", "_id": row["item_id"], **row}
                              for row in make_rows()), refresh=True)
        ranked = []
        order = Personalizer.order

        def noted(self, *arguments):
            ranked.append(order(self, *arguments))
            return ranked[-1]

        monkeypatch.setattr(Personalizer, "order", noted)
        before = counts()
        assert warm_up(services) == SEARCHES
        assert len(ranked) == SEARCHES
        assert counts() == before
        indices = client.indices.get(index=f"{index_prefix}*")
        assert set(indices) == {f"{index_prefix}products"}  # no state, no event, no logged query


def test_worker_has_counted_the_log_before_its_first_search(opensearch, services_at):
    """One that took another's place ranked by the model's own counts until it had read the events
    since training: pages that it and the others answered by turns repeated hits."""
    services = services_at(opensearch)
    item, now = services.models().items.ids[3], time.time()

    def sold():
        return services.models().knowledge.statistics.at(now + 60.0)["strong"][3].min()

    before = sold()
    taken = services.intake.take([{"user_id": "u", "item_id": item, "event": "purchase"}])
    assert taken.taken == 1
    services.start()
    assert sold() > before + 0.5


def test_unreachable_opensearch_keeps_no_worker_from_starting(services_at):
    services = services_at(f"http://127.0.0.1:{find_free_port()}")
    assert warm_up(services) == 0


def test_without_a_model_nothing_is_asked(opensearch, index_prefix):
    services = build(Settings(opensearch_url=opensearch, products_index=f"{index_prefix}products"))
    assert warm_up(services) == 0
    services.close()
