"""A sidecar in front of a real node, with indices that hold what a proxy could get wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts._cluster import TRANSPORT_OFFSET
from scripts._machine import find_free_port
from tests.http_answers import Answer, ask

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
WORDS = ["milk", "white", "whole", "bread", "cheese", "red", "wine", "dry", "blue", "green"]


@dataclass
class Proxy:
    """A node and the sidecar in front of it, with the same indices under ``prefix``."""

    node: str
    url: str
    prefix: str

    def direct(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        return ask(self.node, method, target, body, **headers)

    def through(self, method: str, target: str, body: Any = None, **headers: str) -> Answer:
        return ask(self.url, method, target, body, **headers)

    def search(self, index: str, body: Any, parameters: str = "", **headers: str) -> Answer:
        """Search through the sidecar as the user who has a history."""
        return self.through("POST", f"/{self.prefix}{index}/_search{parameters}", body,
                            **{"X_Personalize_User": "u1", **headers})

    def engine(self, index: str, body: Any, parameters: str = "", **headers: str) -> Answer:
        return self.direct("POST", f"/{self.prefix}{index}/_search{parameters}", body, **headers)


    def logged(self, index: str, count: int) -> list[dict[str, Any]]:
        """Wait until a log that is written behind the answers has so many entries."""
        deadline = time.monotonic() + 20
        while True:
            self.direct("POST", f"/{index}/_refresh")
            answer = self.direct("GET", f"/{index}/_search")
            hits = answer.json["hits"]["hits"] if answer.status == 200 else []
            if len(hits) >= count or time.monotonic() > deadline:
                return [hit["_source"] for hit in hits]
            time.sleep(0.02)


def chance(item_id: str) -> int:
    """Score an item as the app under test does."""
    return zlib.crc32(item_id.encode()) % 1009


@pytest.fixture(scope="session")
def expected_order() -> Callable[[list[str], int], list[str]]:
    """Reorder a window as the app under test does, the rest left alone."""
    def order(ids: list[str], window: int) -> list[str]:
        return sorted(ids[:window], key=chance, reverse=True) + ids[window:]
    return order


@pytest.fixture(scope="session", name="ask")
def ask_fixture() -> Callable[..., Answer]:
    """Send one request anywhere."""
    return ask


@pytest.fixture(scope="session")
def sidecar_over() -> Callable[..., Any]:
    """Start a sidecar over any node or nodes, as a context."""
    return _sidecar


@contextmanager
def _sidecar(opensearch: str, app: str = "shuffling_app", **settings: object) -> Iterator[str]:
    port = find_free_port()
    chosen = {"opensearch_url": opensearch, "pass": "all", "timeout_ms": 200, "workers": 1,
              "threads": 8, "listen": f"127.0.0.1:{port}", **settings}
    environ = {name: text for name, text in os.environ.items() if not name.startswith("SIDECAR_")}
    environ |= {f"SIDECAR_{name.upper()}": str(value) for name, value in chosen.items()}
    environ |= {"PYTHONPATH": str(HERE), "OPENBLAS_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--config", "python:sidecar.web.gunicorn_conf",
         f"{app}:application()"],
        cwd=ROOT, env=environ, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            ask(url, "GET", "/")
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail("the sidecar under test did not start; its output is above")


@pytest.fixture(scope="session")
def proxy_prefix(opensearch: str) -> Iterator[str]:
    """Give the prefix of the shared indices, which are deleted at the end of the run."""
    prefix = f"proxy-{uuid.uuid4().hex[:8]}-"
    fill(opensearch, prefix)
    yield prefix
    ask(opensearch, "DELETE", f"/{prefix}*")


@pytest.fixture(scope="session")
def proxy(opensearch: str, proxy_prefix: str) -> Iterator[Proxy]:
    """Give a sidecar that lets everything through."""
    with _sidecar(opensearch, queries_index=f"{proxy_prefix}queries") as url:
        yield Proxy(opensearch, url, proxy_prefix)


@pytest.fixture(scope="module")
def cluster_proxy(launcher: Callable[..., Any], sidecar_over: Callable[..., Any]
                  ) -> Iterator[Proxy]:
    """Give a sidecar over a cluster of two nodes, with a replica of every shard."""
    home = Path(tempfile.mkdtemp(prefix="opensearch-test-"))
    port = find_free_port(companions=(1, TRANSPORT_OFFSET, TRANSPORT_OFFSET + 1))
    try:
        started = launcher("up", "--home", home, "--port", str(port), "--nodes", "2",
                           "--heap", "512m")
        assert started.returncode == 0, started.stderr
        nodes = [f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port + 1}"]
        fill(nodes[0], "cluster-", replicas=1)
        health = ask(nodes[0], "GET", "/_cluster/health?wait_for_status=green&timeout=60s")
        assert health.json["status"] == "green", health.body
        with sidecar_over(",".join(nodes)) as url:
            yield Proxy(nodes[0], url, "cluster-")
    finally:
        launcher("down", "--home", home)
        shutil.rmtree(home)


MAPPING = {"properties": {
    "item_id": {"type": "keyword"}, "brand": {"type": "keyword"},
    "title": {"type": "text", "fields": {"completed": {"type": "completion"}}},
    "price": {"type": "double"}, "size": {"type": "long"}, "added": {"type": "date"},
    "Alpha": {"type": "object", "enabled": False},
    "reviews": {"type": "nested", "properties": {"stars": {"type": "integer"},
                                                 "text": {"type": "text"}}}}}


def fill(node: str, prefix: str, replicas: int = 0) -> None:
    """Make the indices: one shard, several, a narrow result window, and one without item_id."""
    plain = {"properties": {k: v for k, v in MAPPING["properties"].items() if k != "item_id"}}
    for name, shards, mapping, more in (
            ("one", 1, MAPPING, {}), ("many", 3, MAPPING, {}), ("plain", 2, plain, {}),
            ("narrow", 1, MAPPING, {"max_result_window": 50}), ("queries", 1, {}, {})):
        settings = {"number_of_shards": shards, "number_of_replicas": replicas, **more}
        made = ask(node, "PUT", f"/{prefix}{name}", {"settings": settings, "mappings": mapping})
        assert made.status == 200, made.body
        if name == "queries":
            continue
        lines = "".join(_document(number, name) for number in range(160)).encode()
        written = ask(node, "POST", f"/{prefix}{name}/_bulk?refresh=true", lines)
        assert not written.json["errors"], written.body[:500]
    aliases = {"actions": [{"add": {"index": f"{prefix}{name}", "alias": f"{prefix}both"}}
                           for name in ("one", "many")]}
    assert ask(node, "POST", "/_aliases", aliases).status == 200


def _document(number: int, index: str) -> str:
    """Write a document by hand, so that its bytes are odd: digits, escapes, order, big numbers."""
    words = [WORDS[(number * step + step) % len(WORDS)] for step in (1, 3, 7)]
    title = " ".join(["milk"] * (1 + number % 4) + words)
    item = f"{index[0]}{number}"
    source = (f'{{"title":"{title}", "item_id":"{item}","price":{number}.10,'
              f'"size":{9007199254740993 + number},"brand":"b{number % 7}\\u00e9\\/",'
              f'"zeta":1.0E-2,"Alpha":[1,2.50,null,true],"added":"2026-0{1 + number % 9}-01",'
              f'"reviews":[{{"stars":{1 + number % 5},"text":"good {words[0]}"}}]}}')
    return f'{{"index":{{"_id":"{item}"}}}}\n{source}\n'
