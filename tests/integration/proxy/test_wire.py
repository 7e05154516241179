"""Requests byte by byte, as client libraries do not write them: OpenSearch's answer to each."""

from __future__ import annotations

import http.client
import re
import socket
from typing import Any

import pytest

from tests.http_answers import Answer

OWN = {"x-personalize-status", "x-personalize-state", "server-timing", "connection",
       "content-length"}  # a took of more digits is longer


def exchanged(url: str, sent: bytes) -> Answer:
    """Send bytes on a connection of their own and read one answer."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(sent)
        response = http.client.HTTPResponse(connection, method=sent.split()[0].decode())
        response.begin()
        return Answer(response.status, response.headers, response.read())


def compared(proxy: Any, request: str, *headers: bytes, body: bytes = b"") -> Answer:
    """Send a request, ``{i}`` in its line standing for the index, and return OpenSearch's answer,
    which the sidecar's has to be equal to.
    """
    line = request.replace("{i}", f"{proxy.prefix}one").encode()
    lines = [line + b" HTTP/1.1", b"Host: h", b"X-Personalize-User: u1", *headers, b"", body]
    direct, through = (exchanged(url, b"\r\n".join(lines)) for url in (proxy.node, proxy.url))
    assert told(through) == told(direct)
    return direct


def told(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    headers = sorted((name.lower(), text) for name, text in answer.headers.items()
                     if name.lower() not in OWN)
    return answer.status, headers, re.sub(rb'took"?: ?\d+', b"", answer.body)


@pytest.mark.parametrize(("repeated", "status"), [
    ([b"X-Opaque-Id: a", b"X-Opaque-Id: b"], 400), ([b"X-Opaque-Id: a", b"X-Opaque-Id: a"], 200),
    ([b"X-Request-Id: a", b"x-request-id: b"], 400),
    ([b"Accept: application/yaml", b"Accept: application/json"], 200),
    ([b"Accept: application/json", b"Accept: application/yaml"], 200)])
@pytest.mark.parametrize("path", ["_search?size=0", "_count"])
def test_header_that_comes_twice_reaches_opensearch_twice(proxy, path, repeated, status):
    assert compared(proxy, f"GET /{{i}}/{path}", *repeated).status == status


def test_second_content_type_is_opensearchs_to_refuse(proxy):
    kind = b"Content-Type: application/json"
    answer = compared(proxy, "POST /{i}/_search", kind, kind, b"Content-Length: 2", body=b"{}")
    assert answer.status == 400


@pytest.mark.parametrize(("expected", "status"), [
    (b"100-continue", 200), (b"100-Continue", 200), (b"foo", 417), (b"", 417)])
@pytest.mark.parametrize("path", ["_search?size=0", "_count"])
def test_expectation_that_nobody_can_meet_is_told_so(proxy, path, expected, status):
    answer = compared(proxy, f"POST /{{i}}/{path}", b"Content-Type: application/json",
                      b"Expect: " + expected, b"Content-Length: 2", body=b"{}")
    assert answer.status == status


def test_request_after_one_whose_expectation_was_not_met_is_answered(proxy):
    first = b"GET / HTTP/1.1\r\nHost: h\r\nExpect: foo\r\n\r\n"
    second = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    for url in (proxy.node, proxy.url):
        assert statuses(url, first + second) == [417, 200]


def test_requests_before_a_broken_one_are_answered(proxy):
    good = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"
    for url in (proxy.node, proxy.url):
        assert statuses(url, good + good + b"garbage\r\n\r\n") == [200, 200, 400]


def statuses(url: str, sent: bytes) -> list[int]:
    """Send requests in one piece and return the statuses of all answers."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 20) as connection:
        connection.sendall(sent)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", received)]


@pytest.mark.parametrize("target", [
    "/{i}/_search?size=0&q=brand:b1é", "/{i}-é/_search", "/{i}/_doc/é", "/{i}/_count?é=1",
    '/{i}/_search?source={"size":0,"query":{"match":{"brand":"é"}}}&'
    "source_content_type=application/json"])
def test_target_that_is_not_escaped_is_read_as_opensearch_reads_it(proxy, target):
    compared(proxy, f"GET {target}")


def test_search_that_is_not_escaped_is_personalised(proxy):
    line = f"GET /{proxy.prefix}one/_search?q=title:milk+é HTTP/1.1\r\n".encode()
    answer = exchanged(proxy.url, line + b"Host: h\r\nX-Personalize-User: u1\r\n\r\n")
    assert (answer.status, answer.outcome) == (200, "applied")


@pytest.mark.parametrize(("request_line", "status"), [
    ("GET *", 200), ("HEAD *", 200), ("OPTIONS *", 200), ("GET {i}/_search?size=0", 200),
    ("GET {i}/_count?q=a://b", 200), ("HEAD {i}", 200), ("GET ?pretty", 200), ("GET é", 404),
    ("POST {i}/_search?size=0", 200), ("GET a:b", 404)])
def test_target_without_a_slash_is_a_path_all_the_same(proxy, request_line, status):
    assert compared(proxy, request_line).status == status


@pytest.mark.parametrize("header", [b"X-Opaque-Id: a\r\n b", b"X-Opaque-Id: a  \r\n\t b \r\n c ",
                                    b"Accept: application/\r\n yaml", b"X-A: a\r\n \t"])
def test_header_in_several_lines_is_one(proxy, header):
    compared(proxy, "GET /{i}/_search?size=0", header)
