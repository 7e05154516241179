"""The scorer's loop over real sockets, in a thread: one peer's trouble is nobody else's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from sidecar.ranking.networks import BlendJob
from sidecar.records import FloatArray
from sidecar.scorer.frames import (
    LENGTH_BYTES,
    MOST_BYTES,
    ScorerAnswer,
    floats,
    frame,
    length,
    message,
    parts_request,
)
from sidecar.scorer.server import Server

SECONDS = 60.0


class Networks:
    """A model that answers with as many numbers as a job's first feature says."""

    def parts(self, jobs: Sequence[BlendJob]) -> list[FloatArray]:
        return [np.zeros(int(job.features[0, 0]), np.float32) for job in jobs]


class Models:
    """One model, whatever its version."""

    def get(self, version: str) -> Networks:
        return Networks()


@pytest.fixture
def connect(tmp_path) -> Iterator[Callable[[], socket.socket]]:
    """Run a server; open connections to it."""
    ended, peers = threading.Event(), []
    path = str(tmp_path / "s")

    def connect() -> socket.socket:
        peers.append(socket.socket(socket.AF_UNIX))
        peers[-1].settimeout(SECONDS)
        peers[-1].connect(path)
        return peers[-1]

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        server = Server(listener, Models(), lambda: not ended.is_set())
        thread = threading.Thread(target=server.run)
        thread.start()
        yield connect
        ended.set()
        thread.join(SECONDS)
        for peer in peers:
            assert peer.recv(1) == b""  # the server has closed its end
            peer.close()


def asked(peer: socket.socket, count: int) -> ScorerAnswer:
    job = BlendJob(np.full((1, 1), count, np.float32), np.zeros(1, np.float32), has_history=True)
    peer.sendall(frame(parts_request("any", job)))
    size = length(peer.recv(LENGTH_BYTES, socket.MSG_WAITALL))
    return message(peer.recv(size, socket.MSG_WAITALL), ScorerAnswer)


def test_answer_that_is_too_large_is_refused_and_the_server_goes_on(connect, caplog):
    greedy, modest = connect(), connect()
    assert "must have at most" in asked(greedy, MOST_BYTES // 4).error
    assert "scorer's answer is too large" in caplog.text
    for peer in (greedy, modest):
        assert len(floats(asked(peer, 3))) == 3
