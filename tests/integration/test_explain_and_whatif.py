"""``scripts.explain`` and ``scripts.whatif`` from files to what they print."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from opensearchpy import OpenSearch, helpers

from scripts import explain, whatif
from sidecar.stores.models import save_ranker
from tests.shops import LEARNT, fresh_ranker, make_events, make_rows

ROWS = make_rows()
EVENTS = [event for event in make_events(ROWS) if event.ts < LEARNT]
USER = "u1"
OWN = [event for event in EVENTS if event.user_id == USER]


def instant(ts):
    return datetime.fromtimestamp(ts, UTC).isoformat()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "catalogue.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "events.jsonl").write_text("".join(json.dumps({
        "user_id": e.user_id, "event": e.event, "item_id": e.item_id, "ts": instant(e.ts),
        "query": e.query}) + "\n" for e in EVENTS))
    save_ranker(fresh_ranker(), folder / "model", {})
    return folder


def run(program, files, capsys, *more):
    code = program.main([
        "--model", str(files / "model"), "--catalogue", str(files / "catalogue.jsonl"),
        "--events", str(files / "events.jsonl"), "--user", USER, "--query", "cup", *more])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out) if "--json" in more else captured.out


def test_every_hit_of_the_window_is_explained_and_adds_up(files, capsys):
    told = run(explain, files, capsys, "--json")
    assert (told["applied"], told["reason"]) == (True, None)
    assert [hit["rank"] for hit in told["hits"]] == list(range(1, len(told["hits"]) + 1))
    assert sorted(hit["engine_rank"] for hit in told["hits"]) == [h["rank"] for h in told["hits"]]
    assert all("cup" in hit["title"] for hit in told["hits"])
    for hit in told["hits"]:
        assert sum(hit["parts"].values()) == pytest.approx(hit["score"], abs=1e-4)
    assert any(hit["events"] for hit in told["hits"])
    assert any(hit["influences"] for hit in told["hits"])
    assert [row["number"] for row in told["history"]] == list(range(1, len(OWN) + 1))


def test_moment_of_the_search_ends_the_history(files, capsys):
    moment = OWN[10].ts
    told = run(explain, files, capsys, "--json", "--at", instant(moment))
    assert len(told["history"]) == sum(event.ts < moment for event in OWN)
    assert all(row["ts"] < told["at"] for row in told["history"])


@pytest.mark.parametrize("program", [explain, whatif])
def test_event_at_the_end_of_time_is_told_as_any_other(files, tmp_path, capsys, program):
    last = {"user_id": USER, "event": "view", "item_id": "i1", "ts": "9999-12-31T23:59:59.9Z"}
    (tmp_path / "events.jsonl").write_text(
        (files / "events.jsonl").read_text() + json.dumps(last) + "\n")
    more = ["--add", "view:i2"] if program is whatif else []
    told = run(program, files, capsys, "--json", "--events", str(tmp_path / "events.jsonl"), *more)
    assert told["at"] == "9999-12-31T23:59:59+00:00"


def test_what_others_took_since_the_training_counts_as_where_it_serves(files, tmp_path, capsys):
    """Up to the moment of the search, and not from it on."""
    moment = EVENTS[-1].ts + 3600.0
    told = {}
    for name, since in (("before", moment - 100.0), ("after", moment)):
        (tmp_path / f"{name}.jsonl").write_text((files / "events.jsonl").read_text() + "".join(
            json.dumps({"user_id": f"other{k}", "event": "purchase", "item_id": "i54",
                        "ts": instant(since + k)}) + "\n" for k in range(90)))
        told[name] = run(explain, files, capsys, "--json", "--at", instant(moment), "--events",
                         str(tmp_path / f"{name}.jsonl"))
    told["file"] = run(explain, files, capsys, "--json", "--at", instant(moment))
    parts = {name: next(h["parts"]["popularity"] for h in of["hits"] if h["item_id"] == "i54")
             for name, of in told.items()}
    assert parts["before"] > parts["after"] + 0.01
    assert told["after"]["hits"] == told["file"]["hits"]


def test_moment_is_after_the_latest_event_in_whatever_order_the_file_is(files, tmp_path, capsys):
    lines = (files / "events.jsonl").read_text().splitlines()
    (tmp_path / "events.jsonl").write_text("".join(
        line + "\n" for line in sorted(lines, key=lambda line: json.loads(line)["user_id"])))
    told = run(explain, files, capsys, "--json", "--events", str(tmp_path / "events.jsonl"))
    assert told["at"] == run(explain, files, capsys, "--json")["at"]


def test_text_tells_ranks_scores_parts_and_events(files, capsys):
    out = run(explain, files, capsys, "--top", "3")
    told = run(explain, files, capsys, "--json")
    best = told["hits"][0]
    assert f"{USER} searches for 'cup'" in out
    assert f"#{len(OWN)}  {told['history'][-1]['ts']}" in out
    assert f"{best['item_id']} {best['title']}" in out
    assert f"= {best['score']:.3f}" in out
    assert "; ".join(best["events"]) in out
    assert out.count(" = ") == 3
    groups = [one for hit in told["hits"][:3] for one in hit["influences"] if one["times"] > 1]
    assert groups
    assert all(f"by {one['event']} of {one['item_id']} {one['title']}, the last of {one['times']} "
               "events, " in out for one in groups)


def test_unknown_shopper_gets_the_engines_order_and_the_reason(files, capsys):
    told = run(explain, files, capsys, "--json", "--user", "nobody")
    assert (told["applied"], told["reason"], told["history"]) == (False, "no_history", [])
    assert [hit["engine_rank"] for hit in told["hits"]] == [hit["rank"] for hit in told["hits"]]
    assert "in the engine's order: no_history" in run(explain, files, capsys, "--user", "nobody")


def test_leaving_an_item_out_takes_its_repetition_away(files, capsys):
    explained = run(explain, files, capsys, "--json")
    bought = {row["item_id"] for row in explained["history"]}
    item = next(hit["item_id"] for hit in explained["hits"] if hit["item_id"] in bought)
    told = run(whatif, files, capsys, "--json", "--without", item)
    gone = [row for row in explained["history"] if row["item_id"] == item]
    assert told["without"] == gone
    assert told["after"]["events"] == told["before"]["events"] - len(gone)
    changed = {hit["item_id"]: hit for hit in told["hits"]}
    assert changed[item]["parts"]["repeat"] < 0
    assert changed[item]["move"] <= 0
    ranks = {hit["item_id"]: hit["rank"] for hit in explained["hits"]}
    assert {item: hit["rank"]["before"] for item, hit in changed.items()} == ranks


def test_event_is_left_out_by_its_number_and_another_put_in(files, capsys):
    told = run(whatif, files, capsys, "--json", "--without", "#2", "--without", "1",
               "--add", "purchase:i12", "--add", f"search:red cup@{instant(OWN[-1].ts - 5)}")
    assert [row["number"] for row in told["without"]] == [1, 2]
    assert [(row["event"], row["item_id"], row["query"]) for row in told["added"]] == [
        ("purchase", "i12", None), ("search", None, "red cup")]
    assert told["added"][0]["ts"] < told["at"]
    assert told["before"]["events"] == told["after"]["events"] == len(OWN)


def test_orders_stand_side_by_side(files, capsys):
    explained = run(explain, files, capsys, "--json")
    last = explained["hits"][-1]["item_id"]
    bought = [word for k in range(5, 8) for word in
              ("--add", f"purchase:{last}@{instant(OWN[-1].ts - k * 86400)}")]
    out = run(whatif, files, capsys, *bought)
    assert f"  + purchase of {last} " in out
    assert f"before: {len(OWN)} events" in out
    rows = [line for line in out.splitlines() if line[:4].strip().isdigit()]
    assert len(rows) == len(explained["hits"])
    [row] = [line for line in rows if f"  {last} " in line[45:]]
    assert "repeat +" in row
    assert " hits moved" in out


def test_everything_left_out_is_the_engines_order(files, capsys):
    every = [word for k in range(len(OWN)) for word in ("--without", f"#{k + 1}")]
    told = run(whatif, files, capsys, "--json", *every)
    assert told["after"] == {"events": 0, "reason": "no_history"}
    assert [hit["engine_rank"] for hit in told["hits"]] == [
        hit["rank"]["after"] for hit in told["hits"]]
    assert "the engine's order: no_history" in run(whatif, files, capsys, *every)


@pytest.mark.parametrize(("program", "more", "said"), [
    (whatif, ["--without", "#999"], "the history has the events #1 to #"),
    (whatif, ["--user", "nobody", "--without", "#1"], "the history has no event"),
    (whatif, ["--without", "i59x"], "no event of the history has that item"),
    (whatif, ["--add", "purchase"], "must be EVENT:ITEM"),
    (whatif, ["--add", "purchase:none"], "the catalogue has no item 'none'"),
    (whatif, ["--add", "purchase:i1@soon"], "'soon' is no ISO 8601 instant"),
    (whatif, ["--add", "purchase:i1@2031-01-01"], "must come before the search"),
    (explain, ["--query", "zzz"], "has a word of 'zzz'"),
    (explain, ["--model", "nowhere"], "cannot be read"),
    (explain, ["--events", "no.jsonl"], "no.jsonl"),
    (explain, ["--opensearch", "http://127.0.0.1:9"], "Connection")])
def test_what_cannot_be_asked_exits_with_one_line(files, capsys, program, more, said):
    code = program.main([
        "--model", str(files / "model"), "--catalogue", str(files / "catalogue.jsonl"),
        "--events", str(files / "events.jsonl"), "--user", USER, "--query", "cup", *more])
    captured = capsys.readouterr()
    assert (code, captured.out) == (1, "")
    assert said in captured.err.splitlines()[-1]


@pytest.mark.parametrize(("program", "given"), [
    (explain, []), (explain, ["--user", "u", "--query", "q", "--model", "m"]),
    (explain, ["--user", "u", "--query", "q", "--sidecar", "http://s", "--model", "m"]),
    (explain, ["--user", "u", "--query", "q", "--sidecar", "http://s", "--at", "2026-01-01"]),
    (explain, ["--user", "u", "--query", "q", "--sidecar", "http://s", "--device", "cuda"]),
    (explain, ["--user", "u", "--query", "q", "--sidecar", "s"]),
    (whatif, ["--model", "m", "--catalogue", "c", "--user", "u", "--query", "q", "--add", "a:b"]),
    (whatif, ["--model", "m", "--catalogue", "c", "--user", "u", "--query", "q", "--events", "e"]),
    (explain, ["--user", "u", "--query", "q", "--sidecar", "http://s", "--weight", "2"]),
    (explain, ["--user", "u", "--query", "q", "--sidecar", "http://s", "--window", "0"])])
def test_misuse_exits_with_two(program, given, capsys):
    with pytest.raises(SystemExit) as caught:
        program.main(given)
    assert caught.value.code == 2
    assert "usage: python -m scripts." in capsys.readouterr().err


def test_engines_order_comes_from_opensearch_where_one_is_named(files, capsys, opensearch,
                                                                index_prefix, tmp_path):
    index = f"{index_prefix}products"
    with OpenSearch([opensearch]) as client:
        helpers.bulk(client, ({"_index": index, "_id": row["item_id"], **row} for row in ROWS),
                     refresh=True)
        engine = client.search(index=index, body={"size": 100, "query": {
            "match": {"title": "lamp"}}, "_source": False})["hits"]["hits"]
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"query": {"match": {"title": "lamp"}}, "size": 3}))
    told = run(explain, files, capsys, "--json", "--opensearch", opensearch, "--index", index,
               "--body", str(body))
    by_engine = sorted(told["hits"], key=lambda hit: hit["engine_rank"])
    assert [hit["item_id"] for hit in by_engine] == [hit["_id"] for hit in engine]
    assert [hit["engine_score"] for hit in by_engine] == pytest.approx(
        [hit["_score"] for hit in engine], abs=1e-5)
    cups = run(explain, files, capsys, "--json", "--opensearch", opensearch, "--index", index,
               "--window", "4")
    assert len(cups["hits"]) == 4
    assert all("cup" in hit["title"] for hit in cups["hits"])
