"""A worker's way to the scorer, and the scorer's way into life.

A worker that finds no scorer starts one. The started process inherits a lock on a file and holds it
as long as it lives, so there is only one scorer. When it ends, however it ends, the next worker
that asks starts another. No worker waits for a start, or long for an answer: it computes by itself.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.ranking.networks import BlendJob, StepJob
from sidecar.records import FloatArray
from sidecar.scorer.frames import (
    LENGTH_BYTES,
    FrameError,
    ScorerAnswer,
    ScorerRequest,
    floats,
    frame,
    length,
    message,
    parts_request,
    steps_request,
)
from sidecar.serving.telemetry import Telemetry

log = logging.getLogger(__name__)

CONNECT_S = 0.01  # the socket is of this machine: it answers at once or is not there
STEPS_S = 2.0  # longest wait for steps, which no search's deadline hangs on
PAUSE_S = 0.5  # after a failure, in which nobody tries again
LONGEST_PAUSE_S = 60.0  # between starts of what never answers
SOCKET, LOCK = "scorer.sock", "scorer.lock"


@dataclass(frozen=True, slots=True)
class Launch:
    """What a scorer is started with: see ``sidecar.scorer.__main__``."""

    model_dir: str
    device: str
    owner: int
    lifeline: int
    log_level: str


class Scorer:
    """Networks in the scorer's process (``ranking.networks.RemoteNetworks``); thread-safe."""

    def __init__(self, folder: Path, launch: Launch, telemetry: Telemetry,
                 parts_timeout_s: float) -> None:
        """Reach, or start, the scorer whose socket and lock lie in ``folder``.

        ``parts_timeout_s``: longest wait for a search's parts.
        """
        self._socket = folder / SOCKET
        self._lock_file = folder / LOCK
        self._launch = launch
        self._telemetry = telemetry
        self._parts_timeout_s = parts_timeout_s
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._retry_at = 0.0
        self._has_answered = True  # since it was started here; nothing was yet
        self._start_pause_s = 0.0
        self._start_at = 0.0

    def parts(self, version: str, job: BlendJob) -> FloatArray | None:
        """Return each signal's centred part (K, S); None: compute it here."""
        return self._ask(lambda: parts_request(version, job), self._parts_timeout_s)

    def steps(self, version: str, job: StepJob) -> FloatArray | None:
        """Return the states (L, B, W) after the events; None: compute them here."""
        return self._ask(lambda: steps_request(version, job), STEPS_S)

    def start(self) -> None:
        """Start the scorer unless there is one; returns at once, raises nothing."""
        try:
            self._start()
        except OSError as error:
            log.warning("scorer cannot be started", extra={"error": repr(error)})

    def close(self) -> None:
        """Close the idle connections; the scorer stays, for other workers, and for this one's next
        request."""
        with self._lock:
            idle, self._idle = self._idle, []
        for sock in idle:
            sock.close()

    def _ask(self, request: Callable[[], ScorerRequest], timeout_s: float) -> FloatArray | None:
        if time.monotonic() < self._retry_at:
            return None
        outcome, told, found = "answered", "", None
        try:
            answer = self._exchange(request(), timeout_s)
            found, told = floats(answer), answer.error
            outcome = "refused" if found is None else outcome
        except TimeoutError as error:
            outcome, told = "late", str(error)
        except (OSError, EOFError) as error:
            outcome, told = "unreachable", repr(error)
            self.close()  # whatever is idle leads to the scorer that is gone
            self.start()
        except FrameError as error:
            outcome, told = "refused", str(error)
        self._telemetry.scorer_asked(outcome)
        if found is None:
            self._retry_at = time.monotonic() + PAUSE_S
            log.info("scorer did not answer", extra={"outcome": outcome, "error": told})
        return found

    def _exchange(self, request: ScorerRequest, timeout_s: float) -> ScorerAnswer:
        """Send and receive on a connection of its own, which is kept only if all went well."""
        deadline = time.monotonic() + timeout_s
        sock = self._connection()
        try:
            sock.settimeout(timeout_s)
            sock.sendall(frame(request))
            size = length(_received(sock, LENGTH_BYTES, deadline))
            answer = message(_received(sock, size, deadline), ScorerAnswer)
        except BaseException:
            sock.close()
            raise
        self._has_answered = True
        with self._lock:
            self._idle.append(sock)
        return answer

    def _connection(self) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(CONNECT_S)
            sock.connect(str(self._socket))
        except BaseException:
            sock.close()
            raise
        return sock

    def _start(self) -> None:
        if time.monotonic() < self._start_at:
            return
        lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._socket.unlink(missing_ok=True)
            self._has_answered = False
            launch = self._launch
            started = subprocess.Popen(
                [sys.executable, "-m", "sidecar.scorer", "--model", launch.model_dir,
                 "--device", launch.device, "--socket", str(self._socket),
                 "--owner", str(launch.owner), "--lifeline", str(launch.lifeline),
                 "--log-level", launch.log_level],
                stdin=subprocess.DEVNULL, pass_fds=(lock, launch.lifeline),
                start_new_session=True)
            threading.Thread(target=self._see_end, args=(started,), name="scorer-end",
                             daemon=True).start()
        except BlockingIOError:  # somebody's is there, or on its way
            return
        finally:
            os.close(lock)  # the scorer has it open, and so locked
        log.info("scorer started", extra={"device": launch.device})

    def _see_end(self, started: subprocess.Popen[bytes]) -> None:
        """Wait for a scorer's end, or it would stay as a zombie; put the next start off where it
        never answered."""
        status = started.wait()
        if self._has_answered:
            self._start_pause_s = 0.0
            return
        self._start_pause_s = min(max(2.0 * self._start_pause_s, PAUSE_S), LONGEST_PAUSE_S)
        self._start_at = time.monotonic() + self._start_pause_s
        log.warning("scorer ended without an answer",
                    extra={"status": status, "pause_s": self._start_pause_s})


def _received(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Read ``size`` bytes; raises EOFError, TimeoutError, OSError."""
    found = bytearray()
    while len(found) < size:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("scorer's answer")
        sock.settimeout(left_s)
        piece = sock.recv(size - len(found))
        if not piece:
            raise EOFError("scorer closed the connection")
        found += piece
    return bytes(found)
