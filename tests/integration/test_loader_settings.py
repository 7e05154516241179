"""What the settings say of strangers reaches the ranker that a worker loads."""

from __future__ import annotations

import pytest

from sidecar.records import Candidates, QueryContext
from sidecar.settings import Settings
from sidecar.stores.models import save_ranker
from sidecar.web.services import build
from tests.shops import fresh_ranker


@pytest.mark.parametrize("order", ["engine", "model"])
def test_strangers_are_ordered_as_the_operator_chose(tmp_path, order):
    save_ranker(fresh_ranker(), tmp_path / "model", {})
    services = build(Settings(model_dir=str(tmp_path / "model"), without_history=order,
                              device="cpu"))
    services.models.check()
    ranker = services.models()
    assert ranker is not None
    assert ranker.orders_strangers == (order == "model")
    if order == "model":
        ids = tuple(ranker.items.ids[:3])
        candidates = Candidates(ids, ranker.items.numbers[:3, 0])
        assert len(ranker.rank(candidates, None, QueryContext(None, "cup", now=0.0)).order) == 3
