"""Where a node's URL leads: the sidecar and the loader must not disagree."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from sidecar.errors import SettingsError
from sidecar.settings import Settings
from sidecar.stores.addresses import Address
from sidecar.stores.administration import administration_client
from sidecar.stores.upstream import Upstream


@pytest.mark.parametrize(("url", "place"), [
    ("https://node", "https://node:443"), ("http://node", "http://node:9200"),
    ("https://node:9200", "https://node:9200"), ("http://node:80", "http://node:80"),
    ("https://node/search/", "https://node:443/search"), ("http://[::1]", "http://[::1]:9200")])
def test_loader_and_sidecar_reach_the_same_port(url: str, place: str) -> None:
    assert str(Address.from_url(url, ssl.create_default_context())) == place
    with administration_client(Settings(opensearch_url=url)) as client:
        reached = client.transport.get_connection()
        assert reached.host + reached.url_prefix == place


def test_every_node_of_the_settings_is_administered() -> None:
    with administration_client(Settings(opensearch_url="http://a, https://b/x")) as client:
        assert sorted(place.host for place in client.transport.connection_pool.connections) == [
            "http://a:9200", "https://b:443"]


@pytest.mark.parametrize(("url", "why"), [
    ("node:9200", "must be http://host:port"), ("http://node/a?pretty", "must end with the path"),
    ("http://node/a#b", "must end with the path")])
def test_url_that_the_sidecar_refuses_is_refused_by_the_loader(url: str, why: str) -> None:
    for made in (administration_client, Upstream):
        with pytest.raises(SettingsError, match=why):
            made(Settings(opensearch_url=url))


@pytest.mark.parametrize("url", ["", " , "])
def test_settings_without_a_node_are_refused_by_both(url: str) -> None:
    for made in (administration_client, Upstream):
        with pytest.raises(SettingsError, match="SIDECAR_OPENSEARCH_URL is empty; name a node"):
            made(Settings(opensearch_url=url))


@pytest.mark.parametrize("name", ["opensearch_ca", "opensearch_client_cert"])
def test_certificate_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.pem"
    path.write_text("no certificate")
    with pytest.raises(SettingsError, match=rf"SIDECAR_{name.upper()} is '.*broken.pem', cannot"):
        Upstream(Settings(opensearch_url="https://node", **{name: str(path)}))
