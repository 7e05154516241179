"""What does a node's folder hold besides its data? Distribution, plugins, configuration."""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

from scripts._cluster import TRANSPORT_OFFSET, ClusterPlan
from scripts._machine import LOOPBACK, RunAs, can_reach
from sidecar.errors import LaunchError

LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


def lay_out(plan: ClusterPlan, index: int, distribution: Path, run_as: RunAs | None) -> Path:
    """Write a node's folder and return it: all but its data is made anew.

    Args:
        index: the node's number, from 0.

    Raises:
        LaunchError: a plugin's archive is none.
    """
    node_folder = plan.node_folder(index)
    for name in ("config", "data", "logs", "tmp"):
        folder = node_folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if run_as:
            os.chown(folder, run_as.uid, run_as.gid)
    (node_folder / "bin").mkdir(exist_ok=True)    # looked for at start, and empty here
    for name in ("lib", "modules"):
        place(distribution / name, node_folder / name, run_as)
    _install_plugins(node_folder / "plugins", plan.plugins)
    (node_folder / "config" / "log4j2.properties").write_text(LOG4J)
    (node_folder / "config" / "opensearch.yml").write_text(_configuration(plan, index))
    return node_folder


def place(source: Path, target: Path, run_as: RunAs | None) -> None:
    """Link a folder of the distribution, or copy it where the node's user cannot follow a link."""
    _remove(target)
    if can_reach(source, run_as):
        target.symlink_to(source)
        return
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


def _install_plugins(folder: Path, archives: tuple[Path, ...]) -> None:
    """Unpack each plugin's zip into ``plugins/NAME``; exactly these are installed afterwards."""
    _remove(folder)
    folder.mkdir()
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                descriptor = opened.read("plugin-descriptor.properties").decode()
                names = [line.split("=", 1)[1].strip() for line in descriptor.splitlines()
                         if line.startswith("name=")]
                opened.extractall(folder / names[0])
        except (OSError, zipfile.BadZipFile, KeyError, IndexError) as error:
            raise LaunchError(f"{archive} is not a plugin: {error}; build it with mvn package "
                              "and give the zip under target/") from error
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _configuration(plan: ClusterPlan, index: int) -> str:
    node_folder = plan.node_folder(index)
    settings: dict[str, Any] = {
        "cluster.name": "personalize",
        "node.name": node_folder.name,
        "path.data": str(node_folder / "data"),
        "path.logs": str(node_folder / "logs"),
        "network.host": LOOPBACK,
        "http.port": plan.port + index,
        "transport.port": plan.port + index + TRANSPORT_OFFSET,
        # The watermarks count percent of the disk: a nearly full laptop would refuse writes
        # with gigabytes to spare.
        "cluster.routing.allocation.disk.threshold_enabled": False,
    }
    if plan.nodes == 1:
        settings["discovery.type"] = "single-node"
    else:
        names = [f"node-{i + 1}" for i in range(plan.nodes)]
        settings["discovery.seed_hosts"] = [
            f"{LOOPBACK}:{plan.port + i + TRANSPORT_OFFSET}" for i in range(plan.nodes)]
        settings["cluster.initial_cluster_manager_nodes"] = names
    # YAML is a superset of JSON: each value is written as JSON.
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
