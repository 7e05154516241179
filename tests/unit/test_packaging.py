"""Files that repeat a version or a pin say the same."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts._distribution import OPENSEARCH_VERSION
from sidecar.settings import Settings, variable

ROOT = Path(__file__).resolve().parents[2]


def read(name: str) -> str:
    return (ROOT / name).read_text()


def pins(name: str) -> set[str]:
    return set(re.findall(r"^[\w.-]+==[^\\\n]+", read(name), re.MULTILINE))


def test_images_hold_the_version_that_the_launcher_starts() -> None:
    for name in ("Dockerfile", "docker-compose.yml"):
        versions = re.findall(r"opensearchproject/opensearch:(\S+)", read(name))
        assert set(versions) == {OPENSEARCH_VERSION}, name


def test_plugin_is_built_for_the_version_that_the_launcher_starts() -> None:
    assert f"<opensearch.version>{OPENSEARCH_VERSION}<" in read("plugin/pom.xml")


def test_image_installs_what_the_tests_ran_on() -> None:
    served = pins("requirements-serve.lock")
    assert served
    assert served <= pins("requirements.lock")
    assert not any(pin.startswith(("pytest", "ruff", "mypy")) for pin in served)


SIDECARS = ("sidecar", "sidecar-gpu")
VARIABLE = re.compile(r"\$\{(\w+):([-+])([^}]*)\}")


def interpolated(node: Any, environ: dict[str, str]) -> Any:
    """Return YAML's values with the variables put in as compose puts them in."""
    def value(found: re.Match[str]) -> str:
        given, word = environ.get(found[1], ""), found[3]
        return (given or word) if found[2] == "-" else (word if given else "")

    if isinstance(node, dict):  # a variable without a value is handed on if it is there
        return {key: environ[key] if entry is None else interpolated(entry, environ)
                for key, entry in node.items() if entry is not None or key in environ}
    if isinstance(node, list):
        return [interpolated(entry, environ) for entry in node]
    return VARIABLE.sub(value, node) if isinstance(node, str) else node


def service(name: str, environ: dict[str, str]) -> dict[str, Any]:
    """Return a service of the compose file in an environment."""
    found: dict[str, Any] = interpolated(
        yaml.safe_load(read("docker-compose.yml"))["services"][name], environ)
    return found


@pytest.mark.parametrize("name", SIDECARS)
def test_container_without_variables_asks_the_node_beside_it(name: str) -> None:
    settings = Settings.from_environ(service(name, {})["environment"])
    assert settings.opensearch_url == "http://opensearch:9200"
    for field in ("opensearch_authorization", "opensearch_ca", "opensearch_verify"):
        assert getattr(settings, field) == getattr(Settings(), field)


@pytest.mark.parametrize("name", SIDECARS)
def test_container_is_told_of_another_cluster(name: str) -> None:
    told = service(name, {
        "SIDECAR_OPENSEARCH_URL": "https://node", "SIDECAR_OPENSEARCH_VERIFY": "false",
        "SIDECAR_OPENSEARCH_AUTHORIZATION": "Basic dTpw", "SIDECAR_OPENSEARCH_CA": "/own/ca.pem"})
    settings = Settings.from_environ(told["environment"])
    assert settings.opensearch_url == "https://node"
    assert settings.opensearch_authorization == "Basic dTpw"
    assert not settings.opensearch_verify
    assert [mount["source"] for mount in told["volumes"]
            if mount["target"] == settings.opensearch_ca] == ["/own/ca.pem"]


@pytest.mark.parametrize("name", SIDECARS)
def test_container_is_told_every_setting_but_paths_of_this_machine(name: str) -> None:
    every = {variable(field.name): "x" for field in dataclasses.fields(Settings)}
    told = service(name, every)["environment"]
    assert every.keys() - told.keys() == {
        variable("opensearch_client_cert"), variable("shared_dir")}
    kept = {name for name in every if told.get(name) != "x"} - {variable("opensearch_ca")}
    told_of = read("docker-compose.yml").partition("\nname:")[0]
    assert kept == set(re.findall(r"SIDECAR_\w+", told_of.partition("but those")[2]
                                  .partition(").\n")[0]))
    secret = {variable("admin_authorization"): "Bearer of the secret"}
    settings = Settings.from_environ(service(name, secret)["environment"])
    assert settings.admin_authorization == "Bearer of the secret"


@pytest.mark.parametrize("name", SIDECARS)
def test_container_listens_where_its_port_is_published(name: str) -> None:
    """Also where .env has SIDECAR_LISTEN for a sidecar outside of containers."""
    told = service(name, {"PERSONALIZE_PORT": "9000", "PERSONALIZE_GPU_PORT": "9000"})
    assert told["ports"] == ["127.0.0.1:9000:8080"]
    assert Settings.from_environ(told["environment"]).listen == "0.0.0.0:8080"


@pytest.mark.parametrize("name", SIDECARS)
def test_docker_makes_no_folder_of_this_machine(name: str) -> None:
    mounts = [mount for mount in service(name, {})["volumes"] if mount["type"] == "bind"]
    assert "/model" in [mount["target"] for mount in mounts]
    assert all(mount["bind"] == {"create_host_path": False} and mount["read_only"]
               for mount in mounts)


@pytest.mark.parametrize("name", SIDECARS)
def test_container_keeps_its_machine_code_on_a_volume_that_its_user_owns(name: str) -> None:
    told = service(name, {})
    [(source, target)] = [(mount["source"], mount["target"]) for mount in told["volumes"]
                          if mount["type"] == "volume"]
    assert source in yaml.safe_load(read("docker-compose.yml"))["volumes"]
    assert f"NUMBA_CACHE_DIR={target} " in read("Dockerfile")
    user, group = told["user"].split(":")
    assert f"--owner={user} --group={group} {target}\n" in read("Dockerfile")
