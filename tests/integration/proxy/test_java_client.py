"""OpenSearch's REST client for Java, pointed at the sidecar, notices nothing but the order."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts._distribution import DEPENDENCY_PLUGIN
from scripts._jdk import find_jdk

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "tests" / "java"
MILK = {"query": {"match": {"title": "milk"}}}


@pytest.fixture(scope="module")
def jars() -> Path:
    """Give the client's jars, as the pom pins them."""
    pom = PROGRAM / "pom.xml"
    folder = ROOT / ".local" / f"java-{hashlib.sha256(pom.read_bytes()).hexdigest()[:12]}"
    if not (folder / "complete").exists():
        mvn = shutil.which("mvn")
        assert mvn, "mvn is not on the PATH; install Maven, the Java client comes with it"
        subprocess.run(
            [mvn, "--batch-mode", "--quiet", "--strict-checksums", "--file", str(pom),
             f"{DEPENDENCY_PLUGIN}:copy-dependencies", "-DincludeScope=runtime",
             f"-DoutputDirectory={folder}"], check=True, stdin=subprocess.DEVNULL,
            env=os.environ | {"JAVA_HOME": str(find_jdk().home)})
        (folder / "complete").touch()
    return folder


def test_java_client_searches_writes_and_reads_errors(proxy, jars, expected_order):
    engine = proxy.engine("one", {**MILK, "size": 100}).ids
    done = subprocess.run(
        [str(find_jdk().home / "bin" / "java"), "-Xmx128m", "-Dfile.encoding=UTF-8",
         "-Dstdout.encoding=UTF-8", "--class-path", f"{jars}/*", str(PROGRAM / "Search.java"),
         proxy.url, f"{proxy.prefix}one"],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
        encoding="utf-8")
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 16
    for half in (lines[:8], lines[8:]):  # plain, then with compressed bodies
        statuses = [int(status) for status, _, _ in half]
        assert statuses == [200, 200, 200, 200, 201, 200, 200, 404]
        now, later, stranger = ([hit["_id"] for hit in json.loads(body)["hits"]["hits"]]
                                for _, _, body in half[:3])
        assert now == later == expected_order(engine, 100)[:20]
        assert stranger == engine[:20]
        assert [told.rpartition(": ")[2] for _, told, _ in half[:3]] == [
            "applied", "applied", "skipped; reason=anonymous"]
        assert json.loads(half[5][2])["_source"] == {"title": "mélk"}
        assert json.loads(half[7][2])["error"]["type"] == "index_not_found_exception"
