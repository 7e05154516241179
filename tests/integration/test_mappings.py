"""The indices made from mappings/, on a real node: what they take, find and refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch
from opensearchpy.exceptions import RequestError

from sidecar.records import Event
from sidecar.settings import Settings
from sidecar.stores.administration import administration_client, create_indices
from sidecar.stores.mappings import mapping
from sidecar.stores.ubi import event_document, query_document


@pytest.fixture
def settings(opensearch: str, index_prefix: str) -> Settings:
    return Settings(opensearch_url=opensearch, states_index=f"{index_prefix}states",
                    events_index=f"{index_prefix}events", queries_index=f"{index_prefix}queries",
                    products_index=f"{index_prefix}products")


@pytest.fixture
def client(settings: Settings) -> OpenSearch:
    return administration_client(settings)


def test_indices_are_created_once(client: OpenSearch, settings: Settings) -> None:
    names = [settings.states_index, settings.events_index, settings.queries_index]
    assert create_indices(client, settings) == names
    assert create_indices(client, settings) == []
    assert all(client.indices.exists(index=name) for name in names)


@pytest.mark.parametrize("document", [
    {"timestamp": "2024-12-11T19:55:40.889Z", "action_name": "click", "user_id": "",
     "client_id": "c", "query_id": "q", "application": "shop", "session_id": "s",
     "message": None, "message_type": None, "user_query": "tv",
     "event_attributes": {"position": {}, "object": {"object_id": 17, "object_id_field": "asin",
                                                     "colour": {"deep": [1, "a"]}},
                          "quantity": "many", "dwell": {"ms": 3}}},
    {"timestamp": 1733946940889, "action_name": "view",
     "event_attributes": {"position": {"ordinal": 3, "xy": {"x": 1.5, "y": "far"}}}},
    event_document(Event("u", "purchase", "a", 1.5, "tea", order_id="7", quantity=2.0,
                         unit_price=0.5, position=1, extra={"dwell_ms": 7})),
])
def test_events_of_real_clients_are_taken(
        client: OpenSearch, settings: Settings, document: dict[str, Any]) -> None:
    create_indices(client, settings)
    client.index(index=settings.events_index, body=document)


def test_item_that_is_a_number_is_found_as_text(client: OpenSearch, settings: Settings) -> None:
    create_indices(client, settings)
    client.index(index=settings.events_index, refresh=True, body={
        "timestamp": 0, "action_name": "click", "event_attributes": {"object": {"object_id": 17}}})
    query = {"query": {"term": {"event_attributes.object.object_id": "17"}}}
    assert client.count(index=settings.events_index, body=query)["count"] == 1


@pytest.mark.parametrize("document", [
    query_document(Event("u", "search", None, 1.5, "tea", extra={"query_id": "q", "page": 2})),
    {"timestamp": 0, "query_id": "q", "user_query": "tea", "query_response_hit_ids": ["b", "a"],
     "query_attributes": {"any": {"thing": [1, "a"]}}, "query": "{}"},
])
def test_queries_are_taken(
        client: OpenSearch, settings: Settings, document: dict[str, Any]) -> None:
    create_indices(client, settings)
    client.index(index=settings.queries_index, body=document)


@pytest.mark.parametrize(("index", "document"), [
    ("events_index", {"timestamp": 0, "action": "click"}),
    ("events_index", {"timestamp": "yesterday", "action_name": "click"}),
    ("queries_index", {"timestamp": 0, "querry_id": "q"}),
    ("states_index", {"user_id": "u", "event": {}}),
])
def test_a_typo_is_refused(client: OpenSearch, settings: Settings, index: str,
                           document: dict[str, Any]) -> None:
    create_indices(client, settings)
    with pytest.raises(RequestError):
        client.index(index=getattr(settings, index), body=document)


def test_products_are_found_by_a_shopper_s_words(client: OpenSearch, settings: Settings) -> None:
    index = settings.products_index
    client.indices.create(index=index, body=mapping("products"))
    client.index(index=index, id="a", refresh=True, body={
        "item_id": "a", "title": "Children's Crème Cookies 12/18&15PK", "brand": "Moo & Co",
        "categories": ["GROCERY", "ICE CREAM/MILK/SHERBTS"], "price": 1.5, "sales": 3.0,
        "vectors": {"text": [0.1, 2]}, "promotion": 0.5, "rating": 4.5})
    for text in ("cookie", "COOKIES", "creme", "children's", "15pk", "18"):
        assert _found(client, index, {"match": {"title": text}}), text
    assert _found(client, index, {"match": {"categories": "milk"}})
    assert _found(client, index, {"term": {"brand.keyword": "Moo & Co"}})
    assert _found(client, index, {"term": {"categories.keyword": "GROCERY"}})
    assert _found(client, index, {"range": {"price": {"gte": 1, "lt": 2}}})
    assert not _found(client, index, {"match": {"title": "milk"}})


def _found(client: OpenSearch, index: str, query: dict[str, Any]) -> bool:
    return bool(client.count(index=index, body={"query": query})["count"])


def test_product_update_with_a_typo_is_refused(client: OpenSearch, settings: Settings) -> None:
    index = settings.products_index
    client.indices.create(index=index, body=mapping("products"))
    client.index(index=index, id="a", body={"item_id": "a", "title": "Tea"})
    client.update(index=index, id="a", body={"doc": {"price": 2.5}})
    with pytest.raises(RequestError, match="strict_dynamic_mapping_exception"):
        client.update(index=index, id="a", body={"doc": {"pirce": 2.5}})


def test_every_mapping_file_is_a_mapping() -> None:
    files = sorted((Path(__file__).resolve().parents[2] / "mappings").glob("*.json"))
    assert [file.stem for file in files] == [
        "personalize-states", "products", "ubi_events", "ubi_queries"]
    for file in files:
        body = json.loads(file.read_bytes())
        assert body["mappings"]["dynamic"] == "strict"
        assert body["mappings"]["_meta"]["about"]
        assert body["settings"]["auto_expand_replicas"] == "0-1"
