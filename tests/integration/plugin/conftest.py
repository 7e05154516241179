"""Nodes with the plugin, installed from its zip, and a sidecar beside them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts._machine import find_free_port
from tests.conftest import Launcher
from tests.http_answers import Answer, ask

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
PLUGIN = ROOT / "plugin"
WORDS = ["milk", "white", "whole", "bread", "cheese", "red", "wine", "dry", "blue", "green"]
USER = "u1"


@dataclass
class Shop:
    """Nodes with the plugin, and a sidecar that is proxy and rescorer at once."""

    nodes: list[str]
    sidecar: str

    def put_pipeline(self, name: str, request: dict[str, Any] | None = None,
                     response: dict[str, Any] | None = None) -> None:
        """Define a pipeline with both processors; by default over this shop's sidecar."""
        usual = {"endpoint": self.sidecar, "timeout_ms": 10_000}
        body = {"request_processors": [{"personalize": {**usual, **(request or {})}}],
                "response_processors": [{"personalize": {**usual, **(response or {})}}]}
        made = ask(self.nodes[0], "PUT", f"/_search/pipeline/{name}", body)
        assert made.status == 200, made.body

    def search(self, pipeline: str, body: dict[str, Any], target: str = "/one/_search",
               **controls: Any) -> Answer:
        """Search by way of the plugin; ``controls`` go into ext.personalize."""
        joint = "&" if "?" in target else "?"
        return ask(self.nodes[0], "POST", f"{target}{joint}search_pipeline={pipeline}",
                   _controlled(body, controls))

    def search_by_proxy(self, body: dict[str, Any], target: str = "/one/_search",
                        **controls: Any) -> Answer:
        """Search through the proxy, asking for the same."""
        return ask(self.sidecar, "POST", target, _controlled(body, controls))

    def engine(self, body: dict[str, Any], target: str = "/one/_search") -> Answer:
        """Search without any pipeline."""
        return ask(self.nodes[0], "POST", target, body)

    def call(self, method: str, target: str, body: Any = None) -> Answer:
        """Ask the first node anything."""
        return ask(self.nodes[0], method, target, body)

    def counters(self) -> dict[str, Any]:
        """Return the first node's counters."""
        stats = ask(self.nodes[0], "GET", "/_plugins/_personalize/_local/stats").json
        return next(iter(stats["nodes"].values()))


def _controlled(body: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
    return {**body, "ext": {**body.get("ext", {}), "personalize": {"user_id": USER, **controls}}}


@pytest.fixture(scope="session")
def plugin_zip() -> Path:
    """Give the plugin's zip; build it where its sources are newer."""
    sources = [path.stat().st_mtime for path in (PLUGIN / "src" / "main").rglob("*.*")]
    built = sorted((PLUGIN / "target").glob("opensearch-personalize-*.zip"))
    if not built or built[-1].stat().st_mtime < max(sources):
        subprocess.run(["mvn", "-q", "-B", "-f", str(PLUGIN), "package", "-DskipTests"],
                       check=True, stdin=subprocess.DEVNULL, timeout=600)
        built = sorted((PLUGIN / "target").glob("opensearch-personalize-*.zip"))
    return built[-1]


@pytest.fixture(scope="session")
def one_node(launcher: Launcher, plugin_zip: Path) -> Iterator[Shop]:
    """Give a shop on one node; with ``TEST_PLUGIN_SHOP=NODE,SIDECAR`` one that is there."""
    given = os.environ.get("TEST_PLUGIN_SHOP")
    if given:
        node, sidecar = given.split(",")
        yield Shop([node], sidecar)
        return
    with _shop(launcher, plugin_zip, nodes=1) as shop:
        yield shop


@pytest.fixture(scope="module")
def two_nodes(launcher: Launcher, plugin_zip: Path) -> Iterator[Shop]:
    """Give a shop on two nodes, with a copy of every shard on both."""
    with _shop(launcher, plugin_zip, nodes=2) as shop:
        yield shop


@contextmanager
def _shop(launcher: Launcher, plugin_zip: Path, nodes: int) -> Iterator[Shop]:
    home = Path(tempfile.mkdtemp(prefix="opensearch-test-"))
    port = find_free_port(companions=(1, 100, 101))
    try:
        started = launcher("up", "--home", home, "--port", port, "--nodes", nodes,
                           "--heap", "512m", "--plugin", plugin_zip)
        assert started.returncode == 0, started.stderr
        urls = started.stdout.split()
        _fill(urls[0], copies=nodes - 1)
        with _sidecar(urls[0]) as sidecar:
            _remember(sidecar)
            yield Shop(urls, sidecar)
    finally:
        launcher("down", "--home", home)
        shutil.rmtree(home)


@contextmanager
def _sidecar(opensearch: str) -> Iterator[str]:
    port = find_free_port()
    environ = {name: text for name, text in os.environ.items() if not name.startswith("SIDECAR_")}
    environ |= {"SIDECAR_OPENSEARCH_URL": opensearch, "SIDECAR_LISTEN": f"127.0.0.1:{port}",
                "SIDECAR_WORKERS": "1", "SIDECAR_TIMEOUT_MS": "9000",
                "SIDECAR_PRODUCTS_INDEX": "one",
                "SIDECAR_MODEL_DIR": str(HERE), "PYTHONPATH": str(HERE)}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "python:sidecar.web.gunicorn_conf",
         "parity_app:application()"], cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: ask(url, "GET", "/_personalize/health/live").status == 200,
                   "the sidecar did not start; its output is above")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait_until(is_so: Callable[[], bool], otherwise: str, seconds: float = 60.0) -> None:
    """Wait for something to come true; connections that are refused count as not yet."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            if is_so():
                return
        time.sleep(0.05)
    pytest.fail(otherwise)


def _remember(sidecar: str) -> None:
    events = [{"user_id": USER, "event": "click", "item_id": f"o{number}"} for number in range(3)]
    taken = ask(sidecar, "POST", "/_personalize/events", events)
    assert taken.status == 200, taken.body


MAPPING = {"properties": {
    "item_id": {"type": "keyword"}, "title": {"type": "text"}, "brand": {"type": "keyword"},
    "price": {"type": "double"}, "size": {"type": "long"}, "added": {"type": "date"},
    "Alpha": {"type": "object", "enabled": False},
    "reviews": {"type": "nested", "properties": {"stars": {"type": "integer"},
                                                 "text": {"type": "text"}}}}}


def _fill(node: str, copies: int) -> None:
    for name, shards, more in (("one", 1, {}), ("many", 3, {}),
                               ("narrow", 1, {"max_result_window": 50})):
        settings = {"number_of_shards": shards, "number_of_replicas": copies, **more}
        made = ask(node, "PUT", f"/{name}", {"settings": settings, "mappings": MAPPING})
        assert made.status == 200, made.body
        lines = "".join(_document(number, name) for number in range(160)).encode()
        written = ask(node, "POST", f"/{name}/_bulk?refresh=true", lines)
        assert not written.json["errors"], written.body[:500]
    health = ask(node, "GET", "/_cluster/health?wait_for_status=green&timeout=60s")
    assert health.json["status"] == "green", health.body


def _document(number: int, index: str) -> str:
    words = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 7)]
    item = f"{index[0]}{number}"
    row = {"item_id": item, "title": " ".join(["milk"] * (1 + number % 4) + words),
           "price": number + 0.5, "size": 9007199254740993 + number, "brand": f"b{number % 7}",
           "Alpha": [1, 2.5, None], "added": f"2026-0{1 + number % 9}-01",
           "reviews": [{"stars": 1 + number % 5, "text": f"good {words[0]}"}]}
    return f'{{"index":{{"_id":"{item}"}}}}\n{json.dumps(row)}\n'
