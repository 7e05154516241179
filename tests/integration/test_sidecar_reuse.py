"""A sidecar that a quickstart finds running is reused only if it is the one that it would start."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from scripts import _services
from scripts._services import Sidecar

ENDLESS = "import threading; threading.Event().wait()"


class Ready(BaseHTTPRequestHandler):
    """Answers as a sidecar that is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def running(tmp_path: Path,
            monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Sidecar, subprocess.Popen[bytes]]]:
    """Give a sidecar that was started, and its process; its port answers whatever becomes of it."""
    spawn, spawned = subprocess.Popen, []

    def stand_in(*_: object, **__: object) -> subprocess.Popen[bytes]:
        spawned.append(spawn([sys.executable, "-c", ENDLESS, "scripts.serve"]))
        return spawned[-1]

    monkeypatch.setattr(_services.subprocess, "Popen", stand_in)
    monkeypatch.setattr(_services, "require_free_ports", lambda *_: None)
    with ThreadingHTTPServer(("127.0.0.1", 0), Ready) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        sidecar = Sidecar(tmp_path, server.server_port, "http://127.0.0.1:9200", tmp_path / "model")
        sidecar.start()
        yield sidecar, spawned[0]
        sidecar.stop()
        server.shutdown()
        thread.join()
    for process in spawned:
        process.wait(30)


def test_sidecar_that_fits_is_left_running(
        running: tuple[Sidecar, subprocess.Popen[bytes]]) -> None:
    sidecar, process = running
    sidecar.start()
    assert process.poll() is None
    assert (sidecar.folder / "sidecar.pid").read_text() == f"{process.pid}\n"


@pytest.mark.parametrize("other", [{"opensearch_url": "http://127.0.0.1:9201"},
                                   {"model": Path("/other/model")}])
def test_sidecar_told_otherwise_is_started_anew(
        running: tuple[Sidecar, subprocess.Popen[bytes]], other: dict[str, object]) -> None:
    sidecar, process = running
    dataclasses.replace(sidecar, **other).start()
    assert process.wait(30) is not None
    assert (sidecar.folder / "sidecar.pid").read_text() != f"{process.pid}\n"
