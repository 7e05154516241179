"""Administration of a node behind TLS and a password, as secured clusters are."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from opensearchpy.exceptions import ConnectionError

from sidecar.errors import SettingsError
from sidecar.settings import Settings
from sidecar.stores.administration import administration_client


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a PEM file with a key and a certificate for 127.0.0.1 that signs itself."""
    if not shutil.which("openssl"):
        pytest.fail("openssl is needed for the TLS tests; install it")
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out",
         "cert.pem"], cwd=folder, check=True, capture_output=True)
    both = folder / "both.pem"
    both.write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return both


class TlsRelay:
    """Takes TLS off, notes what was said, and passes it on to a node."""

    def __init__(self, node: str, certificate: Path) -> None:
        self.heard: list[bytes] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate)
        host, _, port = node.removeprefix("http://").partition(":")
        self._node = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],),
                                 daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        with (contextlib.suppress(OSError), raw,
              self._tls.wrap_socket(raw, server_side=True) as near,
              socket.create_connection(self._node) as far):
            while said := near.recv(65536):
                self.heard.append(said)
                far.sendall(said)
                near.sendall(far.recv(65536))


@pytest.fixture
def relay(opensearch: str, certificate: Path) -> Iterator[TlsRelay]:
    relay = TlsRelay(opensearch, certificate)
    yield relay
    relay.close()


def test_certificate_is_verified_and_the_password_sent(relay: TlsRelay, certificate: Path) -> None:
    settings = Settings(opensearch_url=relay.url, opensearch_ca=str(certificate),
                        opensearch_authorization="Basic dTpw")
    client = administration_client(settings)
    assert client.info()["version"]["number"]
    assert b"authorization: basic dtpw" in relay.heard[0].lower()
    client.close()


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_unknown_certificate_is_refused_unless_told(relay: TlsRelay) -> None:
    client = administration_client(Settings(opensearch_url=relay.url))
    with pytest.raises(ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
        client.info()
    client.close()
    trusting = administration_client(Settings(opensearch_url=relay.url, opensearch_verify=False))
    assert trusting.info()["version"]["number"]
    trusting.close()


def test_certificate_that_is_absent_is_a_settings_error(tmp_path: Path) -> None:
    settings = Settings(opensearch_url="https://127.0.0.1:9", opensearch_ca=str(tmp_path / "ca"))
    with pytest.raises(SettingsError, match="cannot be read as PEM"):
        administration_client(settings)
