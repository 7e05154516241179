"""Which training options are tried, and over which values? A space of ``TrainConfig``'s fields.

In JSON it is an object whose keys are fields. A plain value fixes the option. ``{"choices":
[...]}`` lists its values. ``{"low": A, "high": B}`` is a range, both ends included; ``"log": true``
draws it by ratios, ``"step": S`` allows only steps of S, and ``"points": N`` says how many
values of it a grid holds (3).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from sidecar.errors import FileError
from sidecar.training.pipeline import TrainConfig

Value = str | int | float | bool | None
Requirement = Callable[[str, object, object], str | None]

NOT_TUNED = frozenset({"seed", "device", "threads"})  # they say where and how, not what
RANGE_KEYS = frozenset({"low", "high", "log", "step", "points"})
POINTS = 3
MOST_GRID_POINTS = 1_000_000

# What decides how good a model gets: its sizes, and which lists the blend learns from.
DEFAULT: dict[str, Any] = {
    "width": {"low": 32, "high": 128, "log": True},
    "hidden": {"low": 64, "high": 256, "log": True},
    "layers": {"choices": [1, 2]},
    "kept": {"choices": [100, 250, 500]},  # by default, serving keeps 500: more would be cut
    "list_share": {"low": 0.15, "high": 0.5},
    "lists_per_visit": {"low": 2, "high": 10},
    "foreign_share": {"low": 0.0, "high": 0.3},
    "empty_share": {"low": 0.05, "high": 0.3},
    "blend_epochs": {"low": 4, "high": 16},
    "reads_per_shopper": {"low": 120, "high": 960, "log": True},
}


@dataclass(frozen=True, slots=True)
class Option:
    """One field: the values that a sampler draws from, and those that a grid holds."""

    distribution: BaseDistribution
    points: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Space:
    """The options to be tried (by field), and those that are fixed."""

    options: Mapping[str, Option]
    fixed: Mapping[str, Any]

    @classmethod
    def of(cls, given: object, requirement: Requirement) -> Space:
        """Read a space in the form above.

        Args:
            given: decoded JSON.
            requirement: says what a field's value must be, None where it is that: (name, value, the
                field's default) → text.

        Raises:
            FileError: not an object; a field that is none, or is not tuned; a range or choice
                without values, or with one that training does not take.
        """
        if not isinstance(given, dict) or not given:
            raise FileError("the space must be a JSON object with at least one training option")
        known = {field.name: field.default for field in dataclasses.fields(TrainConfig)
                 if field.name not in NOT_TUNED}
        options, fixed = {}, {}
        for name, said in given.items():
            if name not in known:
                raise FileError(f"the space's {name} is not an option that can be tuned; known: "
                                f"{', '.join(sorted(known))}")
            if isinstance(said, dict):
                options[name] = _option(name, said)
                values: tuple[Value, ...] = options[name].points
            else:
                fixed[name] = said
                values = (said,)
            for value in values:
                wanted = requirement(name, value, known[name])
                if wanted:
                    raise FileError(f"the space's {name} holds {value!r}, must be {wanted}")
        if not options:
            raise FileError("the space fixes every option; give at least one choices or a range")
        return cls(options, fixed)

    def distributions(self) -> dict[str, BaseDistribution]:
        """Return what Optuna draws from."""
        return {name: option.distribution for name, option in self.options.items()}

    def grid_size(self) -> int:
        """Return how many points the grid has."""
        return math.prod(len(option.points) for option in self.options.values())

    def grid_point(self, index: int, seed: int) -> dict[str, Value]:
        """Return the grid's point ``index`` in an order shuffled by ``seed``: a search that is
        ended early has then seen every option move.

        Raises:
            FileError: the grid has more than MOST_GRID_POINTS.
        """
        size = self.grid_size()
        if size > MOST_GRID_POINTS:
            raise FileError(f"the grid has {size} points, must have at most {MOST_GRID_POINTS}; "
                            "give fewer options or choices, or search at random")
        place = int(np.random.default_rng(seed).permutation(size)[index])
        point: dict[str, Value] = {}
        for name, option in self.options.items():
            place, digit = divmod(place, len(option.points))
            point[name] = option.points[digit]
        return point

    def holds(self, values: Mapping[str, object]) -> bool:
        """Say whether each option's value is one that the space has."""
        return all(_contains(option.distribution, values.get(name))
                   for name, option in self.options.items())


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _option(name: str, said: Mapping[str, Any]) -> Option:
    if set(said) == {"choices"}:
        choices = said["choices"]
        if not isinstance(choices, list) or not choices:
            raise FileError(f"the space's {name} has choices {choices!r}, must be a list of values")
        return Option(CategoricalDistribution(choices), tuple(choices))
    if not {"low", "high"} <= set(said) <= RANGE_KEYS:
        raise FileError(f"the space's {name} is {json.dumps(dict(said))}, must be a value, "
                        '{"choices": [...]} or {"low": A, "high": B}, with log, step or points')
    return _range(name, said)


def _range(name: str, said: Mapping[str, Any]) -> Option:
    low, high, step = said["low"], said["high"], said.get("step")
    log, count = said.get("log", False), said.get("points", POINTS)
    numbers = [low, high, *([] if step is None else [step])]
    if any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise FileError(f"the space's {name} has low {low!r}, high {high!r} and step {step!r}, "
                        "must be numbers")
    if not isinstance(log, bool) or not isinstance(count, int) or count < 1:
        raise FileError(f"the space's {name} has log {log!r} and points {count!r}, must be true "
                        "or false, and a whole number from 1")
    is_whole = all(isinstance(n, int) for n in numbers)
    try:
        distribution: IntDistribution | FloatDistribution = (
            IntDistribution(low, high, log=log, step=1 if step is None else step) if is_whole
            else FloatDistribution(float(low), float(high), log=log, step=step))
    except ValueError as error:
        raise FileError(f"the space's {name} is no range: {error}") from error
    spread = (np.geomspace if log else np.linspace)(low, distribution.high, count)
    return Option(distribution, _on_steps(spread.tolist(), low, step, is_whole=is_whole))


def _on_steps(spread: list[float], low: float, step: float | None, *,
              is_whole: bool) -> tuple[Value, ...]:
    """Move values to the nearest step (whole numbers: of 1) and leave repetitions out."""
    if step is not None:
        spread = [low + round((value - low) / step) * step for value in spread]
    return tuple(dict.fromkeys(round(v) if is_whole else float(round(v, 10)) for v in spread))
