"""Heads as they come off a connection, and what llhttp is shown of them."""

from __future__ import annotations

import pytest

from sidecar.web.http_heads import Heads, Readable

PLAIN = b"POST /a%20b/_search?q=x HTTP/1.1\r\nHost: h\r\n\r\nbody"


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_head_in_pieces_is_given_out_once_it_is_complete(size):
    heads = Heads()
    end = PLAIN.index(b"\r\n\r\n") + 4
    for at in range(0, end, size):
        is_complete = at + size >= end
        assert heads.take(PLAIN[at:at + size]).data == (PLAIN[:at + size] if is_complete else b"")
    assert len(heads) == 0


@pytest.mark.parametrize("target", [b"*", b"a/_search", b"?q=1", "/é".encode(), b"/\xff?\xe9=\x80"])
def test_target_that_llhttp_refuses_is_kept_beside_another(target):
    head = b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n"
    assert Heads().take(head % target) == Readable(head % b"/", target)


@pytest.mark.parametrize("data", [
    PLAIN, b"GET http://h/a HTTP/1.1\r\n\r\n", b"CONNECT h:80 HTTP/1.1\r\n\r\n",
    b"GET /a b HTTP/1.1\r\n\r\n", b"GET a b HTTP/1.1\r\n\r\n", b"GET a\x00 HTTP/1.1\r\n\r\n",
    b"GET a\r\n\r\n"])
def test_other_lines_are_left_as_they_came(data):
    assert Heads().take(data) == Readable(data)


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"get / HT", b"GET / HTTP/1.1\nHost"])
def test_what_becomes_no_head_is_given_out_at_once(data):
    assert Heads().take(data) == Readable(data)


def test_line_feed_alone_between_two_pieces_is_seen():
    heads = Heads()
    assert heads.take(b"GET / HTTP/1.1") == Readable(b"")
    assert heads.take(b"\nHost: h") == Readable(b"GET / HTTP/1.1\nHost: h")


def test_empty_lines_between_requests_are_left_out():
    heads = Heads()
    assert heads.take(b"\r\n") == Readable(b"")
    assert heads.take(b"\r\n" + PLAIN) == Readable(PLAIN)


@pytest.mark.parametrize(("folded", "whole"), [
    (b"X: a\r\n b\r\nY: c", b"X: a b\r\nY: c"), (b"X: a \t\r\n \t b \r\n\tc", b"X: a b c"),
    (b"X: a\r\n \r\nY: c", b"X: a \r\nY: c"), (b" X: a\r\n b", b" X: a b")])
def test_header_in_several_lines_is_put_in_one(folded, whole):
    line = b"GET / HTTP/1.1\r\n"
    rest = b"\r\n\r\nbody\r\n of it"
    assert Heads().take(line + folded + rest).data == line + whole + rest
