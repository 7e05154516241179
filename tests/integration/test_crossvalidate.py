"""``scripts.crossvalidate``: folds in order of time, figures by fold, and going on after a stop."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from scripts import crossvalidate
from sidecar.errors import FileError
from sidecar.records import Event
from sidecar.training import crossvalidation
from sidecar.training.crossvalidation import make_folds, summary
from sidecar.training.event_table import EventTable
from tests.shops import make_events, make_rows

ROWS = make_rows(items=30)
EVENTS = make_events(ROWS, users=12)
CONFIG = {"width": 6, "hidden": 8, "layers": 1, "epochs": 1, "most_lists": 60, "blend_epochs": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    for name, rows in (("catalogue", ROWS), ("events", [
            {"user_id": e.user_id, "event": e.event, "item_id": e.item_id, "query": e.query,
             "ts": datetime.fromtimestamp(e.ts, UTC).isoformat(), "session_id": e.session_id}
            for e in EVENTS])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def run(files, out, *more):
    return crossvalidate.main([
        "--catalogue", str(files / "catalogue.jsonl"), "--events", str(files / "events.jsonl"),
        "--config", str(files / "config.json"), "--folds", "2", "--most-cases", "40", "--device",
        "cpu", "--out", str(out), *more])


@pytest.fixture(scope="module")
def done(files) -> Path:
    out = files / "done"
    assert run(files, out) == 0
    return out


def test_folds_follow_each_other_and_train_on_what_lies_before(done):
    first, second = (json.loads((done / f"fold-{k}.json").read_text()) for k in (1, 2))
    assert first["until"] == second["since"]
    assert 0 < first["events"] < second["events"] < len(EVENTS)
    assert second["events"] == sum(
        e.ts < second["since"] - 1e-3 for e in EVENTS)  # the file holds microseconds


def test_too_many_folds_leave_the_folder_to_fewer(files, tmp_path, capsys):
    assert run(files, tmp_path, "--folds", "100000") == 1
    assert "ask for fewer" in capsys.readouterr().err
    assert run(files, tmp_path, "--folds", "1") == 0


def test_summary_is_the_mean_of_the_folds(done):
    folds = [json.loads((done / f"fold-{k}.json").read_text()) for k in (1, 2)]
    found = json.loads((done / "summary.json").read_text())
    values = [fold["slices"]["all"]["rankers"]["model"]["mrr"][0] for fold in folds]
    told = found["slices"]["all"]["rankers"]["model"]["mrr"]
    assert told["mean"] == pytest.approx(np.mean(values))
    assert told["std"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    assert (told["min"], told["max"]) == (min(values), max(values))
    assert found["cases"] == sum(fold["counted"] for fold in folds)
    assert set(found["slices"]["all"]["differences"]) == {"mrr vs BM25", "mrr vs unpersonalised"}


def test_run_goes_on_where_it_broke_off(files, tmp_path, monkeypatch, capsys):
    ran = []

    def fold(fold, rows, log, config, progress, *, most_cases):
        if fold.number == 2 and len(ran) == 1:
            ran.append("stopped")
            raise KeyboardInterrupt
        ran.append(fold.number)
        return crossvalidation.run_fold(fold, rows, log, config, progress, most_cases=most_cases)

    monkeypatch.setattr(crossvalidate, "run_fold", fold)
    assert run(files, tmp_path / "cv") == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert run(files, tmp_path / "cv", "--json") == 0
    assert ran == [1, "stopped", 2]
    assert json.loads(capsys.readouterr().out)["folds"] == 2


def test_fold_up_to_the_end_of_time_is_told(done, capsys):
    fold = json.loads((done / "fold-2.json").read_text())
    crossvalidate._tell({**fold, "until": 253_402_300_800.0}, 2)
    assert "to 9999-12-31, " in capsys.readouterr().err


def test_folder_of_other_inputs_is_refused(files, done, capsys):
    assert run(files, done, "--seed", "1") == 1
    assert "holds folds of other inputs (config differ)" in capsys.readouterr().err


def test_table_tells_mean_and_spread(files, done, capsys):
    assert run(files, done) == 0
    captured = capsys.readouterr()
    assert "2 folds" in captured.out
    assert "unpersonalised" in captured.out
    assert "fold 2 of 2" in captured.err


def log_of(times):
    return EventTable.from_events([Event("u", "purchase", "i0", ts) for ts in times], {"i0": 0})


def test_folds_hold_about_as_many_purchases_each():
    folds = make_folds(log_of([float(t) for t in range(100)]), 5)
    assert [(f.since, f.until) for f in folds] == [(50, 60), (60, 70), (70, 80), (80, 90),
                                                   (90, 100)]


@pytest.mark.parametrize(("log", "said"), [
    (log_of([None, None]), "no times"), (log_of([1.0, 1.0, 1.0]), "too few instants for 3 folds"),
    (EventTable.from_events([Event("u", "return", "i0", 1.0)], {"i0": 0}), "no purchase")])
def test_log_that_cannot_be_parted_is_told(log, said):
    with pytest.raises(FileError, match=said):
        make_folds(log, 3)


def test_one_fold_has_no_spread(done):
    fold = json.loads((done / "fold-1.json").read_text())
    assert summary([fold])["slices"]["all"]["rankers"]["model"]["mrr"]["std"] is None
