"""Connections that wait for slow clients without a thread."""

from __future__ import annotations

import selectors
import socket
from types import SimpleNamespace

import pytest

from sidecar.errors import BadRequest
from sidecar.web.http_requests import DRAINED_BYTES, RequestReader
from sidecar.web.parking import Parking


class Room:
    """A parking with one connection, of which the test is the client."""

    def __init__(self, timeout_s=60.0):
        self.sock, self.client = socket.socketpair()
        self.connection = Connection(sock=self.sock, parser=RequestReader(self.sock))
        self.poller = selectors.DefaultSelector()
        self.enqueued, self.closed = [], []
        self.parking = Parking(self.poller, timeout_s, enqueue=self.enqueued.append,
                               close=self.closed.append)

    def look(self):
        """Do what the main thread does at each of its rounds."""
        for key, _ in self.poller.select(0):
            key.data(key.fileobj)
        self.parking.expire()


class Connection(SimpleNamespace):
    __hash__ = object.__hash__  # as gunicorn's connections have it


@pytest.fixture
def rooms():
    made = []

    def make(**options):
        made.append(Room(**options))
        return made[-1]

    yield make
    for room in made:
        room.poller.close()
        room.sock.close()
        room.client.close()


def test_request_that_goes_on_gets_a_thread(rooms):
    room = rooms()
    room.parking.parked.add(room.connection)
    room.look()
    assert room.enqueued == []
    room.client.sendall(b"x")
    room.look()
    assert room.enqueued == [room.connection]
    assert len(room.parking.parked) == 0


def test_request_that_does_not_go_on_gets_a_thread_to_say_so(rooms):
    room = rooms(timeout_s=0.0)
    room.parking.parked.add(room.connection)
    room.look()
    assert room.enqueued == [room.connection]
    assert room.connection.parser.has_next
    with pytest.raises(BadRequest, match="stopped in its middle"):
        room.connection.parser.next()


def test_answered_connection_is_closed_once_its_client_has(rooms):
    room = rooms()
    room.parking.half_close(room.connection)
    assert room.client.recv(1) == b""
    room.client.sendall(b"late")
    room.look()
    assert room.closed == []
    room.client.close()
    room.look()
    assert room.closed == [room.connection]
    assert len(room.parking.closing) == 0


def test_answered_connection_whose_client_sends_on_and_on_is_closed(rooms):
    room = rooms()
    room.parking.half_close(room.connection)
    room.client.setblocking(False)
    sent = 0
    while sent <= DRAINED_BYTES:
        assert room.closed == []
        sent += room.client.send(bytes(16 * 1024))
        room.look()
    assert room.closed == [room.connection]


def test_connection_that_cannot_be_waited_for_says_so(rooms):
    room = rooms()
    room.sock.close()
    with pytest.raises(OSError, match="Bad file"):
        room.parking.half_close(room.connection)
    assert len(room.parking.closing) == 0
