"""Where are the OpenSearch nodes of the settings? Read alike for the sidecar and the loader."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from sidecar.errors import SettingsError
from sidecar.settings import Settings


@dataclass(frozen=True, slots=True)
class Address:
    """Where one node listens; ``prefix`` is put before every target (no trailing slash)."""

    host: str
    port: int
    prefix: str = ""
    tls: ssl.SSLContext | None = None

    @property
    def host_header(self) -> str:
        """Return the Host header's value; an IPv6 literal stands in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{self.host_header}{self.prefix}"

    @classmethod
    def from_url(cls, url: str, tls: ssl.SSLContext) -> Address:
        """Read ``http[s]://host[:port][/prefix]``; ``tls`` is used for https only.

        The default port is 443 for https and 9200 for http.

        Raises:
            SettingsError: another scheme, no host, or what no node's URL has: credentials, a query
                or a fragment.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise SettingsError(f"SIDECAR_OPENSEARCH_URL has {url!r}, which is no URL: {error}"
                                ) from None
        if parts.scheme not in ("http", "https") or not host:
            raise SettingsError(f"SIDECAR_OPENSEARCH_URL has {url!r}, must be http://host:port or "
                                "https://")
        if parts.username is not None:
            raise SettingsError("SIDECAR_OPENSEARCH_URL holds credentials; "
                                "set SIDECAR_OPENSEARCH_AUTHORIZATION instead")
        if parts.query or parts.fragment:
            raise SettingsError(f"SIDECAR_OPENSEARCH_URL has {url!r}, must end with the path; "
                                "leave out what follows it")
        return cls(host, port or default_port(parts.scheme), parts.path.rstrip("/"),
                   tls if parts.scheme == "https" else None)


def addresses(settings: Settings) -> list[Address]:
    """Return the nodes that the settings name, at least one.

    Raises:
        SettingsError: none is named, or an URL, certificate or key cannot be used.
    """
    urls = [url.strip() for url in settings.opensearch_url.split(",") if url.strip()]
    if not urls:
        raise SettingsError("SIDECAR_OPENSEARCH_URL is empty; name a node")
    tls = _tls_context(settings)
    return [Address.from_url(url, tls) for url in urls]


def default_port(scheme: str) -> int:
    """Return where a node listens whose URL names no port: as web servers do for https, else 9200.
    """
    return 443 if scheme == "https" else 9200


def _tls_context(settings: Settings) -> ssl.SSLContext:
    """Return how nodes are reached by https."""
    ca, own = settings.opensearch_ca, settings.opensearch_client_cert
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"SIDECAR_OPENSEARCH_CA is {ca!r}, cannot be read as PEM: {error}"
                            ) from error
    try:
        if own:
            context.load_cert_chain(own)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"SIDECAR_OPENSEARCH_CLIENT_CERT is {own!r}, cannot be read as PEM "
                            f"with a certificate and its key: {error}") from error
    if not settings.opensearch_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
