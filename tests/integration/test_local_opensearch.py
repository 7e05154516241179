"""The launcher against real nodes, and each failure that it explains, caused for real."""

from __future__ import annotations

import http.client
import json
import os
import socket
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scripts import _distribution
from scripts._cluster import reachable_home
from scripts._jdk import find_jdk
from scripts._machine import can_reach, is_port_free, require_space, unprivileged_user
from scripts._node_files import place
from scripts._processes import command_line
from sidecar.errors import LaunchError
from tests.conftest import Launcher

pytestmark = pytest.mark.timeout(900)    # nodes start in 7 s, but not on a machine that is busy


def call(url: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    connection = http.client.HTTPConnection(url.strip().removeprefix("http://"), timeout=30)
    connection.request(method, path, json.dumps(body) if body else None,
                       {"Content-Type": "application/json"})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def test_node_keeps_its_data_and_leaves_no_process(
        launcher: Launcher, node_home: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    up = ("up", "--home", node_home, "--port", port, "--heap", "512m")
    started = launcher(*up)
    assert started.returncode == 0, started.stderr
    assert started.stdout == f"http://127.0.0.1:{port}\n"
    status = json.loads(launcher("status", "--home", node_home).stdout)
    assert status["health"] in ("green", "yellow")
    pid = status["running"]["node-1"]
    call(started.stdout, "PUT", "/kept/_doc/1?refresh=true", {"title": "milk"})

    again = launcher(*up)
    assert (again.returncode, again.stdout) == (0, started.stdout)
    assert "already running" in again.stderr
    other = launcher("up", "--home", node_home, "--port", port, "--heap", "600m")
    assert other.returncode == 1
    assert "already runs, with other options" in other.stderr

    assert launcher("down", "--home", node_home).returncode == 0
    assert command_line(pid) == ""
    assert is_port_free(port)
    assert is_port_free(port + 100)
    stopped = launcher("status", "--home", node_home)
    assert stopped.returncode == 1
    assert json.loads(stopped.stdout) == {"running": {}, "urls": [], "health": None}
    assert launcher("down", "--home", node_home).returncode == 0

    assert launcher(*up).returncode == 0
    assert call(started.stdout, "GET", "/kept/_doc/1")["_source"] == {"title": "milk"}


def test_node_has_the_modules_that_the_project_uses(opensearch: str, index_prefix: str) -> None:
    index = f"{index_prefix}shop"
    call(opensearch, "PUT", f"/{index}/_doc/1?refresh=true", {"title": "milk", "sales": 1})
    scripted = call(opensearch, "POST", f"/{index}/_update_by_query?refresh=true",
                    {"script": {"source": "ctx._source.sales += 1"}})
    assert scripted["updated"] == 1
    templated = call(opensearch, "POST", f"/{index}/_search/template",
                     {"source": {"query": {"match": {"title": "{{q}}"}}}, "params": {"q": "milk"}})
    assert templated["hits"]["hits"][0]["_source"]["sales"] == 2
    names = {module["name"] for node in call(opensearch, "GET", "/_nodes/plugins")["nodes"].values()
             for module in node["modules"]}
    assert {module.name for module in _distribution.MODULES} <= names


def test_two_nodes_form_one_cluster(
        launcher: Launcher, node_home: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    started = launcher("up", "--home", node_home, "--port", port, "--nodes", "2",
                       "--heap", "400m")
    assert started.returncode == 0, started.stderr
    first, second = started.stdout.split()
    assert call(second, "GET", "/_cluster/health")["number_of_nodes"] == 2
    call(first, "PUT", "/shared/_doc/1", {"title": "milk"})
    assert call(second, "GET", "/shared/_doc/1")["found"] is True
    assert launcher("down", "--home", node_home).returncode == 0
    fewer = launcher("up", "--home", node_home, "--port", port)
    assert fewer.returncode == 1
    assert "holds data of 2 nodes, --nodes is 1" in fewer.stderr


def test_taken_transport_port_is_named(
        launcher: Launcher, node_home: Path, free_port: Callable[[], int]) -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port + 100)):
        refused = launcher("up", "--home", node_home, "--port", port)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"opensearch: port {port + 100} is taken")


def test_broken_plugin_kills_the_node_and_its_last_lines_are_shown(
        launcher: Launcher, node_home: Path, free_port: Callable[[], int], tmp_path: Path) -> None:
    archive = tmp_path / "old.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("plugin-descriptor.properties",
                        "description=old\nversion=1\nname=old\nclassname=Old\njava.version=21\n"
                        "opensearch.version=1.0.0\nhas.native.controller=false\n")
    port = free_port()
    died = launcher("up", "--home", node_home, "--port", port, "--plugin", archive)
    assert died.returncode == 1
    assert "node-1 died on start" in died.stderr
    assert "was built for OpenSearch version 1.0.0" in died.stderr
    assert is_port_free(port)


def test_file_that_is_no_plugin_is_refused(
        launcher: Launcher, node_home: Path, free_port: Callable[[], int], tmp_path: Path) -> None:
    archive = tmp_path / "not.zip"
    archive.write_text("not a zip")
    refused = launcher("up", "--home", node_home, "--port", free_port(), "--plugin", archive)
    assert refused.returncode == 1
    assert "not.zip is not a plugin" in refused.stderr


def test_stale_pid_of_another_program_is_not_killed(launcher: Launcher, node_home: Path) -> None:
    (node_home / "node-1").mkdir()
    (node_home / "node-1" / "pid").write_text(f"{os.getpid()}\n")
    stopped = launcher("down", "--home", node_home)
    assert stopped.returncode == 0
    assert "stopped 0 nodes" in stopped.stderr


def test_missing_jdk_names_those_that_are_too_old() -> None:
    with pytest.raises(LaunchError, match=r"no JDK of 99 or newer found \(.* is \d+.*JAVA_HOME"):
        find_jdk(minimum=99)


def test_java_home_is_preferred() -> None:
    usual = find_jdk()
    assert find_jdk(environ={"JAVA_HOME": str(usual.home), "PATH": ""}) == usual


def test_missing_maven_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="mvn is not on the PATH; install Maven"):
        _distribution.ready_distribution(local=tmp_path)


def test_maven_failure_is_told_with_its_log(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_distribution, "SERVER_ARTIFACTS", ("no.such:artifact:1.0",))
    with pytest.raises(LaunchError, match=r"cannot resolve OpenSearch .*maven\.log"):
        _distribution.ready_distribution(local=tmp_path)
    assert [path.name for path in (tmp_path / "opensearch").iterdir() if path.is_dir()] == []


def test_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"disk full: .* MB free, .* are needed"):
        require_space(tmp_path / "not" / "there", 2**60)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Make a folder that only its owner may enter."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    return folder


def test_home_in_a_private_folder_is_refused_or_replaced(
        launcher: Launcher, private: Path) -> None:
    home = private / "inner" / "home"
    if os.geteuid() == 0:
        refused = launcher("up", "--home", home)
        assert refused.returncode == 1
        assert f"who cannot enter {home}; choose a home" in refused.stderr
        assert reachable_home(home) == reachable_home(home) != home
    else:
        assert reachable_home(home) == home


def test_private_distribution_is_copied_where_the_nodes_user_can_read_it(
        private: Path, node_home: Path) -> None:
    node_home.chmod(0o755)
    source = private / "lib"
    source.mkdir(mode=0o700)
    (source / "server.jar").write_text("jar")
    run_as = unprivileged_user()
    place(source, node_home / "lib", run_as)
    assert can_reach(node_home / "lib" / "server.jar", run_as)
    assert (node_home / "lib").is_symlink() == (run_as is None)
    place(source, node_home / "lib", run_as)
    assert can_reach(node_home / "lib" / "server.jar", run_as)


def test_misuse_ends_with_2(launcher: Launcher) -> None:
    assert launcher("sideways").returncode == 2
    assert launcher("up", "--port", "99999").returncode == 2
