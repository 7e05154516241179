"""The search space, and studies that are broken off, resumed, and meet failures."""

from __future__ import annotations

import dataclasses

import pytest

from scripts.train import requirement
from sidecar.errors import FileError
from sidecar.settings import Settings
from sidecar.training.event_table import EventTable
from sidecar.training.pipeline import TrainConfig
from sidecar.training.search_space import DEFAULT, NOT_TUNED, Space
from sidecar.training.tuning import METHODS, DevWindow, open_study
from tests.shops import LEARNT, fresh_ranker, make_cases, make_events, make_rows, quiet

BASE = TrainConfig(hidden=64)
SPACE = Space.of({"hidden": {"low": 16, "high": 256, "log": True}, "layers": {"choices": [1, 2]},
                  "empty_share": {"low": 0.0, "high": 0.4}, "width": 12}, requirement)


def judge(config: TrainConfig) -> dict[str, float]:
    """Stand for training: best with 40 units in one layer."""
    return {"mrr": 1.0 - abs(config.hidden - 40) / 256 - 0.1 * config.layers - config.empty_share}


def run(path, trials, method="bayesian", objective=judge, space=SPACE, seed=3):
    with open_study(path, space, seed, {"space": "this"}) as study:
        rows = list(study.run(method, trials, objective, BASE))
        return rows, study.rows(), study.best()


def test_built_in_space_holds_what_training_takes_and_its_defaults():
    space = Space.of(DEFAULT, requirement)
    default = TrainConfig()
    assert space.holds({name: getattr(default, name) for name in DEFAULT})
    assert not NOT_TUNED & set(DEFAULT)
    assert max(DEFAULT["kept"]["choices"]) <= Settings().history_events  # serving cuts the rest


def test_every_option_of_training_can_be_fixed():
    values = {field.name: field.default for field in dataclasses.fields(TrainConfig)
              if field.name not in NOT_TUNED}
    del values["hidden"]
    space = Space.of({**values, "hidden": {"choices": [8, 16]}}, requirement)
    assert space.fixed == values


@pytest.mark.parametrize(("given", "said"), [
    ([], "must be a JSON object"), ({}, "at least one training option"),
    ({"depth": {"choices": [1]}}, "depth is not an option that can be tuned; known: "),
    ({"seed": {"choices": [1, 2]}}, "seed is not an option that can be tuned"),
    ({"hidden": {"choices": []}}, "must be a list of values"),
    ({"hidden": {"choices": [8, "many"]}}, "hidden holds 'many', must be a whole number"),
    ({"hidden": {"low": 0, "high": 8}}, "hidden holds 0, must be at least 1"),
    ({"hidden": {"low": 8.5, "high": 9.5}}, "hidden holds 8.5, must be a whole number"),
    ({"empty_share": {"low": 0.1, "high": 1.5}}, "must be a share from 0 to less than 1"),
    ({"hidden": {"low": 8}}, "must be a value, "),
    ({"hidden": {"low": 8, "high": 9, "every": 2}}, "must be a value, "),
    ({"hidden": {"low": "8", "high": 9}}, "must be numbers"),
    ({"hidden": {"low": 9, "high": 8}}, "hidden is no range"),
    ({"hidden": {"low": 8, "high": 9, "points": 0}}, "a whole number from 1"),
    ({"hidden": 8}, "fixes every option")])
def test_space_that_cannot_be_searched_is_told(given, said):
    with pytest.raises(FileError, match="space") as caught:
        Space.of(given, requirement)
    assert said in str(caught.value)


def test_grid_holds_every_combination_once():
    space = Space.of({"hidden": {"low": 16, "high": 256, "log": True},
                      "layers": {"choices": [1, 2]},
                      "blend_epochs": {"low": 2, "high": 11, "step": 3, "points": 4}}, requirement)
    points = [tuple(space.grid_point(k, seed=1).items()) for k in range(space.grid_size())]
    assert len(set(points)) == len(points) == 3 * 2 * 4
    assert {dict(point)["hidden"] for point in points} == {16, 64, 256}
    assert {dict(point)["blend_epochs"] for point in points} == {2, 5, 8, 11}


def test_grid_that_nobody_could_search_is_told():
    space = Space.of({name: {"low": 1, "high": 999, "points": 200} for name in
                      ("hidden", "width", "kept")}, requirement)
    with pytest.raises(FileError, match="the grid has 8000000 points, must have at most"):
        space.grid_point(0, seed=1)


@pytest.mark.parametrize("method", METHODS)
def test_study_finds_a_better_configuration_than_the_default(method, tmp_path):
    rows, _, best = run(tmp_path / "study.db", 12, method)
    assert best.figures["mrr"] == max(row.figures["mrr"] for row in rows)
    assert best.figures["mrr"] > judge(BASE)["mrr"]
    assert len(rows) == 12


@pytest.mark.parametrize("method", ["bayesian", "random"])
def test_first_trial_is_the_default(method, tmp_path):
    rows, _, _ = run(tmp_path / "study.db", 2, method)
    assert rows[0].config == {"hidden": 64, "layers": 2, "empty_share": 0.15}


@pytest.mark.parametrize("method", ["bayesian", "random"])
def test_any_seed_that_training_takes_can_be_tuned_with(method, tmp_path):
    with open_study(tmp_path / "study.db", SPACE, 2**31 - 1, {}) as study:
        assert len(list(study.run(method, 2, lambda config: {"mrr": 0.5}, TrainConfig()))) == 2


def test_grid_ends_when_every_point_was_tried(tmp_path):
    space = Space.of({"hidden": {"choices": [8, 16]}, "layers": {"choices": [1, 2]}}, requirement)
    rows, _, best = run(tmp_path / "study.db", 50, "grid", space=space)
    assert len({tuple(row.config.items()) for row in rows}) == len(rows) == 4
    assert best.config == {"hidden": 16, "layers": 1}


def test_grid_is_tried_to_its_last_point_beside_a_default_that_is_none_of_them(tmp_path):
    space = Space.of({"hidden": {"low": 16, "high": 256, "log": True, "points": 2}}, requirement)
    rows, _, _ = run(tmp_path / "study.db", 50, "grid", space=space)
    assert [row.config["hidden"] for row in rows[:1]] == [64]
    assert sorted(row.config["hidden"] for row in rows[1:]) == [16, 256]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_study_that_was_broken_off_and_resumed_is_the_one_that_never_was(method, stop, tmp_path):
    whole, _, _ = run(tmp_path / "whole.db", 6, method)
    run(tmp_path / "parts.db", stop, method)
    calls = []

    def breaks_off(config):
        calls.append(config)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "parts.db", 6, method, breaks_off)
    _, rows, _ = run(tmp_path / "parts.db", 6, method)
    assert len(calls) == 1
    assert [row.state for row in rows].count("interrupted") == 1
    assert [row.config for row in rows if row.state == "complete"] == [r.config for r in whole]


def test_trial_of_a_killed_run_is_ended_and_does_not_count(tmp_path):
    with open_study(tmp_path / "study.db", SPACE, 3, {"space": "this"}) as study:
        study._ask("random")  # and the process dies here
    rows, kept, _ = run(tmp_path / "study.db", 3, "random")
    assert [row.state for row in kept] == ["interrupted", *["complete"] * 3]
    assert len(rows) == 3


@pytest.mark.parametrize("method", METHODS)
def test_failing_trials_are_recorded_and_the_study_goes_on(method, tmp_path, caplog):
    def fails_for_two_layers(config):
        if config.layers == 2:
            raise MemoryError("too large")
        return judge(config)

    rows, _, best = run(tmp_path / "study.db", 6, method, fails_for_two_layers)
    failed = [row for row in rows if row.state == "failed"]
    assert len(rows) == 6
    assert failed
    assert {row.error for row in failed} == {"MemoryError: too large"}
    assert "failed: MemoryError: too large" in caplog.text
    assert best.config["layers"] == 1


def test_figure_that_is_no_number_is_a_failure(tmp_path):
    _, rows, best = run(tmp_path / "study.db", 1, objective=lambda config: {"mrr": float("nan")})
    assert rows[0].state == "failed"
    assert best is None


def test_trials_without_a_personal_gain_can_be_told_apart():
    """They would all ship with the engine's order."""
    rows = make_rows()
    events = make_events(rows)
    ranker = fresh_ranker()
    ranker.config = dataclasses.replace(ranker.config, is_personal=False)
    cases = [case for case in make_cases(rows, events) if case.ts > LEARNT]
    log = EventTable.from_events(events, ranker.items.row_of)
    window = DevWindow(rows, log.until(LEARNT), log, cases)
    figures = window._judge(ranker, quiet)
    assert figures["mrr"] == figures["mrr_unpersonalised"] != figures["mrr_bm25"]


def test_another_study_in_the_same_file_is_refused(tmp_path):
    run(tmp_path / "study.db", 1)
    with (pytest.raises(FileError, match="holds trials with another events, space"),
          open_study(tmp_path / "study.db", SPACE, 3, {"space": "that", "events": "0af"})):
        pytest.fail("opened")


def test_file_that_is_no_study_is_told(tmp_path):
    (tmp_path / "study.db").write_text("not a database, " * 500)
    with (pytest.raises(FileError, match="not a study that can be read"),
          open_study(tmp_path / "study.db", SPACE, 3, {})):
        pytest.fail("opened")
