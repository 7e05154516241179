"""``scripts.explain`` and ``scripts.whatif`` ask a sidecar that runs what it knows of a shopper."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest
from opensearchpy import OpenSearch, helpers

from scripts import explain, whatif
from sidecar.stores.models import save_ranker
from tests.shops import fresh_ranker, make_rows

ROWS = make_rows()
DAY_S = 86_400.0


@pytest.fixture
def running(sidecars, opensearch, index_prefix, tmp_path, monkeypatch):
    """Give a sidecar with a trained model and one shopper, who bought a cup three times."""
    index = f"{index_prefix}products"
    with OpenSearch([opensearch]) as client:
        helpers.bulk(client, ({"_index": index, "_id": row["item_id"], **row} for row in ROWS),
                     refresh=True)
    save_ranker(fresh_ranker(), tmp_path / "model", {})
    monkeypatch.setenv("SIDECAR_ADMIN_AUTHORIZATION", "Bearer of the secret")
    sidecar = sidecars.start(workers=1, model_dir=tmp_path / "model",
                             admin_authorization="Bearer of the secret")
    events = [{"user_id": "u/1", "item_id": "i12", "event": "purchase",
               "ts": time.time() - days * DAY_S} for days in (30, 20, 10)]
    taken = sidecar.request("POST", "/_personalize/events", events)
    assert taken.status == 200, taken.body
    return sidecar


def test_running_sidecar_explains_its_order_and_lends_its_history(running, index_prefix, tmp_path,
                                                                 capsys):
    asked = ["--user", "u/1", "--query", "cup", "--index", running.index, "--json",
             "--sidecar", running.url]
    assert explain.main(asked) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["applied"], told["reason"]) == (True, None)
    assert [row["item_id"] for row in told["history"]] == ["i12"] * 3
    assert told["hits"][0]["title"]
    for hit in told["hits"]:
        assert sum(hit["parts"].values()) == pytest.approx(hit["score"], abs=1e-4)
    [own] = [hit for hit in told["hits"] if hit["item_id"] == "i12"]
    assert "purchase of i12, 3 times" in own["events"][0]
    catalogue = tmp_path / "catalogue.jsonl"
    catalogue.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    changed = ["--model", str(tmp_path / "model"), "--catalogue", str(catalogue),
               "--without", "i12", "--add", "view:i18"]
    assert whatif.main([*asked, *changed]) == 0
    compared = json.loads(capsys.readouterr().out)
    assert [row["number"] for row in compared["without"]] == [1, 2, 3]
    assert {"before": compared["before"]["events"], "after": compared["after"]["events"]} == {
        "before": 3, "after": 1}
    assert explain.main([*asked, "--user", "nobody"]) == 0
    stranger = json.loads(capsys.readouterr().out)
    assert (stranger["applied"], stranger["reason"], stranger["history"]) == (
        False, "no_history", [])
    assert explain.main([word for word in asked if word != "--json"]) == 0
    assert "purchase of i12" in capsys.readouterr().out


def test_event_has_one_number_though_the_model_reads_but_the_last_ones(running, tmp_path, capsys):
    ranker = fresh_ranker()
    ranker.config = dataclasses.replace(ranker.config, kept=2)
    save_ranker(ranker, tmp_path / "short", {})
    (tmp_path / "catalogue.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    asked = ["--user", "u/1", "--query", "cup", "--index", running.index, "--json",
             "--sidecar", running.url]
    assert explain.main(asked) == 0
    history = json.loads(capsys.readouterr().out)["history"]
    assert whatif.main([*asked, "--model", str(tmp_path / "short"), "--catalogue",
                        str(tmp_path / "catalogue.jsonl"), "--without", "#3"]) == 0
    [left_out] = json.loads(capsys.readouterr().out)["without"]
    assert {"ts": left_out["ts"], "number": 3} == {
        name: history[-1][name] for name in ("ts", "number")}


def test_sidecar_that_asks_for_a_secret_is_told_of(running, monkeypatch, capsys):
    monkeypatch.setenv("SIDECAR_ADMIN_AUTHORIZATION", "Bearer of another")
    assert explain.main(["--user", "u/1", "--query", "cup", "--index", running.index,
                         "--sidecar", running.url]) == 1
    assert "401" in capsys.readouterr().err


def test_sidecar_that_is_not_there_exits_with_one_line(capsys):
    assert explain.main(["--user", "u", "--query", "cup", "--sidecar", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.startswith("explain: ")
