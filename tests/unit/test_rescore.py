"""``POST /_personalize/rescore``, and how every error of the sidecar's own paths looks."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from flask import Flask
from werkzeug.exceptions import RequestEntityTooLarge

from sidecar.errors import (
    EventError,
    SidecarError,
    Skip,
    UpstreamTimeout,
    UpstreamUnavailable,
    VersionConflict,
)
from sidecar.records import History, Ranking, SkipReason, UserState
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryStateStore
from sidecar.web import errors, metrics, rescore


class Preferring:
    """Puts items that the user has touched first, and keeps the engine's order otherwise."""

    version = "v1"
    items = ()

    def __init__(self):
        self.instants = []  # as of which it has ranked

    def rank(self, candidates, state, context):
        self.instants.append(context.now)
        if context.query == "gate":
            raise Skip(SkipReason.GATED)
        touched = np.array([i in state.history.item_ids for i in candidates.item_ids], np.float32)
        parts = {"repeat": touched * np.float32(context.weight)}
        return Ranking(np.argsort(-touched, kind="stable"), parts["repeat"], parts,
                       tuple(("clicked",) if t else () for t in touched), state.version, "v1")

    def advance(self, hidden, events):
        return np.zeros((1, 2), np.float32)


@pytest.fixture
def states():
    store = MemoryStateStore()
    store.put_many([UserState("u", History(("b",), ("click",), (1.0,), (None,), ("e",)),
                              np.zeros((1, 2), np.float32), "v1", 1)])
    return store


@pytest.fixture
def ranker():
    return Preferring()


@pytest.fixture
def client(states, ranker):
    settings = Settings(max_window=5, timeout_ms=5000)
    app = Flask(__name__)
    errors.register(app, Telemetry())
    app.register_blueprint(rescore.create_blueprint(
        settings, Personalizer(settings, states, lambda: ranker, Telemetry())))
    app.register_blueprint(metrics.create_blueprint())
    return app.test_client()


def ask(client, **fields):
    body = {"user_id": "u", "query": "milk",
            "hits": [{"id": "a", "score": 2.0}, {"id": "b", "score": None}, {"id": "c"}], **fields}
    return client.post("/_personalize/rescore", data=json.dumps(body))


def test_positions_come_back_best_first(client, states):
    answer = ask(client)
    version = states.get_many(["u"])[0].version
    assert answer.json == {"applied": True, "reason": None, "state": version, "model": "v1",
                           "order": [1, 0, 2], "scores": [0.0, 1.0, 0.0]}
    assert answer.headers["X-Personalize-Status"] == "applied"
    assert answer.headers["X-Personalize-State"] == str(version)
    timing = dict(part.split(";dur=") for part in answer.headers["Server-Timing"].split(", "))
    assert set(timing) == {"history", "rank", "total"}
    assert all(float(milliseconds) >= 0 for milliseconds in timing.values())


def test_hits_may_be_bare_ids(client):
    """As ml-commons' connector has them: the values of one field, and nothing else."""
    answer = ask(client, hits=["a", "b", 7])
    assert answer.status_code == 200
    assert (answer.json["reason"], answer.json["order"]) == (None, [1, 0, 2])
    assert len(answer.json["scores"]) == 3


def test_explanations_stand_beside_the_hits_when_asked_for(client):
    told = ask(client, explain=True).json["explanations"]
    assert [entry["rank"] for entry in told] == [2, 1, 3]
    assert told[1]["parts"] == {"repeat": 1.0}
    assert told[1]["events"] == ["clicked"]


def test_weight_reaches_the_ranking(client):
    assert ask(client, weight=0.5).json["scores"] == [0.0, 0.5, 0.0]


def test_pages_asked_for_within_a_period_are_ranked_as_of_one_instant(client, ranker, monkeypatch):
    """Each as of its own, hits of nearly the same score had changed places between them."""
    for now in (1_800_000_001.0, 1_800_000_009.9, 1_800_000_010.0):
        monkeypatch.setattr("time.time", lambda now=now: now)
        assert ask(client).json["applied"]
    assert ranker.instants == [1_800_000_000.0, 1_800_000_000.0, 1_800_000_010.0]


@pytest.mark.parametrize(("fields", "reason"), [
    ({"user_id": None}, "anonymous"),
    ({"user_id": ""}, "anonymous"),
    ({"user_id": "stranger"}, "no_history"),
    ({"query": "gate"}, "gated"),
    ({"hits": []}, "no_hits"),
])
def test_skip_is_an_answer_with_the_order_as_it_came(client, fields, reason):
    answer = ask(client, **fields)
    count = len(fields.get("hits", "abc"))
    assert answer.status_code == 200
    assert answer.json == {"applied": False, "reason": reason, "state": -1, "model": None,
                           "order": list(range(count)), "scores": None}
    assert answer.headers["X-Personalize-Status"] == f"skipped; reason={reason}"


def test_skip_names_the_state_where_one_was_read(client, states):
    read = ask(client, query="gate").headers
    assert read["X-Personalize-Status"] == "skipped; reason=gated"
    assert read["X-Personalize-State"] == str(states.get_many(["u"])[0].version)
    assert "X-Personalize-State" not in ask(client, user_id="stranger").headers


@pytest.mark.parametrize(("body", "said"), [
    (b"", "body is not a rescore request"),
    (b"{", "body is not a rescore request"),
    (b"[]", "body is not a rescore request"),
    (b'{"user_id":"u"}', "hits"),
    (b'{"hits":[{"score":1}]}', "id"),
    (b'{"hits":[],"weight":2}', "weight"),
    (b'{"hits":[],"wieght":1}', "wieght"),
    (b'{"hits":[{"id":"\xff"}]}', "body is not a rescore request"),
    (json.dumps({"hits": [{"id": str(n)} for n in range(6)]}).encode(), "SIDECAR_MAX_WINDOW"),
])
def test_malformed_request_is_refused_in_opensearchs_shape(client, body, said):
    answer = client.post("/_personalize/rescore", data=body)
    assert answer.status_code == 400
    error = answer.json["error"]
    assert error["type"] == "illegal_argument_exception"
    assert said in error["reason"]
    assert error["root_cause"] == [{"type": error["type"], "reason": error["reason"]}]
    assert answer.json["status"] == 400


def test_wrong_method_and_unknown_path_look_the_same(client):
    wrong = client.get("/_personalize/rescore")
    assert (wrong.status_code, wrong.json["status"]) == (405, 405)
    assert "POST" in wrong.headers["Allow"]
    unknown = client.get("/_personalize/nothing")
    assert unknown.json["error"]["type"] == "not_found_exception"


@pytest.mark.parametrize(("error", "status"), [
    (EventError("bad"), 400), (VersionConflict("late"), 409), (UpstreamTimeout("slow"), 504),
    (UpstreamUnavailable("gone"), 503), (SidecarError("odd"), 500), (KeyError("secret"), 500),
])
def test_each_exception_has_one_status(error, status):
    assert errors.describe(error)[0] == status


def test_internal_errors_do_not_leak():
    assert "secret" not in errors.describe(KeyError("secret"))[2]


def test_large_body_is_told_what_to_do():
    app = Flask(__name__)
    errors.register(app, Telemetry())
    with app.test_request_context():
        response = app.make_response(app.handle_user_exception(RequestEntityTooLarge("too big")))
    assert response.status_code == 413
    assert response.json["error"]["type"] == "content_too_long_exception"
    assert response.json["error"]["reason"] == "too big"


def test_outcomes_are_counted(client):
    ask(client)
    ask(client, user_id=None)
    text = client.get("/metrics").get_data(as_text=True)
    assert 'personalize_searches_total{reason="",status="applied"}' in text
    assert 'personalize_searches_total{reason="anonymous",status="skipped"}' in text
    assert 'personalize_stage_seconds_bucket{le="0.001",stage="rank"}' in text


def test_ranking_is_timed_as_a_search_that_somebody_else_asked(client):
    def timed():
        text = client.get("/metrics").get_data(as_text=True)
        return {stage: float(count) for stage, count in re.findall(
            r'^personalize_stage_seconds_count{stage="(\w+)"} (\S+)$', text, re.MULTILINE)}

    before = timed()
    ask(client)
    assert {stage: count - before[stage] for stage, count in timed().items()} == {
        "upstream": 0, "history": 1, "rank": 1, "total": 1}
