"""The two services of the quickstart, started in the background and found again by later runs.

If a Docker engine answers, OpenSearch is the compose service, else a local node. The sidecar is
gunicorn on this machine in both cases. Pid files, and Docker itself, tell what is running.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scripts._cluster import ClusterPlan, reachable_home
from scripts._machine import LOOPBACK, require_free_ports
from scripts._node import health, start, stop
from scripts._processes import command_line, send_signal, wait_until_gone
from scripts._stamps import Stamps, key_of
from sidecar.errors import LaunchError

ROOT = Path(__file__).resolve().parent.parent
READY_TIMEOUT_S = 180
STOP_TIMEOUT_S = 45
SIDECAR_MARK = "sidecar.web.gunicorn_conf"


def has_docker_engine() -> bool:
    """Say whether a Docker engine answers; a client on the PATH alone is none."""
    if shutil.which("docker") is None:
        return False
    return all(_succeeds(["docker", *words]) for words in (("info",), ("compose", "version")))


def _succeeds(command: list[str]) -> bool:
    try:
        return subprocess.run(command, check=False, capture_output=True, timeout=30,
                              stdin=subprocess.DEVNULL).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@dataclass(frozen=True, slots=True)
class ComposeOpenSearch:
    """The compose file's ``opensearch`` service, under a project name of the folder's."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start the container and wait until it is healthy."""
        if not health(self.url):
            require_free_ports([self.port], "choose another with --port")
        self._mark.touch()
        self._compose("up", "--detach", "--wait", "opensearch")

    def stop(self) -> None:
        """Stop the container, if one was ever started; its volume stays."""
        if self._mark.exists():
            self._compose("stop", "opensearch")

    def forget(self) -> None:
        """Delete the container and its volume."""
        if self._mark.exists():
            self._compose("down", "--volumes")
            self._mark.unlink()

    @property
    def _mark(self) -> Path:
        return self.folder / "uses-docker"

    def _compose(self, *words: str) -> None:
        command = ["docker", "compose", "--project-name", f"personalize-{self.folder.name}", *words]
        environ = os.environ | {"OPENSEARCH_PORT": str(self.port)}
        code = subprocess.run(command, cwd=ROOT, env=environ, check=False, stdout=sys.stderr,
                              stdin=subprocess.DEVNULL).returncode
        if code != 0:
            raise LaunchError(f"docker compose {words[0]} ended with {code}, its message is above; "
                              "repair it, or go without Docker: --no-docker")


@dataclass(frozen=True, slots=True)
class LocalOpenSearch:
    """A node put together from Maven Central's artifacts."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def home(self) -> Path:
        """The node's home: the folder, unless the node's user cannot enter it."""
        return reachable_home(self.folder)

    def start(self) -> None:
        """Start the node and wait until it answers."""
        start(ClusterPlan(self.home, port=self.port))

    def stop(self) -> None:
        """Stop the node; its data stays."""
        stop(self.home)

    def forget(self) -> None:
        """Delete the node's home."""
        shutil.rmtree(self.home, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Sidecar:
    """gunicorn with the sidecar, its pid file and log in a folder."""

    folder: Path
    port: int
    opensearch_url: str
    model: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log(self) -> Path:
        """What gunicorn and its workers print."""
        return self.folder / "sidecar.log"

    def check_port(self) -> None:
        """Raise ``LaunchError`` if something other than this sidecar holds the port."""
        if not self._runs_as_wanted():
            self.stop()
            require_free_ports([self.port], "choose another with --sidecar-port")

    def start(self) -> None:
        """Start gunicorn and wait until its workers have loaded the model.

        One that runs is reused if it was started from the same source with the same options.

        Raises:
            LaunchError: the port is taken, or gunicorn died or was not ready in time.
        """
        if self._runs_as_wanted():
            return
        self.check_port()
        command = [sys.executable, "-m", "scripts.serve", "--opensearch", self.opensearch_url,
                   "--model", str(self.model), "--listen", f"{LOOPBACK}:{self.port}",
                   "--workers", "2"]
        with self.log.open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True)
        # whoever nobody waits for stays as a zombie when it ends
        threading.Thread(target=process.wait, name="sidecar-end", daemon=True).start()
        self._pid_file.write_text(f"{process.pid}\n")
        Stamps(self.folder).mark("sidecar", self._key())
        self._wait_until_ready(process)

    def stop(self) -> None:
        """Let gunicorn finish the requests under way, and wait until it is gone."""
        pid = self._pid()
        if pid is not None:
            send_signal(pid, signal.SIGTERM)
            wait_until_gone(self._pid, time.monotonic() + STOP_TIMEOUT_S)
        self._pid_file.unlink(missing_ok=True)

    @property
    def _pid_file(self) -> Path:
        return self.folder / "sidecar.pid"

    def _pid(self) -> int | None:
        try:
            pid = int(self._pid_file.read_text())
        except (FileNotFoundError, ValueError):
            return None
        # scripts.serve becomes gunicorn under the same id.
        line = command_line(pid)
        return pid if SIDECAR_MARK in line or "scripts.serve" in line else None

    def _runs_as_wanted(self) -> bool:
        return (self._pid() is not None and Stamps(self.folder).is_done("sidecar", self._key())
                and self._is_ready())

    def _key(self) -> str:
        """Return what a running sidecar was made of: its source and its options."""
        return key_of([ROOT / "sidecar", ROOT / "scripts" / "serve.py"], self.url,
                      self.opensearch_url, str(self.model))

    def _is_ready(self) -> bool:
        try:
            return call(self.url, "GET", "/_personalize/health/ready").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        with tqdm(desc="starting the sidecar", bar_format="{desc}: {elapsed}", disable=None) as bar:
            while not self._is_ready():
                died = process.poll() is not None
                if died or time.monotonic() > deadline:
                    what = f"died with {process.returncode}" if died else "was not ready in time"
                    tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-12:])
                    self.stop()
                    raise LaunchError(f"the sidecar {what}; its last lines, from {self.log}:\n"
                                      f"{tail}")
                time.sleep(0.2)
                bar.update()


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """An HTTP answer with its JSON, if it is any."""

    status: int
    headers: dict[str, str]
    json: Any


def call(url: str, method: str, path: str, body: Any = None, **headers: str) -> JsonAnswer:
    """Send a JSON request; header names are given with ``_`` for ``-``."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    payload = None if body is None else json.dumps(body)
    try:
        connection.request(method, path, payload, {"Content-Type": "application/json"} | sent)
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    is_json = "json" in response.headers.get_content_type()
    told = {name.lower(): value for name, value in response.getheaders()}
    return JsonAnswer(response.status, told, json.loads(text) if text and is_json else None)
