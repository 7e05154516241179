"""Gathers requests' heads, and rewrites what OpenSearch accepts in them but llhttp would refuse.

OpenSearch takes a target with bytes beyond ASCII (one character each), or without its first slash.
llhttp refuses such targets: it is shown another target, and the real one is kept beside it. llhttp
also refuses headers that go on in a line which begins with a blank (obs-fold, RFC 9112, 5.2): they
are put in one line. A request that comes in one piece with the end of the one before is left to
llhttp alone. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_END = b"\r\n\r\n"
_HOPELESS = re.compile(rb"[^\r]\n")  # what no head holds, so that waiting for its end is in vain
_METHOD = re.compile(rb"[A-Z]")
# A line that llhttp reads, and one with a target that OpenSearch takes too.
_READ = re.compile(rb"[A-Z-]+ +(?:/|https?://)[!-~]*(?: |\r)")
_TAKEN = re.compile(rb"([A-Z-]+ +)([!-~\x80-\xff]+)( +HTTP/[^\r]+\r)")
_CONNECT = b"CONNECT "


class Readable(NamedTuple):
    """Bytes for llhttp, and the target of the request that begins there if it is another."""

    data: bytes
    target: bytes | None = None


class Heads:
    """Gathers one connection's heads, each until it is complete."""

    def __init__(self) -> None:
        self._gathered = bytearray()

    def __len__(self) -> int:
        """Return how many bytes of a head wait for the rest."""
        return len(self._gathered)

    def take(self, data: bytes) -> Readable:
        """Take what came where a request begins; nothing is to be read until its head is complete.

        What cannot become a head is given out at once, for llhttp to refuse.
        """
        seen = max(0, len(self._gathered) - len(_END) + 1)
        before = bytes(self._gathered[-1:])
        self._gathered += data if self._gathered else data.lstrip(b"\r\n")
        end = self._gathered.find(_END, seen)
        if end < 0 and (not self._gathered or (
                _METHOD.match(self._gathered) and not _HOPELESS.search(before + data))):
            return Readable(b"")
        whole = bytes(self._gathered)
        self._gathered.clear()
        return _readable(whole if end < 0 else _unfolded(whole[:end]) + whole[end:])


def _unfolded(head: bytes) -> bytes:
    """Return a head with each header in one line; one blank stands for the break, as in Netty."""
    if b"\r\n " not in head and b"\r\n\t" not in head:
        return head
    line, *headers = head.split(b"\r\n")
    whole = headers[:1]
    for header in headers[1:]:
        if header.startswith((b" ", b"\t")):
            whole[-1] = whole[-1].rstrip(b" \t") + b" " + header.strip(b" \t")
        else:
            whole.append(header)
    return b"\r\n".join([line, *whole])


def _readable(data: bytes) -> Readable:
    if _READ.match(data):
        return Readable(data)
    taken = _TAKEN.match(data)
    if taken is None or data.startswith(_CONNECT):
        return Readable(data)
    return Readable(data[:taken.start(2)] + b"/" + data[taken.end(2):], taken[2])
