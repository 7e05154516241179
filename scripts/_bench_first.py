"""What does the first search cost: after a start, after silence, while a model is swapped in?

Starts sidecars of its own over a copy of the model, and measures their steady state beside it.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from scripts import _bench_stats as stats
from scripts._bench_arms import Arms, mixture, take
from scripts._bench_client import RawConnection
from scripts._bench_load import Samples, open_loop
from scripts._bench_sections import Bench, Report
from scripts._machine import find_free_port
from scripts._services import Sidecar, call
from sidecar.stores.models import load_ranker, model_version, save_ranker

ARM = "personal"
AT_S = 2.0  # when, in the open loop, the model is swapped or the workers are replaced
SWAP_S = 60.0  # longest wait for the new model after the open loop
WATCH_S = 0.2  # between looks at which model a worker has
ALL_SEEN = 10  # answers in a row, on new connections, that say that every worker has switched
FIRST_OF_EACH = 4  # connections after a start, so that each of two workers answers a first search


@dataclass(frozen=True, slots=True)
class Plan:
    """How often, how long, how many.

    ``model``: a directory that train wrote; ``rate``: searches a second while something happens
    beside them, for ``seconds``.
    """

    model: Path
    starts: int
    idle_rounds: int
    idle_seconds: float
    searches: int
    rate: float
    seconds: float


def first(bench: Bench, plan: Plan) -> Report:
    """Measure starts, silence, a swap and a reload; raises LaunchError, ModelError."""
    with tempfile.TemporaryDirectory(prefix="personalize-bench-") as folder:
        own = Path(folder)
        shutil.copytree(plan.model, own / "model")
        _write_next(own / "model", own / "next")
        report: Report = {"start": _starts(bench, plan, own)}
        with _running(bench, own) as (sidecar, arms):
            report["steady"] = stats.summary(_one_client(bench, arms, plan.searches))
            report["idle"] = _idle(bench, plan, arms)
            report["undisturbed"] = _beside(bench, plan, arms, _nothing)
            report["swap"] = _swap(bench, plan, arms, sidecar, own)
            report["reload"] = _beside(bench, plan, arms, partial(_reload, sidecar))
    return report


def _write_next(model_dir: Path, next_dir: Path) -> None:
    """Write the same model under another version: one weight differs by its last bit."""
    ranker = load_ranker(model_dir, "cpu")
    bias = ranker.encoder.bias.data
    bias.copy_(torch.nextafter(bias, bias + 1))
    save_ranker(ranker, next_dir, {})


@contextmanager
def _running(bench: Bench, folder: Path) -> Iterator[tuple[Sidecar, Arms]]:
    target = bench.arms.target
    sidecar = Sidecar(folder, find_free_port(), target.opensearch, folder / "model")
    sidecar.start()
    try:
        yield sidecar, Arms(replace(target, sidecar=sidecar.url), (ARM,))
    finally:
        sidecar.stop()


def _starts(bench: Bench, plan: Plan, folder: Path) -> Report:
    """Start a sidecar over and over: its very first search, and the first of each connection."""
    very_first, firsts = Samples(), Samples()
    for number in range(plan.starts):
        bench.say(f"first search after start {number + 1} of {plan.starts}")
        with _running(bench, folder) as (_, arms):
            opened = []  # and kept: the worker with fewer connections takes the next
            for place, search in enumerate(take(bench.log, FIRST_OF_EACH, bench.seed + number)):
                opened.append(RawConnection(arms.target.sidecar))
                _timed(opened[-1], arms.request(ARM, search), very_first if not place else firsts)
            for connection in opened:
                connection.close()
    return {"very_first_ms": _listed(very_first), "next_connections_ms": _listed(firsts),
            "outcomes": very_first.outcomes}


def _one_client(bench: Bench, arms: Arms, searches: int) -> list[float]:
    connection, samples = RawConnection(arms.target.sidecar), Samples()
    chosen = take(bench.log, 2 * searches, bench.seed)
    for number, search in enumerate(chosen):
        _timed(connection, arms.request(ARM, search), samples if number >= searches else Samples())
    connection.close()
    return samples.latencies[ARM]


def _idle(bench: Bench, plan: Plan, arms: Arms) -> Report:
    kept, on_kept, on_new = RawConnection(arms.target.sidecar), Samples(), Samples()
    for number in range(plan.idle_rounds):
        bench.say(f"idle for {plan.idle_seconds:.0f} s, {number + 1} of {plan.idle_rounds}")
        searches = take(bench.log, 2, bench.seed + number)
        time.sleep(plan.idle_seconds)
        if kept.is_closed():
            kept = RawConnection(arms.target.sidecar)
        _timed(kept, arms.request(ARM, searches[0]), on_kept)
        time.sleep(plan.idle_seconds)
        fresh = RawConnection(arms.target.sidecar)
        _timed(fresh, arms.request(ARM, searches[1]), on_new)
        fresh.close()
    kept.close()
    return {"kept_connection_ms": _listed(on_kept), "new_connection_ms": _listed(on_new)}


def _beside(bench: Bench, plan: Plan, arms: Arms, act: Callable[[], Any]) -> Report:
    """Search at a steady rate, and let something happen two seconds after the start."""
    acted = False

    def at(elapsed: float) -> None:
        nonlocal acted
        if elapsed >= AT_S and not acted:
            acted = True
            act()

    bench.say(f"open loop: {plan.rate:.0f} a second for {plan.seconds:.0f} s")
    seen = open_loop(arms.target.sidecar, mixture(arms, bench.log, bench.seed, arm=ARM),
                     rate=plan.rate, seconds=plan.seconds, seed=bench.seed, each_second=at)
    return {"ms": stats.summary(seen.latencies[ARM]), "outcomes": seen.outcomes,
            "errors": seen.errors, "never_sent": seen.never_sent}


def _swap(bench: Bench, plan: Plan, arms: Arms, sidecar: Sidecar, folder: Path) -> Report:
    before = model_version(folder / "model")
    watch = _Watch(sidecar, before)

    def act() -> None:
        _put_in_place(folder / "next", folder / "model")
        watch.start()

    report = _beside(bench, plan, arms, act)
    watch.join()
    return report | {"versions": [before, watch.version], "switched_s": watch.switched_s,
                     "loop_covers_switch": (watch.switched_s or SWAP_S) < plan.seconds - AT_S}


class _Watch(threading.Thread):
    """Asks, on ever new connections, which model answers, until all workers have another.

    ``switched_s``: from the start to the last answer of the model before; None: they never did.
    """

    def __init__(self, sidecar: Sidecar, before: str) -> None:
        super().__init__(name="watch", daemon=True)
        self._sidecar, self._before = sidecar, before
        self.version = before
        self.switched_s: float | None = None

    def run(self) -> None:
        """Watch."""
        began, seen, last_old_s = time.monotonic(), 0, 0.0
        while seen < ALL_SEEN:
            passed_s = time.monotonic() - began
            if passed_s > SWAP_S:
                return
            self.version = _version_in_use(self._sidecar)
            if self.version == self._before:
                seen, last_old_s = 0, passed_s
            else:
                seen += 1
            time.sleep(WATCH_S)
        self.switched_s = round(last_old_s + WATCH_S, 1)


def _put_in_place(next_dir: Path, model_dir: Path) -> None:
    """Put the next model's files beside this one's, its description last, as train does."""
    for path in next_dir.glob("*.npz"):
        os.link(path, model_dir / path.name)
    os.replace(next_dir / "model.json", model_dir / "model.json")


def _version_in_use(sidecar: Sidecar) -> str:
    return str(call(sidecar.url, "GET", "/_personalize/health/ready").json["model"]["version"])


def _nothing() -> None:
    """Let nothing happen."""


def _reload(sidecar: Sidecar) -> None:
    os.kill(int((sidecar.folder / "sidecar.pid").read_text()), signal.SIGHUP)


def _timed(connection: RawConnection, payload: bytes, samples: Samples) -> None:
    started = time.perf_counter()
    answer = connection.ask(payload)
    samples.add(ARM, time.perf_counter() - started, answer)


def _listed(samples: Samples) -> list[float]:
    return [round(1000.0 * seconds, 2) for seconds in samples.latencies.get(ARM, [])]
