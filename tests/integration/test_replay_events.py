"""The replay program against a real HTTP server over in-memory stores."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.serving import make_server

from scripts import replay_events
from sidecar.errors import UpstreamUnavailable
from sidecar.records import UserState
from sidecar.serving.events import EventIntake
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings
from sidecar.stores.in_memory import MemoryEventLog, MemoryStateStore
from sidecar.stores.protocols import Logs
from sidecar.web import errors, events


class Sidecar:
    """A server with the event paths; ``url`` is where it listens."""

    def __init__(self) -> None:
        self.states = MemoryStateStore()
        self.logs = Logs(MemoryEventLog(), MemoryEventLog())
        app = Flask(__name__)
        errors.register(app, Telemetry())
        intake = EventIntake(Settings(), self.states, self.logs, lambda: None, Telemetry())
        app.register_blueprint(events.create_blueprint(Settings(), intake))
        self.server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever)
        self._thread.start()

    def items(self, user_id: str) -> tuple[str | None, ...]:
        state = self.states.get_many([user_id])[0]
        return () if state is None else state.history.item_ids

    def stop(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture
def sidecar() -> Iterator[Sidecar]:
    sidecar = Sidecar()
    yield sidecar
    sidecar.stop()


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def row(number: int, user_id: str = "u", **fields: Any) -> dict[str, Any]:
    return {"user_id": user_id, "item_id": f"i{number}", "event": "purchase",
            "ts": f"2025-01-02T03:04:{number:02d}", "query": None} | fields


def run(sidecar: Sidecar, path: Path, *options: str,
        capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert replay_events.main(["--sidecar", sidecar.url, "--events", str(path), "--json",
                               "--quiet", *options]) == 0
    figures: dict[str, Any] = json.loads(capsys.readouterr().out)
    return figures


def test_every_event_arrives_once_however_often_it_is_replayed(
        sidecar: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "events.jsonl.gz",
                 [row(number, f"u{number % 3}", country="UK") for number in range(50)])
    first = run(sidecar, path, "--batch", "7", capsys=capsys)
    assert (first["taken"], first["refused"], first["duplicates"]) == (50, 0, 0)
    assert first["events_per_second"] > 0
    again = run(sidecar, path, capsys=capsys)
    assert (again["taken"], again["duplicates"]) == (50, 50)
    assert sidecar.items("u0") == tuple(f"i{number}" for number in range(0, 50, 3))
    assert len(sidecar.logs.events.events) == 50


def test_events_of_unknown_time_are_replayed_once_too(
        sidecar: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "events.jsonl", [row(1, ts=None), row(1, ts=None), row(2, ts=None)])
    for _ in range(2):
        run(sidecar, path, capsys=capsys)
    assert sidecar.items("u") == ("i1", "i1", "i2")


def test_user_and_period_choose(sidecar: Sidecar, tmp_path: Path,
                                capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "events.jsonl",
                 [row(number, user) for number in range(5) for user in ("u", "v", "w")])
    figures = run(sidecar, path, "--user", "u", "--user", "v", "--since", "2025-01-02T03:04:01",
                  "--until", "2025-01-02T03:04:03", capsys=capsys)
    assert figures["taken"] == 4
    assert (sidecar.items("u"), sidecar.items("w")) == (("i1", "i2"), ())


def test_speed_keeps_the_pace_of_the_events(sidecar: Sidecar, tmp_path: Path,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "events.jsonl", [row(0), row(0, item_id="j"), row(10)])
    started = time.monotonic()
    run(sidecar, path, "--speed", "20", capsys=capsys)
    assert time.monotonic() - started >= 0.5
    assert sidecar.items("u") == ("i0", "j", "i10")


def test_bad_rows_are_told_and_leave_the_others_alone(
        sidecar: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "events.jsonl",
                 [row(1), row(2, user_id=None), row(3, event="e" * 101)])
    assert replay_events.main(["--sidecar", sidecar.url, "--events", str(path), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(
        "taken 1 (0 were known already), refused 1, unreadable rows 1;")
    assert "event has 101 characters" in captured.err
    assert "events.jsonl:2: user_id is missing" in captured.err


def test_sidecar_that_is_back_soon_is_waited_for(
        sidecar: Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter(range(2))
    real = sidecar.states.get_many

    def flaky(user_ids: Sequence[str]) -> list[UserState | None]:
        if next(failures, None) is not None:
            raise UpstreamUnavailable("node restarts")
        return real(user_ids)

    monkeypatch.setattr(sidecar.states, "get_many", flaky)
    path = write(tmp_path / "events.jsonl", [row(1)])
    assert run(sidecar, path, capsys=capsys)["taken"] == 1


def test_no_sidecar_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts._event_client.PATIENCE_S", 0.0)
    path = write(tmp_path / "events.jsonl", [row(1)])
    assert replay_events.main(["--sidecar", "http://127.0.0.1:9", "--events", str(path),
                               "--quiet"]) == 1
    assert capsys.readouterr().err.startswith(
        "replay_events: the sidecar does not answer at http://127.0.0.1:9;")


def test_missing_file_is_one_clear_line(sidecar: Sidecar, tmp_path: Path,
                                        capsys: pytest.CaptureFixture[str]) -> None:
    assert replay_events.main(["--sidecar", sidecar.url, "--events",
                               str(tmp_path / "none.jsonl"), "--quiet"]) == 1
    assert "none.jsonl" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--speed", "0"], ["--batch", "0"], ["--batch", "10001"],
                                     ["--since", "never"], ["--sidecar", "127.0.0.1:9"],
                                     ["--sidecar", "http://127.0.0.1:99999"]])
def test_misuse_exits_with_2(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        replay_events.main(["--sidecar", "http://127.0.0.1:9", "--events", "x", *options])
    assert raised.value.code == 2
    assert options[0] in capsys.readouterr().err
