"""With which options was a local cluster started, and where can it live?

A home holds one cluster: ``cluster.json`` (those options) and a folder per node with its
configuration, data, logs and pid file. Node *i* (from 0) has HTTP port ``port + i`` and transport
port 100 above.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from scripts._machine import LOOPBACK, RunAs, can_reach, unprivileged_user
from sidecar.errors import LaunchError

TRANSPORT_OFFSET = 100


@dataclass(frozen=True, slots=True)
class ClusterPlan:
    """What ``up`` was asked for."""

    home: Path
    port: int = 9200
    nodes: int = 1
    heap: str = "1g"
    plugins: tuple[Path, ...] = ()

    @property
    def urls(self) -> list[str]:
        """One URL per node."""
        return [f"http://{LOOPBACK}:{self.port + i}" for i in range(self.nodes)]

    @property
    def ports(self) -> list[int]:
        """Every port that the nodes will listen on."""
        http_ports = [self.port + i for i in range(self.nodes)]
        return http_ports + [port + TRANSPORT_OFFSET for port in http_ports]

    def node_folder(self, index: int) -> Path:
        """The folder of node ``index``, from 0."""
        return self.home / f"node-{index + 1}"

    def save(self) -> None:
        """Write ``cluster.json`` into the home."""
        fields = dataclasses.asdict(self) | {
            "home": str(self.home), "plugins": [str(plugin) for plugin in self.plugins]}
        (self.home / "cluster.json").write_text(json.dumps(fields, indent=1) + "\n")

    @classmethod
    def saved(cls, home: Path) -> ClusterPlan | None:
        """Read the plan that a home was last started with; None if it never was."""
        try:
            fields = json.loads((home / "cluster.json").read_text())
        except FileNotFoundError:
            return None
        plugins = tuple(Path(plugin) for plugin in fields.pop("plugins"))
        return cls(**fields | {"home": home, "plugins": plugins})


def node_folders(home: Path) -> list[Path]:
    """Return the folders of the nodes that a home holds, in the order of their numbers."""
    folders = (path for path in home.glob("node-*") if path.is_dir())
    return sorted(folders, key=lambda path: int(path.name[5:]))


def reachable_home(preferred: Path) -> Path:
    """Return ``preferred``, or a stand-in where the nodes' user cannot enter its parents.

    A checkout under root's private home is the usual case; the stand-in under /var/tmp belongs
    to that one path, and outlives a reboot.
    """
    run_as = unprivileged_user()
    parent = preferred.parent
    while not parent.exists():
        parent = parent.parent
    if can_reach(parent, run_as):
        return preferred
    digest = hashlib.sha256(str(preferred).encode()).hexdigest()[:12]
    return Path("/var/tmp") / f"opensearch-home-{digest}"


def prepare_home(plan: ClusterPlan, run_as: RunAs | None) -> None:
    """Make the home, or say why the nodes cannot live there."""
    plan.home.mkdir(parents=True, exist_ok=True)
    if plan.home.stat().st_uid != os.geteuid():
        raise LaunchError(f"{plan.home} belongs to another user; choose another --home")
    if run_as and not can_reach(plan.home, run_as):
        plan.home.chmod(0o755)
        if not can_reach(plan.home, run_as):
            raise LaunchError(
                f"OpenSearch runs as {run_as.name}, who cannot enter {plan.home}; "
                "choose a home outside private folders with --home")
    held = len(node_folders(plan.home))
    if held > plan.nodes:
        raise LaunchError(f"{plan.home} holds data of {held} nodes, --nodes is {plan.nodes}; "
                          f"ask for {held} or choose another --home")
