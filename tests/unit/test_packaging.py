"""Files that repeat a version or a pin say the same."""

from __future__ import annotations

import re
from pathlib import Path

from scripts._distribution import OPENSEARCH_VERSION

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
