"""Programs that ask a server of this machine ask it, whatever proxy the environment names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from scripts._asked import ask_sidecar

COMPOSE = Path(__file__).resolve().parents[2] / "docker-compose.yml"


class Handler(BaseHTTPRequestHandler):
    """Answers with its server's name, and notes the Authorization header that came."""

    def do_GET(self) -> None:
        self.server.heard.append(self.headers["Authorization"])
        body = json.dumps({"name": self.server.name}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A server with a name."""

    def __init__(self, name: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.status, self.heard = name, 200, []
        self.url = f"http://127.0.0.1:{self.server_port}"


@contextmanager
def running(name: str) -> Iterator[Server]:
    with Server(name) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def near() -> Iterator[Server]:
    with running("near") as server:
        yield server


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Run a proxy that the environment names for everything."""
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with running("proxy") as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, server.url)
        yield server


def test_sidecar_is_asked_itself_and_no_proxy_gets_the_secret(
        near: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_ADMIN_AUTHORIZATION", "Bearer secret")
    assert ask_sidecar(near.url, "/_personalize/users/u")[0] == {"name": "near"}
    assert near.heard == ["Bearer secret"]
    assert proxy.heard == []


@pytest.mark.parametrize(("service", "port"), [("opensearch", 9200), ("sidecar", 8080)])
def test_healthcheck_asks_the_service_itself(near: Server, proxy: Server, service: str,
                                             port: int) -> None:
    test = yaml.safe_load(COMPOSE.read_text())["services"][service]["healthcheck"]["test"]
    command = [word.replace(f"127.0.0.1:{port}", near.url.removeprefix("http://"))
               for word in test[1:]]
    command[0] = sys.executable if command[0] == "python" else shutil.which(command[0]) or ""
    if not command[0]:
        pytest.fail(f"{test[1]} is needed for the healthchecks' tests; install it")
    for near.status in (200, 503):
        ended = subprocess.run(command, check=False, capture_output=True)
        assert (ended.returncode == 0) == (near.status == 200)
    assert len(near.heard) == 2
    assert proxy.heard == []
