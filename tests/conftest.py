"""What every test may ask for: a running OpenSearch, indices of its own, free ports.

A test that needs OpenSearch takes the fixture ``opensearch``. With ``TEST_OPENSEARCH_URL`` set it
uses that node (``scripts/test`` starts one); else a node is started once per test run and stopped
at its end.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from scripts._cluster import TRANSPORT_OFFSET
from scripts._machine import find_free_port

ROOT = Path(__file__).resolve().parent.parent

# How long an example takes says how busy the machine is, not whether the code is right.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")

Launcher = Callable[..., "subprocess.CompletedProcess[str]"]


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C: fixtures stop what they started."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """Run ``python -m scripts.opensearch`` with these arguments and return what came of it."""
    def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scripts.opensearch", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=os.environ | environ, text=True, check=False,
                              capture_output=True, stdin=subprocess.DEVNULL, timeout=600)
    return run


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Find a port that is free, with the one that a node on it would use for transport."""
    return _node_port


@pytest.fixture
def node_home(launcher: Launcher) -> Iterator[Path]:
    """Give a home that any user can enter (pytest's own folders are private to their owner)."""
    yield from _home(launcher)


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a disk of its own with 56 KB left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder],
                             check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a disk is not allowed here")
    (folder / "filler").write_bytes(bytes(200 * 1024))
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="session")
def opensearch(launcher: Launcher) -> Iterator[str]:
    """Give the base URL of a running OpenSearch."""
    given = os.environ.get("TEST_OPENSEARCH_URL")
    if given:
        yield given.rstrip("/")
        return
    for home in _home(launcher):
        started = launcher("up", "--home", home, "--port", str(_node_port()), "--heap", "512m")
        assert started.returncode == 0, started.stderr
        yield started.stdout.strip()


@pytest.fixture
def index_prefix(opensearch: str) -> Iterator[str]:
    """Give a prefix for index names; indices under it are deleted when the test is over."""
    prefix = f"test-{uuid.uuid4().hex[:10]}-"
    yield prefix
    connection = http.client.HTTPConnection(opensearch.removeprefix("http://"), timeout=60)
    connection.request("DELETE", f"/{prefix}*?expand_wildcards=all&ignore_unavailable=true")
    connection.getresponse().read()
    connection.close()


def _node_port() -> int:
    return find_free_port(companions=(1, TRANSPORT_OFFSET, TRANSPORT_OFFSET + 1))


def _home(launcher: Launcher) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="opensearch-test-"))
    try:
        yield home
    finally:
        launcher("down", "--home", home)
        shutil.rmtree(home)
