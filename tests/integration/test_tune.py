"""``scripts.tune`` from files to a configuration that ``scripts.train`` reads."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from scripts import train, tune
from sidecar.training.pipeline import TrainConfig
from sidecar.training.search_space import NOT_TUNED
from tests.shops import DAY_S, LEARNT, make_cases, make_events, make_rows

ROOT = Path(__file__).resolve().parents[2]
ROWS = make_rows(items=30)
EVENTS = make_events(ROWS, users=15)
SPACE = {"hidden": {"choices": [4, 8]}, "width": 6, "layers": 1, "epochs": 1, "most_lists": 60,
         "blend_epochs": {"low": 1, "high": 2}}


def instant(ts):
    return datetime.fromtimestamp(ts, UTC).isoformat()


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    write_lines(folder / "catalogue.jsonl", ROWS)
    write_lines(folder / "events.jsonl", (
        {"user_id": e.user_id, "event": e.event, "item_id": e.item_id, "ts": instant(e.ts),
         "query": e.query, "session_id": e.session_id} for e in EVENTS))
    write_lines(folder / "cases.jsonl", (
        {"case_id": c.case_id, "user_id": c.user_id, "query": c.query, "ts": instant(c.ts),
         "history": [], "candidates": list(c.candidates), "bm25": list(c.bm25),
         "relevant": list(c.relevant), "in_candidates": True, "repeat": c.repeat}
        for c in make_cases(ROWS, EVENTS, 20)))
    (folder / "space.json").write_text(json.dumps(SPACE))
    return folder


def arguments(files, out, *more):
    return ["--catalogue", str(files / "catalogue.jsonl"), "--events", str(files / "events.jsonl"),
            "--until", instant(LEARNT), "--space", str(files / "space.json"), "--device", "cpu",
            "--out", str(out), *more]


def table(out):
    return [json.loads(line) for line in (out / "trials.jsonl").read_text().splitlines()]


def test_winner_is_written_for_train_and_a_second_run_goes_on(files, tmp_path, capsys):
    assert tune.main(arguments(files, tmp_path, "--trials", "2", "--method", "random")) == 0
    first = table(tmp_path)
    assert tune.main(arguments(files, tmp_path, "--trials", "3")) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = table(tmp_path)
    assert rows[:2] == first
    assert [row["state"] for row in rows] == ["complete"] * 3
    assert all(0 < row["mrr_bm25"] < 1 and row["cases"] > 10 for row in rows)
    best = max(rows, key=lambda row: row["mrr"])
    assert (told["trial"], told["mrr"], told["complete"]) == (best["trial"], best["mrr"], 3)
    config = json.loads((tmp_path / "config.json").read_text())
    whole = {**dataclasses.asdict(TrainConfig()), **SPACE, **best["config"]}
    assert config == {name: whole[name] for name in whole if name not in NOT_TUNED}
    assert train.main([*arguments(files, tmp_path / "model")[:6], "--out", str(tmp_path / "model"),
                       "--config", str(tmp_path / "config.json"), "--device", "cpu"]) == 0


def test_run_that_failed_leaves_the_folder_to_the_right_command(files, tmp_path, capsys):
    wrong = arguments(files, tmp_path, "--trials", "1")
    wrong[wrong.index("--until") + 1] = "1990-01-01"
    assert tune.main(wrong) == 1
    assert "no event before --until" in capsys.readouterr().err
    assert tune.main(arguments(files, tmp_path, "--trials", "1")) == 0


def test_cases_of_the_dev_window_alone_judge(files, tmp_path, capsys):
    cases = make_cases(ROWS, EVENTS, 20)
    until = sorted(case.ts for case in cases)[12]
    inside = [case for case in cases if LEARNT <= case.ts < until]
    assert tune.main(arguments(files, tmp_path, "--trials", "1", "--dev-until", instant(until),
                               "--cases", str(files / "cases.jsonl"))) == 0
    assert 0 < len(inside) < 20
    assert table(tmp_path)[0]["cases"] == len(inside)


def test_cases_are_judged_with_their_own_histories_as_in_an_evaluation(files, tmp_path):
    """Where the events end with the training, the histories alone tell what came until a case."""
    case = make_cases(ROWS, EVENTS, 20)[-1]
    later = [(item, word, instant(ts)) for item, word, ts in zip(
        case.history.item_ids, case.history.events, case.history.ts, strict=True) if ts >= LEARNT]
    write_lines(tmp_path / "events.jsonl", (
        row for row in map(json.loads, (files / "events.jsonl").read_text().splitlines())
        if row["ts"] < instant(LEARNT)))
    write_lines(tmp_path / "cases.jsonl", [
        {"case_id": "c", "user_id": case.user_id, "query": case.query, "ts": instant(case.ts),
         "history": later, "candidates": list(case.candidates), "relevant": list(case.relevant)}])
    window = tune._window(tune._parser().parse_args(
        [*arguments(files, tmp_path / "out", "--cases", str(tmp_path / "cases.jsonl")),
         "--events", str(tmp_path / "events.jsonl")]))
    assert later
    assert len(window.taught) == sum(event.ts < LEARNT for event in EVENTS)
    assert len(window.log) == len(window.taught) + len(later)


def test_interrupted_run_keeps_everything_and_the_same_command_goes_on(files, tmp_path):
    """Ctrl-C as a terminal sends it, while a trial trains."""
    command = [sys.executable, "-u", "-m", "scripts.tune",
               *arguments(files, tmp_path, "--trials", "40", "--method", "grid")]
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    # A shell's background jobs ignore Ctrl-C and hand that on; a terminal's program hears it.
    hears = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, cwd=ROOT, env=environ, stderr=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE, preexec_fn=hears) as process:
        rest = ""
        for line in process.stderr:  # one that falls into a callback of C code is lost: once more
            rest += line
            if "trial " in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130, rest
    assert "tune: interrupted; the same command goes on from here" in rest
    kept = [row for row in table(tmp_path) if row["state"] == "complete"]
    assert kept
    assert (tmp_path / "config.json").exists()
    assert tune.main(arguments(files, tmp_path, "--trials", "40", "--method", "grid")) == 0
    rows = [row for row in table(tmp_path) if row["state"] == "complete"]
    assert rows[:len(kept)] == kept
    assert len(rows) == len({json.dumps(row["config"]) for row in rows}) == 4


def test_trials_that_fail_are_told_and_a_study_of_them_alone_exits_with_one(files, tmp_path,
                                                                            capsys, monkeypatch):
    def fail(*given):
        raise RuntimeError("no memory left")

    monkeypatch.setattr("sidecar.training.tuning.train_ranker", fail)
    assert tune.main(arguments(files, tmp_path, "--trials", "2")) == 1
    said = capsys.readouterr().err
    assert "trial 0: failed: RuntimeError: no memory left; no best yet" in said
    assert "not one of 2 trials could be completed; the first: RuntimeError" in said
    assert [row["error"] for row in table(tmp_path)] == ["RuntimeError: no memory left"] * 2
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize(("space", "said"), [
    ("{", "cannot be read as JSON"), ("[]", "must be a JSON object"),
    ('{"depth": {"choices": [1]}}', "depth is not an option that can be tuned"),
    ('{"hidden": {"low": 9, "high": 8}}', "hidden is no range"),
    ('{"cell": {"choices": ["torch", "lstm"]}}', "cell holds 'lstm', must be one of torch")])
def test_space_that_cannot_be_used_exits_with_one_line(files, tmp_path, space, said, capsys):
    (tmp_path / "space.json").write_text(space)
    assert tune.main(arguments(files, tmp_path / "out", "--space",
                               str(tmp_path / "space.json"))) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("tune: ")
    assert said in captured.err


@pytest.mark.parametrize(("more", "said"), [
    (["--until", instant(LEARNT - 500 * DAY_S)], "has no event before --until"),
    (["--until", instant(LEARNT + 500 * DAY_S)], "no event of the dev window makes a case"),
    (["--events", "no.jsonl"], "no.jsonl")])
def test_window_or_file_that_gives_nothing_is_told(files, tmp_path, more, said, capsys):
    assert tune.main(arguments(files, tmp_path, *more)) == 1
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_cases_that_none_can_judge_by_are_told_before_a_trial_is_trained(files, tmp_path, capsys):
    unjudged = [json.loads(line) | {"relevant": ["other"], "in_candidates": False}
                for line in (files / "cases.jsonl").read_text().splitlines()]
    cases = write_lines(tmp_path / "cases.jsonl", unjudged)
    assert tune.main(arguments(files, tmp_path / "out", "--cases", str(cases))) == 1
    assert "has no case to judge by" in capsys.readouterr().err
    assert not (tmp_path / "out" / "study.db").exists()


def test_dev_window_that_ends_before_it_starts_is_misuse(files, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        tune.main(arguments(files, tmp_path, "--dev-until", instant(LEARNT - 1)))
    assert caught.value.code == 2
    assert "--dev-until must lie after --until" in capsys.readouterr().err


def test_another_window_and_a_second_writer_are_refused(files, tmp_path, capsys):
    assert tune.main(arguments(files, tmp_path, "--trials", "1")) == 0
    assert tune.main(arguments(files, tmp_path, "--until", instant(LEARNT - DAY_S))) == 1
    assert "holds trials with another until" in capsys.readouterr().err
    with (tmp_path / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert tune.main(arguments(files, tmp_path)) == 1
    assert "another run is tuning into" in capsys.readouterr().err


@pytest.mark.parametrize("given", [[], ["--trials", "0"], ["--method", "luck"]])
def test_misuse_exits_with_two(given, capsys):
    with pytest.raises(SystemExit) as caught:
        tune.main(given)
    assert caught.value.code == 2
    assert "usage: python -m scripts.tune" in capsys.readouterr().err


def test_machine_without_optuna_is_told_in_one_line():
    """As of an installation of the sidecar alone, of which Optuna is an extra."""
    hidden = (
        "import runpy, sys\n"
        "class Hidden:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'optuna':\n"
        "            raise ModuleNotFoundError(name, name=name)\n"
        "sys.meta_path.insert(0, Hidden())\n"
        "runpy.run_module('scripts.tune', run_name='__main__')\n")
    told = subprocess.run([sys.executable, "-c", hidden, "--help"], capture_output=True, text=True,
                          check=False)
    assert told.returncode == 1
    assert told.stderr == "tune: the package optuna is not installed; pip install optuna\n"
