"""The benchmark's section on first searches, with real sidecars over a real OpenSearch."""

from __future__ import annotations

import json

import pytest

from scripts import bench
from sidecar.stores.models import model_version, save_ranker
from tests.shops import fresh_ranker, make_rows

ROWS = make_rows()


@pytest.fixture
def filled(opensearch, index_prefix, ask):
    """Load the shop that the model was trained for."""
    index = f"{index_prefix}products"
    lines = []
    for row in ROWS:
        lines += [{"index": {"_id": row["item_id"]}},
                  {"item_id": row["item_id"], "title": row["title"]}]
    mapping = {"mappings": {"properties": {"item_id": {"type": "keyword"},
                                           "title": {"type": "text"}}}}
    assert ask(opensearch, "PUT", f"/{index}", mapping).status == 200
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    assert not ask(opensearch, "POST", f"/{index}/_bulk?refresh=true", body).json["errors"]
    return index


def test_first_searches_are_all_personalised_whatever_happens_beside_them(
        sidecars, opensearch, filled, index_prefix, tmp_path, monkeypatch, capsys):
    save_ranker(fresh_ranker(), tmp_path / "model", {})
    version = model_version(tmp_path / "model")
    for name in ("products", "states", "events", "queries"):
        monkeypatch.setenv(f"SIDECAR_{name.upper()}_INDEX", f"{index_prefix}{name}")
    monkeypatch.setenv("SIDECAR_TIMEOUT_MS", "5000")
    bought = [{"item_id": row["item_id"], "event": "purchase", "ts": f"2026-01-0{day}T00:00:00Z"}
              for day, row in enumerate(ROWS[:3], 1)]
    queries = tmp_path / "queries.jsonl"
    queries.write_text("".join(json.dumps({"query": ROWS[0]["title"].split()[0], "user_id": user,
                                           "history": [list(event.values()) for event in bought]})
                               + "\n" for user in ("u1", "u2", "u3")))
    main = sidecars.start(model_dir=tmp_path / "model")
    code = bench.main([
        "--sidecar", main.url, "--opensearch", opensearch, "--index", filled, "--fields", "title",
        "--queries", str(queries), "--sections", "first", "--model", str(tmp_path / "model"),
        "--starts", "1", "--rounds", "1", "--idle-seconds", "0.5", "--searches", "20",
        "--rate", "20", "--open-seconds", "8", "--json"])
    told = capsys.readouterr()
    assert code == 0, told.err
    report = json.loads(told.out)["first"]
    assert report["start"]["outcomes"] == {"applied": 1}
    assert len(report["idle"]["kept_connection_ms"]) == 1
    for what in ("undisturbed", "swap", "reload"):
        assert set(report[what]["outcomes"]) == {"applied"}, what
        assert (report[what]["errors"], report[what]["never_sent"]) == (0, 0), what
    before, after = report["swap"]["versions"]
    assert before == version
    assert after not in (version, "None")
    assert report["swap"]["switched_s"] is not None  # every worker has it
    assert model_version(tmp_path / "model") == version  # the bench works on a copy


def test_section_first_without_a_model_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        bench.main(["--sidecar", "http://s:1", "--opensearch", "http://o:2", "--queries", "q",
                    "--sections", "first"])
    assert stopped.value.code == 2
    assert "the section first needs --model DIR" in capsys.readouterr().err
