"""Changed products are read from a real node, whoever changed them and whatever they changed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from opensearchpy import OpenSearch, helpers

from sidecar.errors import UpstreamUnavailable
from sidecar.settings import Settings
from sidecar.stores.administration import administration_client
from sidecar.stores.changes import PAGE
from sidecar.stores.mappings import mapping
from sidecar.stores.products import ProductChanges
from sidecar.stores.upstream import Upstream


@pytest.fixture
def settings(opensearch: str, index_prefix: str) -> Settings:
    return Settings(opensearch_url=opensearch, products_index=f"{index_prefix}products")


@pytest.fixture
def client(settings: Settings) -> OpenSearch:
    return administration_client(settings)


@pytest.fixture
def changes(settings: Settings) -> Iterator[ProductChanges]:
    upstream = Upstream(settings)
    yield ProductChanges(settings, upstream)
    upstream.close()


def make_index(client: OpenSearch, settings: Settings, *, version: int = 1, shards: int = 1,
               count: int = 3) -> str:
    """Make an index version with products 0 to count - 1, behind the alias alone."""
    body = mapping("products")
    body["settings"] |= {"number_of_shards": shards, "refresh_interval": "-1"}
    name = f"{settings.products_index}-v{version}"
    client.indices.create(index=name, body=body)
    helpers.bulk(client, ({"_index": name, "_id": str(n),
                           "_source": {"item_id": str(n), "title": f"v{version}"}}
                          for n in range(count)))
    client.indices.update_aliases(body={"actions": [
        {"remove": {"index": f"{settings.products_index}-v*", "alias": settings.products_index}}
        if version > 1 else {"add": {"index": name, "alias": settings.products_index}},
        {"add": {"index": name, "alias": settings.products_index}}]})
    return name


def poll(changes: ProductChanges) -> dict[str, Any]:
    return {row["item_id"]: row for rows in changes.poll() for row in rows}


@pytest.mark.parametrize("shards", [1, 3])
def test_first_poll_reads_all_and_the_next_nothing(
        client: OpenSearch, settings: Settings, changes: ProductChanges, shards: int) -> None:
    make_index(client, settings, shards=shards, count=PAGE + 1)
    assert set(poll(changes)) == {str(n) for n in range(PAGE + 1)}
    assert list(changes.poll()) == []


def test_partial_update_of_any_writer_is_read_once(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    make_index(client, settings, shards=2, count=10)
    poll(changes)
    client.update(index=settings.products_index, id="4", body={"doc": {"price": 2.5}})
    client.update(index=settings.products_index, id="4", body={"doc": {"promotion": 1}})
    client.index(index=settings.products_index, id="new", body={"item_id": "new", "title": "x"})
    found = poll(changes)
    assert set(found) == {"4", "new"}
    assert (found["4"]["price"], found["4"]["promotion"]) == (2.5, 1.0)
    assert poll(changes) == {}


def test_rows_are_in_the_loader_s_normal_form(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    name = make_index(client, settings, count=0)
    client.index(index=name, id="a", body={
        "title": "x", "categories": "one", "price": "3", "vectors": {"text": [1]},
        "item_vector": {"model_version": "v", "values": "AAAA"}})
    assert poll(changes) == {"a": {"item_id": "a", "title": "x", "brand": None, "price": 3.0,
                                   "categories": ["one"], "vectors": {"text": [1.0]}}}


def test_product_that_is_no_catalogue_row_is_left_out_and_logged(
        client: OpenSearch, settings: Settings, changes: ProductChanges,
        caplog: pytest.LogCaptureFixture) -> None:
    name = make_index(client, settings, count=2)
    client.index(index=name, id="1", body={"title": "x", "price": -1})
    with caplog.at_level(logging.WARNING):
        assert set(poll(changes)) == {"0"}
    assert "left out" in caplog.text


def test_deletion_is_harmless(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    make_index(client, settings)
    poll(changes)
    client.delete(index=settings.products_index, id="1")
    assert poll(changes) == {}
    client.update(index=settings.products_index, id="2", body={"doc": {"sales": 7}})
    assert set(poll(changes)) == {"2"}


def test_new_version_behind_the_alias_is_read_from_its_beginning(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    make_index(client, settings)
    poll(changes)
    make_index(client, settings, version=2, count=2)
    assert {row["title"] for row in poll(changes).values()} == {"v2"}
    assert poll(changes) == {}


def test_shard_whose_numbers_fell_is_read_anew(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    """As they do when a snapshot is restored over the index, which keeps its uuid."""
    make_index(client, settings)
    poll(changes)
    (uuid, shard, number), = changes.progress
    changes.resume([(uuid, shard, number + 100)])
    assert set(poll(changes)) == {"0", "1", "2"}
    assert changes.progress == [(uuid, shard, number)]
    assert poll(changes) == {}


def test_batch_that_its_reader_failed_on_comes_again(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    make_index(client, settings, count=PAGE + 1)
    batches = changes.poll()
    next(batches)
    batches.close()
    assert len(poll(changes)) == PAGE + 1


def test_catalogue_that_is_not_there_yet_has_no_rows(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    assert poll(changes) == {}
    make_index(client, settings)
    assert len(poll(changes)) == 3


def test_node_that_is_away_is_an_error() -> None:
    settings = Settings(opensearch_url="http://127.0.0.1:9")
    with pytest.raises(UpstreamUnavailable):
        list(ProductChanges(settings, Upstream(settings)).poll())


def test_writes_of_many_threads_are_all_read(
        client: OpenSearch, settings: Settings, changes: ProductChanges) -> None:
    make_index(client, settings, count=500)
    poll(changes)
    updates = ({"_op_type": "update", "_index": settings.products_index, "_id": str(n % 500),
                "doc": {"sales": float(n)}} for n in range(4000))
    found: dict[str, Any] = {}
    for _ok, done in helpers.parallel_bulk(client, updates, thread_count=4, chunk_size=50,
                                   raise_on_error=False):
        if done["update"].get("_seq_no", 1) % 200 == 0:
            found |= poll(changes)
    found |= poll(changes)
    client.indices.refresh(index=settings.products_index)
    stored = helpers.scan(client, index=settings.products_index)
    assert {hit["_id"]: hit["_source"]["sales"] for hit in stored} == {
        key: row["sales"] for key, row in found.items()}
