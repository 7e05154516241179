"""The process that owns the device: takes what has arrived, runs it as one batch, answers, repeats.

Nobody is waited for: while a batch runs, the next gathers in the sockets. A lone request is thus a
batch of one at once, and a busy device gets larger batches by itself. (Waiting a millisecond or two
for company would cost every search that, and gain only where the device is not yet busy.)

One thread does all of this; another reads the files of a model that somebody asks for.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sidecar.errors import ModelError
from sidecar.ranking.networks import Networks
from sidecar.scorer.frames import (
    FrameError,
    ScorerAnswer,
    ScorerRequest,
    blend_job,
    bodies,
    frame,
    message,
    packed,
    step_job,
)
from sidecar.stores.models import load_networks, model_version

log = logging.getLogger(__name__)

RECEIVE_BYTES = 1 << 20
ANSWER_S = 1.0  # longest that a worker may take to read its answer
LOOK_S = 1.0  # between looks at whether the owner lives, and at a directory without the model
PAUSE_S = 1.0  # in which nobody new is accepted, after somebody could not be
KEPT_MODELS = 2  # the one in use, and the one that is being switched to


class Models:
    """Networks by version, from a directory that train writes; those asked for last are kept."""

    def __init__(self, model_dir: Path, device: str) -> None:
        self._model_dir = model_dir
        self._device = device
        self._known: dict[str, Networks] = {}
        self._lock = threading.Lock()
        self._reader: threading.Thread | None = None
        self._look_at = 0.0

    def get(self, version: str) -> Networks | None:
        """Return a version's networks; None while they are read, or if they are not there."""
        found = self._known.get(version)
        if found is None:
            self._read_aside(version)
        return found

    def read(self, version: str | None = None) -> None:
        """Read the directory's model if it is this version, or whichever it is.

        Raises:
            ModelError: it cannot be read.
        """
        if version is not None and model_version(self._model_dir) != version:
            return
        found, encoder, blend = load_networks(self._model_dir)
        networks = Networks(encoder, blend, self._device)
        with self._lock:
            self._known[found] = networks
            for oldest in list(self._known)[:-KEPT_MODELS]:
                del self._known[oldest]
        log.info("scorer has a model", extra={"model": found, "device": self._device})

    def _read_aside(self, version: str) -> None:
        """Begin to read the model in a thread; the device goes on meanwhile."""
        if (self._reader is not None and self._reader.is_alive()) or (
                time.monotonic() < self._look_at):
            return
        self._look_at = time.monotonic() + LOOK_S

        def read() -> None:
            try:
                self.read(version)
            except ModelError as error:
                log.error("scorer cannot read the model", extra={"error": str(error)})

        self._reader = threading.Thread(target=read, name="model-reader", daemon=True)
        self._reader.start()


@dataclass(slots=True)
class _Peer:
    """A worker's connection and what of its next frames is there."""

    sock: socket.socket
    received: bytearray = field(default_factory=bytearray)

    def requests(self) -> list[ScorerRequest]:
        """Read what has come; raises OSError, FrameError, EOFError when the worker is gone."""
        piece = self.sock.recv(RECEIVE_BYTES)
        if not piece:
            raise EOFError
        self.received += piece
        return [message(body, ScorerRequest) for body in bodies(self.received)]


@dataclass(frozen=True, slots=True)
class _Job:
    peer: _Peer
    request: ScorerRequest


class Server:
    """Answers workers on a listening socket until ``is_wanted`` says no."""

    def __init__(self, listener: socket.socket, models: Models,
                 is_wanted: Callable[[], bool]) -> None:
        self._listener = listener
        self._models = models
        self._is_wanted = is_wanted
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._accept_at = 0.0  # when the listener is looked at again; 0: it is

    def run(self) -> None:
        """Serve; closes the connections and returns when nobody wants it any more."""
        while self._is_wanted():
            if 0.0 < self._accept_at <= time.monotonic():
                self._accept_at = 0.0
                self._selector.register(self._listener, selectors.EVENT_READ)
            jobs: list[_Job] = []
            for key, _ in self._selector.select(LOOK_S):
                if key.data is None:
                    self._accept()
                else:
                    jobs += self._arrived(key.data)
            self._work(jobs)
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._drop(key.data)
        self._selector.close()

    def _accept(self) -> None:
        """Accept a worker's connection, or leave all that wait alone for a moment: without a file
        descriptor for the first of them the listener stays readable, and none is freed by trying.
        """
        try:
            sock, _ = self._listener.accept()
        except OSError as error:
            log.warning("scorer cannot accept", extra={"error": repr(error)})
            self._selector.unregister(self._listener)
            self._accept_at = time.monotonic() + PAUSE_S
            return
        sock.settimeout(ANSWER_S)
        try:
            self._selector.register(sock, selectors.EVENT_READ, _Peer(sock))
        except OSError as error:  # the system watches no more
            log.warning("scorer dropped a connection", extra={"error": repr(error)})
            sock.close()

    def _arrived(self, peer: _Peer) -> list[_Job]:
        try:
            return [_Job(peer, request) for request in peer.requests()]
        except (OSError, EOFError):
            self._drop(peer)
        except FrameError as error:
            log.warning("scorer dropped a connection", extra={"error": str(error)})
            self._drop(peer)
        return []

    def _work(self, jobs: Sequence[_Job]) -> None:
        """Run jobs, those that searches wait for first, and answer each."""
        for what, run in (("parts", _run_parts), ("steps", _run_steps)):
            by_version: dict[str, list[_Job]] = {}
            for job in jobs:
                if job.request.what == what:
                    by_version.setdefault(job.request.version, []).append(job)
            for version, alike in by_version.items():
                for job, answer in zip(alike, self._answers(version, alike, run), strict=True):
                    self._send(job.peer, answer)

    def _answers(self, version: str, jobs: Sequence[_Job],
                 run: Callable[[Networks, Sequence[ScorerRequest]], list[Any]],
                 ) -> list[ScorerAnswer]:
        networks = self._models.get(version)
        if networks is None:
            return [ScorerAnswer(error=f"model {version} is not here")] * len(jobs)
        try:
            return [ScorerAnswer(packed(array))
                    for array in run(networks, [job.request for job in jobs])]
        except Exception as error:  # arrays of a wrong size, a device out of memory: say so, go on
            log.exception("scorer could not run a batch")
            return [ScorerAnswer(error=repr(error))] * len(jobs)

    def _send(self, peer: _Peer, answer: ScorerAnswer) -> None:
        try:
            data = frame(answer)
        except FrameError as error:  # one that asks for so much is told so
            log.warning("scorer's answer is too large", extra={"error": str(error)})
            data = frame(ScorerAnswer(error=str(error)))
        try:
            peer.sock.sendall(data)
        except OSError:  # the worker waited no longer
            self._drop(peer)

    def _drop(self, peer: _Peer) -> None:
        if peer.sock.fileno() >= 0:
            self._selector.unregister(peer.sock)
            peer.sock.close()


def _run_parts(networks: Networks, requests: Sequence[ScorerRequest]) -> list[Any]:
    return networks.parts([blend_job(request) for request in requests])


def _run_steps(networks: Networks, requests: Sequence[ScorerRequest]) -> list[Any]:
    return networks.steps([step_job(request) for request in requests])
