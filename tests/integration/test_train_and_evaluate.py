"""``scripts.train`` and ``scripts.evaluate`` from files to exit code, standard output and error."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scripts import analyze, crossvalidate, evaluate, train, tune
from sidecar.errors import FileError
from sidecar.stores.models import model_version, pick_device
from sidecar.training.pipeline import TrainConfig
from tests.shops import LEARNT, make_cases, make_events, make_rows

ROWS = make_rows(items=30)
EVENTS = make_events(ROWS, users=15)
CASES = [case for case in make_cases(ROWS, EVENTS, 20) if case.ts > LEARNT]
SMALL = {"width": 6, "hidden": 8, "layers": 1, "epochs": 1, "most_lists": 60}


def instant(ts):
    return datetime.fromtimestamp(ts, UTC).isoformat()


def event_rows():
    return [{"user_id": e.user_id, "event": e.event, "item_id": e.item_id, "ts": instant(e.ts),
             "query": e.query, "session_id": e.session_id} for e in EVENTS]


def case_rows():
    return [{"case_id": c.case_id, "user_id": c.user_id, "query": c.query, "ts": instant(c.ts),
             "history": [[i, w, instant(t)] for i, w, t in
                         zip(c.history.item_ids, c.history.events, c.history.ts, strict=True)],
             "candidates": list(c.candidates), "bm25": list(c.bm25),
             "relevant": list(c.relevant), "in_candidates": True, "repeat": c.repeat}
            for c in CASES]


def write_lines(path, rows):
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))
    return path


def write_csv(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "categories": "|".join(row["categories"])}
                         if "categories" in row else row for row in rows)
    return path


def write_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


WRITERS = {"jsonl.gz": write_lines, "csv": write_csv, "parquet": write_parquet}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    for suffix, write in WRITERS.items():
        write(folder / f"catalogue.{suffix}", ROWS)
        write(folder / f"events.{suffix}", event_rows())
    write_lines(folder / "cases.jsonl.gz", case_rows())
    (folder / "small.json").write_text(json.dumps(SMALL))
    return folder


def train_on(files, suffix, out, *more):
    return train.main(["--catalogue", str(files / f"catalogue.{suffix}"), "--events",
                       str(files / f"events.{suffix}"), "--until", instant(LEARNT), "--out",
                       str(out), "--config", str(files / "small.json"), "--device", "cpu", *more])


def evaluate_on(files, suffix, model, *more):
    return evaluate.main(["--model", str(model), "--catalogue", str(files / f"catalogue.{suffix}"),
                          "--events", str(files / f"events.{suffix}"), "--cases",
                          str(files / "cases.jsonl.gz"), "--device", "cpu", *more])


@pytest.fixture(scope="module")
def model(files) -> Path:
    out = files / "model"
    assert train_on(files, "jsonl.gz", out) == 0
    return out


def rankings(path):
    return {entry["case_id"]: entry["ranking"] for entry in
            map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_every_file_format_trains_the_same_model(files, model, suffix, capsys):
    """And the same files with the same seed train the same model twice."""
    assert train_on(files, suffix, files / f"model-{suffix}") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["version"] == model_version(model)
    assert told["events"] == sum(event.ts < LEARNT for event in EVENTS)
    assert (told["items"], told["is_personal"]) == (30, False)


def test_another_process_trains_the_same_model(files, tmp_path):
    """A process hashes strings in its own way, and no order of a set may reach the model."""
    catalogue = write_lines(tmp_path / "catalogue.jsonl.gz", [
        {**row, "title": f"{row['title']} left{k} right{k}",  # equally rare, in one title
         "categories": [*row["categories"], f"upper{k}", f"lower{k}"]}
        for k, row in enumerate(ROWS)])
    for hash_seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-m", "scripts.train", "--catalogue", catalogue,
             "--events", files / "events.jsonl.gz", "--until", instant(LEARNT),
             "--out", tmp_path / hash_seed, "--config", files / "small.json", "--device", "cpu"],
            check=True, capture_output=True, env=os.environ | {"PYTHONHASHSEED": hash_seed})
    assert model_version(tmp_path / "1") == model_version(tmp_path / "2")



def test_evaluation_prints_json_and_ranks_every_candidate_of_every_case_once(files, model, capsys):
    ranked = files / "rankings.jsonl"
    assert evaluate_on(files, "parquet", model, "--json", "--rankings-out", str(ranked)) == 0
    figures = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert figures["cases"] == len(CASES)
    assert figures["slices"]["all"]["rankers"].keys() >= {"BM25", "popularity", "model",
                                                          "unpersonalised", "repeat alone"}
    found = rankings(ranked)
    assert list(found) == [case.case_id for case in CASES]
    for case in CASES:
        assert sorted(found[case.case_id]) == sorted(case.candidates)


def test_evaluation_prints_a_table(files, model, capsys):
    assert evaluate_on(files, "csv", model) == 0
    out = capsys.readouterr().out
    assert "cases count" in out
    assert "no case got a personal order" in out  # the files are few: the model is gated
    assert all(name in out for name in ("BM25+popularity+repeats", "unpersonalised", "repeat ("))


def test_evaluation_writes_a_page_with_plots(files, model, capsys):
    page = files / "report.html"
    assert evaluate_on(files, "csv", model, "--json", "--report", str(page)) == 0
    figures = json.loads(capsys.readouterr().out)
    html = page.read_text()
    assert html.startswith("<!doctype html>")
    assert html.count("<svg") >= 10
    assert [effect["strength"] for effect in figures["diversity"]] == [0, 0.1, 0.25, 0.5, 0.75, 1]
    assert figures["curves"]["model"]["roc"][-1] == [1.0, 1.0]


def test_histories_of_cases_that_are_learnt_from_are_read(files, tmp_path, monkeypatch):
    """A case whose shopper is not in the events was a stranger's, whatever its history told."""
    said = []

    def noted(rows, log, config, progress, cases, users):
        said.extend((log.users[user], log.kinds[kind]) for user, kind in
                    zip(log.user, log.kind, strict=True))
        raise FileError("enough")

    monkeypatch.setattr(train, "train_ranker", noted)
    row = {**case_rows()[0], "user_id": "new", "ts": instant(LEARNT - 60.0),
           "history": [["i1", "click", instant(LEARNT - 120.0)]]}
    write_lines(tmp_path / "cases.jsonl.gz", [row, {**row, "ts": instant(LEARNT + 60.0)}])
    assert train_on(files, "jsonl.gz", tmp_path / "model", "--cases",
                    str(tmp_path / "cases.jsonl.gz")) == 1
    assert said.count(("new", "click")) == 1


def test_cases_that_share_an_id_are_each_ranked_whole(files, model):
    rows = [{**row, "case_id": "same"} for row in case_rows()[:6]]
    rows[0] |= {"candidates": rows[0]["candidates"][:3], "bm25": None}
    write_lines(files / "same.jsonl.gz", rows)
    ranked = files / "same-rankings.jsonl"
    assert evaluate_on(files, "parquet", model, "--rankings-out", str(ranked), "--cases",
                       str(files / "same.jsonl.gz")) == 0
    found = [json.loads(line)["ranking"] for line in ranked.read_text().splitlines()]
    assert [sorted(ranking) for ranking in found] == [sorted(row["candidates"]) for row in rows]


def test_cases_without_candidates_or_answers_are_ranked_too(files, model, capsys):
    rows = case_rows()[:2]
    rows[0] |= {"candidates": [], "bm25": [], "in_candidates": False}
    rows[1] |= {"relevant": []}
    write_lines(files / "odd.jsonl.gz", rows)
    ranked = files / "odd-rankings.jsonl"
    assert evaluate_on(files, "parquet", model, "--json", "--rankings-out", str(ranked), "--cases",
                       str(files / "odd.jsonl.gz")) == 0
    found = rankings(ranked)
    assert found[CASES[0].case_id] == []
    assert sorted(found[CASES[1].case_id]) == sorted(CASES[1].candidates)
    figures = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert figures["counted"] == 0
    assert evaluate_on(files, "parquet", model, "--cases", str(files / "odd.jsonl.gz")) == 0
    assert capsys.readouterr().out.startswith("0 of 1 cases count")


def test_cases_from_the_time_that_was_learnt_are_told(files, model, caplog):
    rows = [{**case_rows()[0], "ts": instant(LEARNT - 9e6), "history": []}, case_rows()[1]]
    write_lines(files / "early.jsonl.gz", rows)
    assert evaluate_on(files, "parquet", model, "--cases", str(files / "early.jsonl.gz")) == 0
    assert "1 cases lie in the time that the model learnt from" in caplog.text


def test_model_of_another_catalogue_is_refused(files, model, capsys):
    other = write_lines(files / "other.jsonl.gz", [{**ROWS[0], "item_id": "else"}])
    assert evaluate_on(files, "parquet", model, "--catalogue", str(other)) == 1
    assert "knows none of the items" in capsys.readouterr().err


def test_bad_rows_are_told_and_the_others_used(files, caplog, capsys):
    rows = [*ROWS, {"item_id": None, "title": "x"}, {"item_id": "z"}]
    write_lines(files / "catalogue.some.gz", rows).rename(files / "catalogue.some.jsonl.gz")
    write_lines(files / "events.some.jsonl.gz", [*event_rows(), {"user_id": "u"}])
    assert train_on(files, "some.jsonl.gz", files / "model-some") == 0
    assert json.loads(capsys.readouterr().out)["items"] == 30
    told = [record.getMessage() for record in caplog.records]
    assert any("2 rows refused, the first: " in line and "item_id is missing" in line
               for line in told)
    assert any("1 rows refused, the first: " in line for line in told)


def test_event_that_is_still_to_come_is_told(files, caplog):
    write_lines(files / "events.ahead.jsonl.gz", [
        *event_rows(), {**event_rows()[-1], "ts": "2199-01-01"}])
    write_lines(files / "catalogue.ahead.jsonl.gz", ROWS)
    assert train_on(files, "ahead.jsonl.gz", files / "model-ahead") == 0
    assert "lies in the future" not in caplog.text  # it lies after --until
    assert train_on(files, "ahead.jsonl.gz", files / "model-ahead", "--until", "2200-01-01") == 0
    assert "the last event is of 2199-01-01T00:00:00+00:00, which lies in the future" in caplog.text


@pytest.mark.parametrize(("change", "said"), [
    ({"events": [{"user_id": "u"}, {"event": "view"}]}, "holds no row that can be taken"),
    ({"catalogue": [{"title": "x"}]}, "holds no row that can be taken"),
    ({"events": [{"user_id": "u", "event": "return", "item_id": "i1", "ts": "2020-01-01"}]},
     "events hold no purchase, click or other positive event"),
    ({"events": [{"user_id": "u", "event": "view", "item_id": "i1", "ts": "2030-01-01"}]},
     "has no event before --until"),
], ids=["only bad events", "only bad items", "only returns", "only later events"])
def test_files_that_cannot_be_learnt_from_exit_with_one_line(files, tmp_path, change, said, capsys):
    paths = {name: files / f"{name}.jsonl.gz" for name in ("catalogue", "events")}
    for name, rows in change.items():
        paths[name] = write_lines(tmp_path / f"{name}.jsonl.gz", rows)
    assert train.main(["--catalogue", str(paths["catalogue"]), "--events", str(paths["events"]),
                       "--until", instant(LEARNT), "--out", str(tmp_path / "model")]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{said}" in captured.err.splitlines()[-1]
    assert captured.err.splitlines()[-1].startswith("train: ")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("config", "said"), [
    ("{", "cannot be read as JSON"), ("[1]", "must be a JSON object"),
    ('{"depth": 3}', "depth is not a training option"),
    ('{"hidden": "many"}', "hidden is 'many', must be a whole number"),
    ('{"hidden": 0}', "hidden is 0, must be at least 1"),
    ('{"seed": -1}', "seed is -1, must be from 0 to"),
    ('{"cell": "lstm"}', "cell is 'lstm', must be one of torch, cho, article")])
def test_configuration_that_cannot_be_used_is_told(files, tmp_path, config, said, capsys):
    path = tmp_path / "config.json"
    path.write_text(config)
    assert train_on(files, "jsonl.gz", tmp_path / "model", "--config", str(path)) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("program", [train, crossvalidate])
def test_options_of_the_command_line_win_over_those_of_a_configuration(program, tmp_path):
    """``--cell article`` trained what the tuning run had written down."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"cell": "cho", "seed": 5, "width": 6, "signals": "repeat"}))
    shop = ["--catalogue", "c", "--events", "e", "--out", str(tmp_path), "--config", str(path)]
    more = {train: ["--cell", "article", "--signals", "hybrid"], crossvalidate: []}[program]

    def config(*given):
        return train.config_of(program._parser().parse_args([*shop, *given]))

    assert config() == TrainConfig(seed=5, cell="cho", width=6, signals="repeat",
                                   device=pick_device("auto"))
    won = config("--seed", "0", "--device", "cpu", *more)
    assert (won.seed, won.device, won.width) == (0, "cpu", 6)
    assert (won.cell, won.signals) == (("article", "hybrid") if more else ("cho", "repeat"))


def test_configuration_for_a_gpu_that_is_not_there_is_told(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"device": "cuda"}))
    assert train.main(["--catalogue", str(files / "catalogue.jsonl.gz"), "--events",
                       str(files / "events.jsonl.gz"), "--out", str(tmp_path / "model"),
                       "--config", str(path)]) == 1
    assert capsys.readouterr().err == (
        "train: device is cuda, but torch finds none; use auto or cpu\n")
    path.write_text(json.dumps({"device": "auto"}))
    given = ["--catalogue", "c", "--events", "e", "--out", str(tmp_path), "--config", str(path)]
    assert train.config_of(train._parser().parse_args(given)).device == "cpu"


def test_missing_file_is_told(files, tmp_path, capsys):
    assert train.main(["--catalogue", str(tmp_path / "no.jsonl"), "--events", "no.jsonl", "--out",
                       str(tmp_path / "model")]) == 1
    assert "no.jsonl" in capsys.readouterr().err
    assert evaluate_on(files, "jsonl.gz", tmp_path / "never") == 1
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("program", "name"), [
    (train, "--out"), (tune, "--out"), (crossvalidate, "--out"), (evaluate, "--rankings-out"),
    (evaluate, "--report"), (analyze, "--out"), (analyze, "--json")],
    ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("place", ["file/below", "there"])
def test_place_that_cannot_be_written_is_told_before_the_work(tmp_path, capsys, program, name,
                                                              place):
    (tmp_path / "file").touch()
    path = tmp_path / place
    if place == "there":  # the other kind of thing is
        path.touch() if program in (train, tune, crossvalidate) else path.mkdir()
    with pytest.raises(SystemExit) as caught:
        program.main([name, str(path)])
    assert caught.value.code == 2
    assert "argument " + name in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["--cell", "lstm"], ["--until", "tomorrow"],
                                       ["--seed", "-1"], ["--seed", str(2**70)]])
def test_misuse_exits_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m scripts.train" in capsys.readouterr().err
