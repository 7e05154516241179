"""Real clients, pointed at the sidecar instead of OpenSearch, notice nothing but another order."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import AsyncOpenSearch, NotFoundError, OpenSearch, RequestError, helpers

MILK = {"match": {"title": "milk"}}
USER = {"X-Personalize-User": "u1"}


@pytest.fixture(params=[False, True], ids=["plain", "compressed"])
def client(proxy, request) -> Iterator[OpenSearch]:
    opened = OpenSearch(proxy.url, http_compress=request.param, headers=USER, timeout=60)
    yield opened
    opened.close()


def test_python_client_searches_counts_scrolls_and_bulk_loads(proxy, client, expected_order):
    index = proxy.prefix + "one"
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids
    found = client.search(index=index, body={"query": MILK}, size=20)
    assert [hit["_id"] for hit in found["hits"]["hits"]] == expected_order(engine, 100)[:20]
    off = client.search(index=index, body={"query": MILK}, headers={"X-Personalize": "off"})
    assert [hit["_id"] for hit in off["hits"]["hits"]] == engine[:10]
    assert client.count(index=index, body={"query": MILK})["count"] == 160
    assert len(list(helpers.scan(client, index=index, query={"query": MILK}, size=50))) == 160
    many = client.msearch(body=[{"index": index}, {"query": MILK}, {"index": "none"}, {}])
    assert many["responses"][0]["hits"]["hits"] == found["hits"]["hits"][:10]
    assert many["responses"][1]["status"] == 404
    loaded = f"{proxy.prefix}client"
    documents = ({"_index": loaded, "_id": number, "title": "milk"} for number in range(500))
    assert helpers.bulk(client, documents, refresh=True)[0] == 500
    assert client.exists(index=loaded, id="7")
    assert not client.exists(index=loaded, id="700")
    assert client.indices.delete(index=loaded)["acknowledged"]


def test_python_clients_errors_are_opensearchs(proxy, client):
    with pytest.raises(NotFoundError, match="index_not_found_exception"):
        client.search(index="no-such", body={})
    with pytest.raises(RequestError, match="parsing_exception"):
        client.search(index=proxy.prefix + "one", body={"query": {"no_such": {}}})


def test_asynchronous_python_client_searches(proxy, expected_order):
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids

    async def search_twice() -> list[Any]:
        async with AsyncOpenSearch(proxy.url, headers=USER, timeout=60) as client:
            return await asyncio.gather(*(
                client.search(index=proxy.prefix + "one", body={"query": MILK}, from_=first)
                for first in (0, 10)))

    pages = asyncio.run(search_twice())
    shown = [hit["_id"] for page in pages for hit in page["hits"]["hits"]]
    assert shown == expected_order(engine, 100)[:20]


@pytest.mark.parametrize("options", [[], ["--compressed"], ["--http1.0"],
                                     ["-H", "Transfer-Encoding: chunked"],
                                     ["-H", "Expect: 100-continue"], ["-X", "GET"]])
def test_curl_searches_in_every_form(proxy, expected_order, options):
    curl = shutil.which("curl")
    assert curl, "curl is needed for this test; install it"
    engine = proxy.engine("one", {"query": MILK, "size": 100}).ids
    answer = subprocess.run(
        [curl, "-sS", "--max-time", "60", *options, "-H", "Content-Type: application/json", "-H",
         "X-Personalize-User: u1", f"{proxy.url}/{proxy.prefix}one/_search", "-d",
         json.dumps({"query": MILK})], capture_output=True, check=True)
    shown = [hit["_id"] for hit in json.loads(answer.stdout)["hits"]["hits"]]
    assert shown == expected_order(engine, 100)[:10]


def test_curl_asks_for_heads_and_options(proxy):
    for method in ("HEAD", "OPTIONS"):
        options = ["-I"] if method == "HEAD" else ["-i", "-X", "OPTIONS"]
        answer = subprocess.run(
            ["curl", "-sS", "--max-time", "60", *options, f"{proxy.url}/{proxy.prefix}one"],
            capture_output=True, check=True)
        assert answer.stdout.startswith(b"HTTP/1.1 200")
