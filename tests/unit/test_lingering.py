"""Threads that stay with a connection: for how long, and who of them is called away."""

from __future__ import annotations

import socket
import threading

import pytest

from sidecar.web import lingering as module
from sidecar.web.lingering import Lingering


class Watched(socket.socket):
    """A socket that tells when somebody begins to wait for it."""

    def __init__(self, sock):
        super().__init__(fileno=sock.detach())
        self.is_asked = threading.Event()

    def fileno(self):
        self.is_asked.set()
        return super().fileno()


@pytest.fixture
def ends():
    """A silent connection: the worker's end, and the client's."""
    ours, client = socket.socketpair()
    with Watched(ours) as watched, client:
        yield watched, client


def staying(lingering, sock, found):
    """Begin to stay in a thread that has taken the connection."""
    lingering.begin_waiting()
    lingering.take()
    thread = threading.Thread(target=lambda: found.append(lingering.stays(sock, may_wait=True)))
    thread.start()
    assert sock.is_asked.wait(20)
    return thread


def test_thread_stays_until_something_comes(ends, monkeypatch):
    monkeypatch.setattr(module, "LINGER_MS", 20_000)
    ours, client = ends
    found: list[bool] = []
    thread = staying(Lingering(1), ours, found)
    client.sendall(b"x")
    thread.join(20)
    assert found == [True]


def test_thread_leaves_a_silent_connection_after_a_moment(ends):
    assert not Lingering(1).stays(ends[0], may_wait=True)


@pytest.mark.parametrize("is_there", [True, False])
def test_what_is_there_is_seen_without_waiting(ends, monkeypatch, is_there):
    monkeypatch.setattr(module, "LINGER_MS", 20_000)
    ours, client = ends
    if is_there:
        client.sendall(b"x")
    assert Lingering(1).stays(ours, may_wait=False) is is_there


def test_thread_is_called_away_once_another_connection_needs_it(ends, monkeypatch):
    monkeypatch.setattr(module, "LINGER_MS", 20_000)
    lingering, found = Lingering(1), []
    thread = staying(lingering, ends[0], found)
    assert lingering.begin_waiting()
    lingering.call()
    thread.join(20)
    assert found == [False]


def test_nobody_is_called_away_while_threads_are_free(ends, monkeypatch):
    monkeypatch.setattr(module, "LINGER_MS", 20_000)
    ours, client = ends
    lingering, found = Lingering(2), []
    thread = staying(lingering, ours, found)
    assert not lingering.begin_waiting()
    client.sendall(b"x")
    thread.join(20)
    lingering.leave()
    assert not lingering.begin_waiting()  # nobody lingers who could be called
