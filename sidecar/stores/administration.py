"""Administers OpenSearch with opensearch-py, which the request path does not use."""

from __future__ import annotations

from typing import Any

from opensearchpy import OpenSearch
from opensearchpy.exceptions import RequestError

from sidecar.settings import Settings
from sidecar.stores.addresses import addresses
from sidecar.stores.mappings import mapping


def administration_client(settings: Settings) -> OpenSearch:
    """Return opensearch-py's client for the settings' nodes; it connects on first use.

    Raises:
        SettingsError: no URL, or an URL, certificate or key that cannot be used.
    """
    nodes = addresses(settings)
    options: dict[str, Any] = {"timeout": settings.upstream_timeout_s}
    if settings.opensearch_authorization:
        options["headers"] = {"authorization": settings.opensearch_authorization}
    tls = next((node.tls for node in nodes if node.tls), None)
    if tls:
        options["ssl_context"] = tls
    # as dicts: of a text without a port, opensearch-py makes a port of its own
    hosts = [{"host": node.host, "port": node.port, "use_ssl": node.tls is not None,
              "url_prefix": node.prefix} for node in nodes]
    return OpenSearch(hosts, **options)


def create_indices(client: OpenSearch, settings: Settings) -> list[str]:
    """Create the indices of states, events and queries that are absent; return their names.

    Existing indices stay as they are, also UBI's own. The loader makes the products' indices, as
    each load makes a version of its own.
    """
    wanted = {settings.states_index: "personalize-states",
              settings.events_index: "ubi_events",
              settings.queries_index: "ubi_queries"}
    return [index for index, name in wanted.items() if _create(client, index, mapping(name))]


def _create(client: OpenSearch, index: str, body: dict[str, Any]) -> bool:
    if client.indices.exists(index=index):
        return False
    try:
        client.indices.create(index=index, body=body)
    except RequestError as error:
        if error.error != "resource_already_exists_exception":
            raise
        return False  # somebody was faster
    return True
