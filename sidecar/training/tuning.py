"""Which training options give the best order on a dev window? A study that can be broken off.

Optuna draws the options (``bayesian``: its tree-structured Parzen estimator) and keeps the trials
in a SQLite file. Each trial's draw depends only on the seed, its number and the trials before it,
so a study that was broken off and resumed gives the same trials as one that ran through. If the
space holds the default configuration, it is the first trial: the winner is no worse on the dev
window.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from sidecar.errors import FileError
from sidecar.ranking.ranker import Ranker
from sidecar.records import Case, FloatArray
from sidecar.training.evaluation import Evaluated, case_is_counted, evaluate
from sidecar.training.event_table import EventTable
from sidecar.training.metrics import reciprocal_ranks
from sidecar.training.pipeline import Progress, TrainConfig, train_ranker
from sidecar.training.search_space import Space, Value

METHODS = ("bayesian", "random", "grid")
NAME = "tuning"
STATES = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}
logger = logging.getLogger(__name__)

Figures = dict[str, float]
Objective = Callable[[TrainConfig], Figures]


@dataclass(frozen=True, slots=True)
class DevWindow:
    """What every trial is trained on and judged by.

    ``taught`` ends where training does, ``log`` where the dev window does; ``log`` may know more:
    what the cases' histories alone tell, as in an evaluation.
    """

    rows: Sequence[Mapping[str, Any]]
    taught: EventTable
    log: EventTable
    cases: Sequence[Case]

    def objective(self, progress: Progress) -> Objective:
        """Return what a trial does: train on ``taught``, rank the cases.

        The figure that counts is ``mrr``: the mean reciprocal rank of the model's order, as it
        would ship, over the cases that can be judged by. Where its personal part would ship off,
        the order without it counts: in the engine's order all such trials would be alike.
        """
        def train_and_judge(config: TrainConfig) -> Figures:
            ranker, evidence = train_ranker(self.rows, self.taught, config, progress)
            return self._judge(ranker, progress) | {"is_personal": evidence["is_personal"]}

        return train_and_judge

    def _judge(self, ranker: Ranker, progress: Progress) -> Figures:
        evaluated = evaluate(ranker, self.log, self.cases, progress("evaluate"))
        scores = evaluated.scores
        order = scores["model"] if ranker.config.is_personal else np.where(
            evaluated.lists.has_history[:, None], scores["unpersonalised"], scores["BM25"])
        return {"cases": float(_counted(evaluated).sum()), "mrr": _mrr(evaluated, order),
                "mrr_unpersonalised": _mrr(evaluated, scores["unpersonalised"]),
                "mrr_bm25": _mrr(evaluated, scores["BM25"])}


def _counted(evaluated: Evaluated) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.array([case_is_counted(case) for case in evaluated.cases], bool)


def _mrr(evaluated: Evaluated, scores: FloatArray) -> float:
    counted = _counted(evaluated)
    return float(reciprocal_ranks(scores[counted],
                                  evaluated.lists.target[counted],
                                  evaluated.lists.valid[counted]).mean())


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as it is written down; ``config`` holds the options that the space names."""

    trial: int
    state: str  # complete, failed or interrupted
    config: Mapping[str, Value]
    figures: Figures
    seconds: float
    error: str | None

    def as_json(self) -> dict[str, Any]:
        """Return the trial as a flat object."""
        figures = {name: round(value, 6) for name, value in self.figures.items()}
        return {"trial": self.trial, "state": self.state, **figures,
                "seconds": round(self.seconds, 1), "error": self.error,
                "config": dict(self.config)}


class Study:
    """The trials of one space over one dev window, kept in a SQLite file."""

    def __init__(self, study: optuna.Study, space: Space, seed: int) -> None:
        self._study = study
        self.space = space
        self.seed = seed

    def rows(self) -> list[TrialRecord]:
        """Return the trials that ended, in order."""
        return [self._row(trial) for trial in self._trials() if trial.state.is_finished()]

    def best(self) -> TrialRecord | None:
        """Return the complete trial with the greatest MRR, the earliest among equals."""
        complete = [row for row in self.rows() if row.state == "complete"]
        return max(complete, key=lambda row: row.figures["mrr"], default=None)

    def run(self, method: str, trials: int, objective: Objective,
            base: TrainConfig) -> Iterator[TrialRecord]:
        """Yield each trial as it ends, until ``trials`` of the study have; a grid ends earlier
        where it has no more points.

        A trial that fails is recorded and yielded like any other. KeyboardInterrupt marks the
        trial under way as interrupted, which does not count, and goes on to the caller.
        """
        while (done := self._counted()) < trials:
            if not done:
                self._begin_with_the_default(base)
            trial = self._ask(method)
            if trial is None:
                return
            yield self._try(trial, objective, base)

    def _counted(self) -> int:
        return sum(row.state != "interrupted" for row in self.rows())

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _begin_with_the_default(self, base: TrainConfig) -> None:
        """Enqueue the default configuration, unless it waits; one that was interrupted waits no
        more."""
        values = {name: getattr(base, name) for name in self.space.options}
        if self.space.holds(values) and not self._is_one_waiting():
            self._study.enqueue_trial(values)

    def _is_one_waiting(self) -> bool:
        return any(trial.state == TrialState.WAITING for trial in self._trials())

    def _ask(self, method: str) -> Trial | None:
        """Return a trial with its options drawn; None where the grid has no more points."""
        if method == "grid" and not self._enqueue_grid_point():
            return None
        self._study.sampler = self._sampler(method)
        return self._study.ask(self.space.distributions())

    def _sampler(self, method: str) -> BaseSampler:
        seed = (self.seed * 100_003 + self._counted()) % 2**32  # as many as its generator takes
        if method == "bayesian":
            return TPESampler(seed=seed, multivariate=True)
        return RandomSampler(seed=seed)

    def _enqueue_grid_point(self) -> bool:
        """Enqueue the next point that was not tried, unless one waits; False where none is left."""
        if self._is_one_waiting():
            return True
        tried = [dict(row.config) for row in self.rows() if row.state != "interrupted"]
        for index in range(self.space.grid_size()):
            point = self.space.grid_point(index, self.seed)
            if point not in tried:
                self._study.enqueue_trial(point)
                return True
        return False

    def _try(self, trial: Trial, objective: Objective, base: TrainConfig) -> TrialRecord:
        started = time.monotonic()
        try:
            config = dataclasses.replace(base, **{**self.space.fixed, **trial.params})
            figures = objective(config)
            if not np.isfinite(figures["mrr"]):
                raise FileError("no case of the dev window can be judged by")
        except KeyboardInterrupt:
            self._end(trial, started, error="interrupted")
            raise
        except Exception as error:  # whatever one configuration does, the study goes on
            logger.warning("trial %d failed: %s: %s", trial.number, type(error).__name__, error)
            self._end(trial, started, error=f"{type(error).__name__}: {error}")
        else:
            trial.set_user_attr("figures", figures)
            trial.set_user_attr("seconds", time.monotonic() - started)
            self._study.tell(trial, figures["mrr"])
        return self._row(self._trials()[trial.number])

    def _end(self, trial: Trial, started: float, error: str) -> None:
        trial.set_user_attr("error", error)
        trial.set_user_attr("seconds", time.monotonic() - started)
        self._study.tell(trial, state=TrialState.FAIL)

    def _row(self, trial: FrozenTrial) -> TrialRecord:
        told = trial.user_attrs
        error = told.get("error")
        state = "interrupted" if error == "interrupted" else STATES[trial.state]
        return TrialRecord(trial.number, state, trial.params, told.get("figures", {}),
                           told.get("seconds", 0.0), error)


@contextmanager
def open_study(path: Path, space: Space, seed: int, inputs: Mapping[str, Any]) -> Iterator[Study]:
    """Open a study's file, or begin one; trials that a killed run left behind are ended.

    Args:
        path: the SQLite file.
        space: what is tried.
        seed: of every draw.
        inputs: what makes trials comparable (files, window, space): JSON-able.

    Raises:
        FileError: the file holds a study of other inputs, or is not a study.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(f"sqlite:///{path}")
    except Exception as error:  # SQLAlchemy's and SQLite's own trees of errors
        raise FileError(f"{path} is not a study that can be read: {error}") from error
    try:
        study = optuna.create_study(storage=storage, study_name=NAME, direction="maximize",
                                    load_if_exists=True)
        _hold_inputs(study, inputs, path)
        for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            storage.set_trial_user_attr(trial._trial_id, "error", "interrupted")
            study.tell(trial.number, state=TrialState.FAIL)
        yield Study(study, space, seed)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _hold_inputs(study: optuna.Study, inputs: Mapping[str, Any], path: Path) -> None:
    kept = study.user_attrs.get("inputs")
    if kept is None:
        study.set_user_attr("inputs", dict(inputs))
        return
    changed = sorted(name for name in {*kept, *inputs} if kept.get(name) != inputs.get(name))
    if changed:
        raise FileError(f"{path} holds trials with another {', '.join(changed)}; their figures "
                        "cannot be compared: give another --out, or the same files and options")
