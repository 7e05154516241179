"""The process that owns the device: started by whoever asks, only one, and never relied upon."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import REGISTRY

from sidecar.ranking.networks import BlendJob, Networks
from sidecar.ranking.ranker import Ranker
from sidecar.ranking.signals import CONTEXT, FEATURES
from sidecar.records import FloatArray
from sidecar.scorer import client
from sidecar.scorer.client import LOCK, SOCKET, Launch, Scorer
from sidecar.scorer.frames import LENGTH_BYTES, ScorerAnswer, frame, length, packed
from sidecar.serving.telemetry import Telemetry
from sidecar.stores.models import load_ranker, save_ranker
from tests.processes import scorers_of
from tests.shops import context, fresh_ranker, history_of, make_events, make_rows, state_of, window

EVENTS = [event for event in make_events(make_rows()) if event.user_id == "u1"]
HITS = window([f"i{k}" for k in range(0, 60, 3)])
SECONDS = 60.0
Starts = Callable[..., Scorer]


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    save_ranker(fresh_ranker(), tmp_path / "model", {})
    return tmp_path / "model"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends, the second of them the owner's to hold."""
    end, held = os.pipe()
    yield end, held
    os.close(end)


@pytest.fixture
def owner(pipe: tuple[int, int]) -> Iterator[subprocess.Popen[bytes]]:
    """A process for the scorers to live as long as."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE,
                          pass_fds=(pipe[1],)) as process:
        os.close(pipe[1])
        yield process


@pytest.fixture
def starts(tmp_path: Path, model_dir: Path, owner: subprocess.Popen[bytes],
           pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Starts]:
    monkeypatch.setattr(client, "PAUSE_S", 0.02)
    folder = tmp_path / "shared"
    folder.mkdir()
    made: list[Scorer] = []

    def start(timeout_s: float = 30.0) -> Scorer:
        launch = Launch(str(model_dir), "cpu", owner.pid, pipe[0], "INFO")
        made.append(Scorer(folder, launch, Telemetry(), timeout_s))
        made[-1].start()
        return made[-1]

    yield start
    owner.kill()
    owner.wait()
    awaited(lambda: not scorers_of(owner.pid))
    for scorer in made:
        scorer.close()


def awaited(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def job_of(number: int) -> BlendJob:
    rng = np.random.default_rng(number)
    return BlendJob(rng.normal(size=(50 + number, len(FEATURES))).astype(np.float32),
                    rng.normal(size=len(CONTEXT)).astype(np.float32), bool(number % 2))


def answered(scorer: Scorer, version: str, job: BlendJob) -> FloatArray:
    """Ask until there is an answer."""
    found: list[FloatArray] = []

    def ask() -> bool:
        parts = scorer.parts(version, job)
        found.extend(() if parts is None else (parts,))
        return parts is not None

    awaited(ask)
    return found[0]


def counted(outcome: str) -> float:
    return REGISTRY.get_sample_value("personalize_scorer_requests_total",
                                     {"outcome": outcome}) or 0.0


@contextmanager
def answering(folder: Path, requests: int) -> Iterator[None]:
    """A scorer that answers so many requests, all at once when they are there, and then ends."""
    def serve() -> None:
        with suppress(OSError):
            peers.extend(listener.accept()[0] for _ in range(requests))
            for peer in peers:
                peer.recv(length(peer.recv(LENGTH_BYTES, socket.MSG_WAITALL)), socket.MSG_WAITALL)
            for peer in peers:
                peer.sendall(frame(ScorerAnswer(packed(np.zeros((1, 1), np.float32)))))

    peers: list[socket.socket] = []
    (folder / SOCKET).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()
        serving = threading.Thread(target=serve, daemon=True)
        serving.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            serving.join(SECONDS)
            for peer in peers:
                peer.close()


def test_ranking_with_the_scorer_is_the_worker_s_own(starts: Starts, model_dir: Path) -> None:
    alone, helped = (load_ranker(model_dir, "cpu") for _ in range(2))
    scorer = starts()
    answered(scorer, helped.version, job_of(0))
    helped.use(scorer)
    before = counted("answered")
    history = history_of(EVENTS)
    for count in (1, 5, len(EVENTS)):
        begun = history_of(EVENTS[:count])
        np.testing.assert_allclose(helped.advance(None, begun), alone.advance(None, begun),
                                   atol=1e-5)
    expected, found = (one.rank(HITS, state_of(history, one), context()) for one in (alone, helped))
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    assert found.order.tolist() == expected.order.tolist()
    assert counted("answered") - before >= 5


def test_what_many_threads_ask_at_once_is_each_answered_with_its_own(
        starts: Starts, model_dir: Path) -> None:
    ranker = load_ranker(model_dir, "cpu")
    networks = Networks(ranker.encoder, ranker.blend, "cpu")
    first, second = starts(), starts()
    answered(first, ranker.version, job_of(0))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda k: answered((first, second)[k % 2], ranker.version, job_of(k)),
                              range(64)))
    for number, parts in enumerate(found):
        np.testing.assert_allclose(parts, networks.parts([job_of(number)])[0], atol=1e-4)


def test_there_is_one_scorer_and_another_when_it_was_killed(
        starts: Starts, model_dir: Path, owner: subprocess.Popen[bytes]) -> None:
    version = load_ranker(model_dir, "cpu").version
    scorers = [starts() for _ in range(3)]
    expected = answered(scorers[0], version, job_of(1))
    [pid] = scorers_of(owner.pid)
    os.kill(pid, signal.SIGKILL)
    awaited(lambda: pid not in scorers_of(owner.pid))
    assert scorers[0].parts(version, job_of(1)) is None  # and a new one is on its way
    for scorer in scorers:
        np.testing.assert_array_equal(answered(scorer, version, job_of(1)), expected)
    [successor] = scorers_of(owner.pid)
    assert successor != pid


def test_connections_to_a_scorer_that_has_ended_are_given_up_together(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tried one by one, each would cost a pause in which the worker computes by itself."""
    monkeypatch.setattr(client, "PAUSE_S", 0.0)
    scorer = Scorer(tmp_path, Launch("", "cpu", os.getpid(), 0, "INFO"), Telemetry(), SECONDS)
    with (tmp_path / LOCK).open("w") as lock, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as a scorer holds it: nobody starts another
        with answering(tmp_path, requests=2):
            found = list(pool.map(lambda k: scorer.parts("any", job_of(k)), (1, 2)))
            assert all(parts is not None for parts in found)
        with answering(tmp_path, requests=1):
            assert scorer.parts("any", job_of(1)) is None
            assert scorer.parts("any", job_of(1)) is not None
    scorer.close()


def test_scorer_ends_with_its_owner_though_another_process_bears_the_owners_id(
        model_dir: Path, tmp_path: Path) -> None:
    end, held = os.pipe()
    launch = Launch(str(model_dir), "cpu", os.getpid(), end, "INFO")
    scorer = Scorer(tmp_path, launch, Telemetry(), 30.0)
    scorer.start()
    answered(scorer, load_ranker(model_dir, "cpu").version, job_of(1))
    os.close(held)
    awaited(lambda: not scorers_of(os.getpid()))
    scorer.close()
    os.close(end)


def test_scorer_that_hangs_is_not_waited_for(
        starts: Starts, model_dir: Path, owner: subprocess.Popen[bytes]) -> None:
    version = load_ranker(model_dir, "cpu").version
    answered(starts(), version, job_of(1))
    hasty = starts(timeout_s=0.05)
    [pid] = scorers_of(owner.pid)
    os.kill(pid, signal.SIGSTOP)
    late = counted("late")
    assert hasty.parts(version, job_of(1)) is None
    assert counted("late") == late + 1
    os.kill(pid, signal.SIGCONT)
    answered(hasty, version, job_of(1))


def test_new_model_is_read_aside_and_the_one_before_still_answers(
        starts: Starts, model_dir: Path) -> None:
    scorer, old = starts(), load_ranker(model_dir, "cpu")
    expected = answered(scorer, old.version, job_of(1))
    changed: Ranker = fresh_ranker()
    changed.knowledge.rhythm[:] += 1
    version = save_ranker(changed, model_dir, {})
    assert version != old.version
    assert scorer.parts(version, job_of(1)) is None
    np.testing.assert_array_equal(answered(scorer, version, job_of(1)), expected)
    np.testing.assert_array_equal(answered(scorer, old.version, job_of(1)), expected)


def test_bytes_that_are_no_frame_cost_their_sender_the_connection_and_nobody_else(
        starts: Starts, model_dir: Path, tmp_path: Path) -> None:
    version, scorer = load_ranker(model_dir, "cpu").version, starts()
    answered(scorer, version, job_of(1))
    for junk in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x03abc"):
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(tmp_path / "shared" / SOCKET))
            stranger.sendall(junk)
            assert stranger.recv(1) == b""
    assert scorer.parts(version, job_of(1)) is not None
    wrong = BlendJob(np.zeros((3, 2), np.float32), np.zeros(1, np.float32), has_history=True)
    assert scorer.parts(version, wrong) is None
    answered(scorer, version, job_of(1))


def test_scorer_without_a_file_descriptor_left_serves_those_it_has_and_later_all(
        starts: Starts, model_dir: Path, owner: subprocess.Popen[bytes], tmp_path: Path,
        capfd: pytest.CaptureFixture[str]) -> None:
    version, scorer = load_ranker(model_dir, "cpu").version, starts()
    answered(scorer, version, job_of(1))
    [pid] = scorers_of(owner.pid)
    with none_left(pid), socket.socket(socket.AF_UNIX) as stranger:
        stranger.connect(str(tmp_path / "shared" / SOCKET))
        began = time.monotonic()
        while time.monotonic() < began + 2.5:
            assert scorer.parts(version, job_of(1)) is not None
    told = capfd.readouterr().err.count("scorer cannot accept")
    assert 1 <= told <= 10  # it would be thousands if it tried again and again
    answered(starts(), version, job_of(1))
    assert scorers_of(owner.pid) == [pid]


@contextmanager
def none_left(pid: int) -> Iterator[None]:
    """Let a process open no more files than it has."""
    opened = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    first_free = min(set(range(len(opened) + 1)) - opened)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_without_a_model_to_read_nothing_starts_and_nothing_fails(
        starts: Starts, model_dir: Path, owner: subprocess.Popen[bytes]) -> None:
    (model_dir / "model.json").unlink()
    scorer = starts()
    awaited(lambda: not scorers_of(owner.pid))
    assert scorer.parts("any", job_of(1)) is None


def test_scorer_that_cannot_start_is_started_ever_more_seldom(
        model_dir: Path, tmp_path: Path, pipe: tuple[int, int],
        monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(pipe[1])  # nobody else does
    monkeypatch.setattr(client, "PAUSE_S", 0.01)
    monkeypatch.setattr(client, "LONGEST_PAUSE_S", 0.16)
    starts: list[float] = []
    start = subprocess.Popen

    def failing(command: object, **options: Any) -> subprocess.Popen[bytes]:
        starts.append(time.monotonic())
        return start(["false"], pass_fds=options["pass_fds"])

    monkeypatch.setattr(client.subprocess, "Popen", failing)
    scorer = Scorer(tmp_path, Launch(str(model_dir), "cpu", os.getpid(), pipe[0], "INFO"),
                    Telemetry(), 0.02)

    def asked() -> bool:
        assert scorer.parts("any", job_of(1)) is None
        return len(starts) == 7

    awaited(asked)
    pauses = np.diff(starts)
    assert (pauses > [0.01, 0.02, 0.04, 0.08, 0.16, 0.16]).all()
