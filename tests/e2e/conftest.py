"""Sidecars as operators run them: gunicorn, several workers, settings from the environment."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from scripts._machine import find_free_port
from tests.http_answers import Answer
from tests.http_answers import ask as http_ask

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


@dataclass
class Sidecar:
    """A running sidecar."""

    url: str
    process: subprocess.Popen[bytes]
    log_file: Path
    index: str = ""

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def request(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        return http_ask(self.url, method, target, body, **headers)

    def search(self, query: dict[str, Any] | None = None, **headers: str) -> Answer:
        body = {"query": query or {"match_all": {}}, "size": 5}
        return self.request("POST", f"/{self.index}/_search", body, **headers)

    def ready(self) -> Answer:
        return self.request("GET", "/_personalize/health/ready")

    def stop(self, how: signal.Signals = signal.SIGTERM, within_s: float = 60.0) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(within_s)


@dataclass
class Sidecars:
    """Starts sidecars over one OpenSearch and one set of indices."""

    opensearch: str
    prefix: str
    folder: Path
    running: list[Sidecar] = field(default_factory=list)

    def start(self, app: str | None = None, **settings: object) -> Sidecar:
        """Start one; ``app`` names another WSGI application than the one that ships."""
        port = find_free_port()
        environ = {name: value for name, value in os.environ.items()
                   if not name.startswith("SIDECAR_")}
        chosen = {"opensearch_url": self.opensearch, "listen": f"127.0.0.1:{port}", "workers": 2,
                  "products_index": f"{self.prefix}products",
                  "states_index": f"{self.prefix}states",
                  "events_index": f"{self.prefix}events",
                  "queries_index": f"{self.prefix}queries", "device": "cpu",
                  "timeout_ms": 2000, **settings}  # patient: a test machine may be busy
        environ |= {f"SIDECAR_{name.upper()}": str(value) for name, value in chosen.items()}
        command = [sys.executable, "-m", "scripts.serve"]
        if app is not None:
            environ["PYTHONPATH"] = str(Path(__file__).parent)
            command = [sys.executable, "-m", "gunicorn", "--config",
                       "python:sidecar.web.gunicorn_conf", app]
        log_file = self.folder / f"sidecar-{port}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stderr=log, stdout=log)
        sidecar = Sidecar(f"http://127.0.0.1:{port}", process, log_file, chosen["products_index"])
        self.running.append(sidecar)
        wait_until(lambda: sidecar.request("GET", "/_personalize/health/live").status == 200,
                   f"sidecar did not start: {sidecar.log}", START_S,
                   give_up=lambda: process.poll() is not None)
        return sidecar


def wait_until(is_so: Callable[[], bool], otherwise: str, seconds: float = 20.0,
               give_up: Callable[[], bool] = lambda: False) -> None:
    """Wait for something to come true; connections that are refused count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not give_up():
        with suppress(OSError, http.client.HTTPException):
            if is_so():
                return
        time.sleep(0.05)
    pytest.fail(otherwise)


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for something to come true."""
    return wait_until


@pytest.fixture
def sidecars(opensearch: str, index_prefix: str, tmp_path: Path) -> Iterator[Sidecars]:
    """Start sidecars that are stopped when the test is over."""
    started = Sidecars(opensearch, index_prefix, tmp_path)
    yield started
    for sidecar in started.running:
        sidecar.stop()


@pytest.fixture
def shop(opensearch: str, index_prefix: str) -> str:
    """Load thirty milks, ``p0`` the engine's favourite; return the index."""
    index = f"{index_prefix}products"
    fill_shop(opensearch, index)
    return index


def fill_shop(opensearch: str, index: str) -> None:
    mapping = {"settings": {"number_of_shards": 1, "number_of_replicas": 0},
               "mappings": {"properties": {"item_id": {"type": "keyword"},
                                           "price": {"type": "float"},
                                           "title": {"type": "text"}}}}
    assert http_ask(opensearch, "PUT", f"/{index}", mapping).status == 200
    lines = []
    for number in range(30):
        title = " ".join(["milk"] + ["white"] * number)
        lines += [{"index": {"_id": f"p{number}"}}, {"item_id": f"p{number}", "title": title}]
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    written = http_ask(opensearch, "POST", f"/{index}/_bulk?refresh=true", body)
    assert not written.json["errors"]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    """Give a directory with the fake model's first version."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_model(folder, version="v1")
    return folder


def write_model(folder: Path, **model: object) -> None:
    """Put a fake model in place of what is there, at one stroke.

    With a ``format`` as real models have: their libraries are imported once, before the fork.
    """
    new = folder / "new.json"
    new.write_text(json.dumps({"format": "fake", **model}))
    new.rename(folder / "model.json")


@pytest.fixture
def new_model() -> Callable[..., None]:
    """Put a fake model in place."""
    return write_model


@pytest.fixture
def fill() -> Callable[[str, str], None]:
    """Load the shop into an index of any node."""
    return fill_shop


@pytest.fixture
def ask() -> Callable[..., Answer]:
    """Send a request to any server."""
    return http_ask
