"""Each thing that can be missing when the quickstart starts, and the one line that says so."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from scripts import _quickstart
from scripts._machine import find_free_port
from scripts._services import Sidecar, has_docker_engine
from sidecar.errors import LaunchError

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the quickstart's files out of the checkout."""
    monkeypatch.setattr(_quickstart, "BASE", tmp_path / "base")
    return tmp_path / "base"


def test_docker_client_without_an_engine_is_no_engine(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    assert not has_docker_engine()


def test_taken_sidecar_port_is_told_before_anything_starts(
        base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = _quickstart.main(["--small", "--no-docker", "--sidecar-port", str(port)])
    assert code == 1
    assert capsys.readouterr().err == (
        f"quickstart: port {port} is taken; stop what listens there or choose another with "
        "--sidecar-port\n")
    assert not (base / "small" / "node").exists()


def test_taken_opensearch_port_is_told(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = _quickstart.main(["--small", "--no-docker", "--port", str(port),
                                 "--sidecar-port", str(find_free_port())])
    assert code == 1
    assert f"quickstart: port {port} is taken" in capsys.readouterr().err
    assert _quickstart.main(["--reset"]) == 0
    assert not (base / "small").exists()


def test_full_disk_is_told(base: Path, capsys: pytest.CaptureFixture[str],
                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_quickstart, "SPACE_BYTES", 2**60)
    assert _quickstart.main(["--small", "--no-docker"]) == 1
    assert capsys.readouterr().err.startswith("quickstart: disk full: ")


def test_second_quickstart_at_once_is_refused(
        base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base.mkdir()
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert _quickstart.main(["--stop"]) == 1
    assert "another quickstart is under way" in capsys.readouterr().err
    assert _quickstart.main(["--stop"]) == 0


def test_sidecar_that_cannot_start_shows_its_last_lines(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_WIDNOW", "100")
    sidecar = Sidecar(tmp_path, find_free_port(), "http://127.0.0.1:9", tmp_path / "model")
    with pytest.raises(LaunchError, match=r"(?s)the sidecar died with 2.*SIDECAR_WIDNOW"):
        sidecar.start()


def test_python_that_is_too_old_is_told(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    for name in ("bash", "dirname"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    told = subprocess.run([ROOT / "scripts" / "quickstart"], env={"PATH": str(tmp_path)},
                          text=True, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    assert told.returncode == 1
    assert told.stderr == ("error: Python 3.11 or newer is needed, found Python 3.9.2; "
                           "install it and try again\n")


def test_quickstart_helps_whoever_asks() -> None:
    helped = subprocess.run([ROOT / "scripts" / "quickstart", "--help"], text=True,
                            capture_output=True, check=False, env=os.environ)
    assert helped.returncode == 0
    for option in ("--small", "--stop", "--reset", "--port", "--sidecar-port", "--no-docker"):
        assert option in helped.stdout
