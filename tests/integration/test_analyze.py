"""``scripts.analyze`` from files to a report, with and without model and user attributes."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from scripts import analyze
from sidecar.stores.models import save_ranker
from tests.shops import DAY_S, START, fresh_ranker, make_events, make_rows
from tests.unit.test_analysis_pages import check

ROWS = make_rows()
EVENTS = make_events(ROWS, users=50)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    for name, rows in (("catalogue", ROWS), ("users", [
            {"user_id": f"u{k}", "age": ["young", "old"][k % 2]} for k in range(50)]), ("events", [
            {"user_id": e.user_id, "event": e.event, "item_id": e.item_id, "query": e.query,
             "ts": datetime.fromtimestamp(e.ts, UTC).isoformat(), "session_id": e.session_id}
            for e in EVENTS])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run(files, *more):
    return analyze.main(["--catalogue", str(files / "catalogue.jsonl"), "--events",
                         str(files / "events.jsonl"), "--out", str(files / "report.html"),
                         "--json", str(files / "report.json"), "--device", "cpu", *more])


def test_report_and_its_data_are_written(files, capsys):
    assert run(files, "--users", str(files / "users.jsonl")) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["events"], told["users"], told["items"]) == (len(EVENTS), 50, len(ROWS))
    found = json.loads((files / "report.json").read_text(),
                       parse_constant=lambda word: pytest.fail(word))
    assert found["basics"]["events"] == len(EVENTS)
    assert found["trajectories"].keys() == {"brand", "widest category", "narrowest category",
                                            "item"}
    assert [stage["stage"] for stage in found["basics"]["funnel"]] == ["view", "purchase"]
    check((files / "report.html").read_text())


def test_model_places_users_and_names_its_own_items(files, capsys):
    ranker = fresh_ranker()
    ranker.items.upsert([{**ROWS[0], "item_id": "sold out"}])
    save_ranker(ranker, files / "model", {})
    assert run(files, "--model", str(files / "model")) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["items"] == len(ROWS) + 1
    found = json.loads((files / "report.json").read_text())
    assert found["clusters"]["space"] == "interest vectors of the model"
    assert told["segments"] == len(found["segments"]["clusters"])


def test_events_from_until_on_are_not_read(files, capsys):
    assert run(files, "--until", datetime.fromtimestamp(START + 20 * DAY_S, UTC).isoformat()) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["events"] == sum(e.ts < START + 20 * DAY_S - 1e-3 for e in EVENTS)


def test_nothing_to_tell_of_and_nowhere_to_put_it_are_refused(files, capsys):
    assert run(files, "--until", "1990-01-01") == 1
    assert "no event before --until" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run(files, "--json", str(files / "report.html"))
    assert stopped.value.code == 2
    assert "name the same file" in capsys.readouterr().err


def test_files_that_cannot_be_read_exit_with_one_line(files, capsys):
    assert run(files, "--users", str(files / "none.jsonl")) == 1
    assert "none.jsonl" in capsys.readouterr().err.splitlines()[-1]
    other = files / "other.jsonl"
    other.write_text(json.dumps({"item_id": "else", "title": "x"}) + "\n")
    save_ranker(fresh_ranker(), files / "model", {})
    assert run(files, "--model", str(files / "model"), "--catalogue", str(other)) == 1
    assert "knows none of the items" in capsys.readouterr().err
