"""How are local OpenSearch nodes started, watched and stopped?

A home holds one cluster: ``cluster.json`` (what was asked for) and a folder per node with its
configuration, data, logs and pid file. Data stays when the nodes stop. Nodes listen on the
loopback address only; node *i* (from 0) has HTTP port ``port + i`` and transport port 100 above.
"""

from __future__ import annotations

import dataclasses
import hashlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scripts._distribution import locked, ready_distribution
from scripts._jdk import Jdk, find_jdk
from scripts._machine import (
    LOOPBACK,
    RunAs,
    can_reach,
    require_free_ports,
    require_space,
    unprivileged_user,
)
from sidecar.errors import LaunchError

TRANSPORT_OFFSET = 100
START_TIMEOUT_S = 180
STOP_TIMEOUT_S = 60
SPACE_BYTES = 300 * 2**20
LOG_TAIL_LINES = 12

LOG4J = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


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


@dataclass(frozen=True, slots=True)
class Node:
    """One node's folder, and the process that its pid file names."""

    folder: Path

    @property
    def name(self) -> str:
        """The node's name in the cluster, such as node-1."""
        return self.folder.name

    @property
    def console_log(self) -> Path:
        """Everything the process printed since its last start."""
        return self.folder / "logs" / "console.log"

    def pid(self) -> int | None:
        """Return the running process's id; None if it is not running."""
        try:
            pid = int((self.folder / "pid").read_text())
        except (FileNotFoundError, ValueError):
            return None
        # The system may have given the id to another program since: its command line tells.
        return pid if f"path.home={self.folder}" in command_line(pid) else None

    def last_lines(self) -> str:
        """Return the end of what the process printed, without the frames of stack traces."""
        try:
            lines = self.console_log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            lines = []
        return "\n".join([line for line in lines if not line.startswith("\tat ")][-LOG_TAIL_LINES:])


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


def nodes_of(home: Path) -> list[Node]:
    """Return the nodes that a home holds, running or not, in the order of their numbers."""
    folders = (path for path in home.glob("node-*") if path.is_dir())
    return [Node(path) for path in sorted(folders, key=lambda path: int(path.name[5:]))]


def start(plan: ClusterPlan) -> bool:
    """Start the cluster and wait until it answers; False if it was running already.

    Raises:
        LaunchError: something is missing, a port is taken, or a node died on its way up.
    """
    run_as = unprivileged_user()
    _prepare_home(plan, run_as)
    with locked(plan.home / "lock"):
        if _is_running_as_planned(plan):
            return False
        jdk = find_jdk(run_as)
        distribution = ready_distribution()
        require_space(plan.home, SPACE_BYTES)
        require_free_ports(plan.ports, "choose another with --port (its transport port is 100 up)")
        plan.save()
        processes = {}
        try:
            for index in range(plan.nodes):
                node = _lay_out(plan, index, distribution, run_as)
                processes[node] = _spawn(node, plan, jdk, run_as)
            _wait_until_ready(plan, processes)
        except BaseException:
            stop(plan.home)
            raise
    return True


def stop(home: Path) -> int:
    """Stop every node of a home and wait until the processes are gone; return how many ran."""
    running = {node: pid for node in nodes_of(home) if (pid := node.pid()) is not None}
    for pid in running.values():
        os.kill(pid, signal.SIGTERM)
    patience = time.monotonic() + STOP_TIMEOUT_S
    for node, pid in running.items():
        while node.pid() is not None:
            if time.monotonic() > patience:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        (node.folder / "pid").unlink(missing_ok=True)
    return len(running)


def health(url: str, query: str = "timeout=1s") -> dict[str, Any] | None:
    """Return ``_cluster/health``'s answer; None when the node does not answer yet."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=5)
    try:
        connection.request("GET", f"/_cluster/health?{query}")
        answer: dict[str, Any] = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError):
        return None
    else:
        return answer
    finally:
        connection.close()


def command_line(pid: int) -> str:
    """Return a process's command line; empty when it is gone or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        pass
    if Path("/proc/self").exists():
        return ""
    asked = subprocess.run(["ps", "-ww", "-o", "command=", "-p", str(pid)], check=False, text=True,
                           capture_output=True)
    return asked.stdout


def _prepare_home(plan: ClusterPlan, run_as: RunAs | None) -> None:
    plan.home.mkdir(parents=True, exist_ok=True)
    if plan.home.stat().st_uid != os.geteuid():
        raise LaunchError(f"{plan.home} belongs to another user; choose another --home")
    if run_as and not can_reach(plan.home, run_as):
        plan.home.chmod(0o755)
        if not can_reach(plan.home, run_as):
            raise LaunchError(
                f"OpenSearch runs as {run_as.name}, who cannot enter {plan.home}; "
                "choose a home outside private folders with --home")
    held = len(nodes_of(plan.home))
    if held > plan.nodes:
        raise LaunchError(f"{plan.home} holds data of {held} nodes, --nodes is {plan.nodes}; "
                          f"ask for {held} or choose another --home")


def _is_running_as_planned(plan: ClusterPlan) -> bool:
    """Say whether the nodes run already; stops a half-dead cluster so that it can be started."""
    running = [node for node in nodes_of(plan.home) if node.pid() is not None]
    if not running:
        return False
    saved = ClusterPlan.saved(plan.home)
    if saved != plan:
        raise LaunchError(f"{plan.home} already runs, with other options: {saved}; "
                          "run 'down' first")
    if len(running) == plan.nodes and health(plan.urls[0]):
        return True
    stop(plan.home)
    return False


def _lay_out(plan: ClusterPlan, index: int, distribution: Path, run_as: RunAs | None) -> Node:
    """Write a node's folder: distribution, plugins, configuration; keeps its data."""
    node = Node(plan.home / f"node-{index + 1}")
    for name in ("config", "data", "logs", "tmp"):
        folder = node.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        if run_as:
            os.chown(folder, run_as.uid, run_as.gid)
    (node.folder / "bin").mkdir(exist_ok=True)    # looked for at start, and empty here
    for name in ("lib", "modules"):
        _place(distribution / name, node.folder / name, run_as)
    _install_plugins(node.folder / "plugins", plan.plugins)
    (node.folder / "config" / "log4j2.properties").write_text(LOG4J)
    (node.folder / "config" / "opensearch.yml").write_text(_configuration(plan, index, node))
    return node


def _place(source: Path, target: Path, run_as: RunAs | None) -> None:
    """Link a folder of the distribution, or copy it where the node's user cannot follow a link."""
    if target.is_symlink() or target.exists():
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


def _configuration(plan: ClusterPlan, index: int, node: Node) -> str:
    settings: dict[str, Any] = {
        "cluster.name": "personalize",
        "node.name": node.name,
        "path.data": str(node.folder / "data"),
        "path.logs": str(node.folder / "logs"),
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


def _spawn(node: Node, plan: ClusterPlan, jdk: Jdk,
           run_as: RunAs | None) -> subprocess.Popen[bytes]:
    home = node.folder
    command = [
        str(jdk.java), f"-Xms{plan.heap}", f"-Xmx{plan.heap}", "-XX:+ExitOnOutOfMemoryError",
        "--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector",
        "-Dfile.encoding=UTF-8", "-Djna.nosys=true", "-Dlog4j2.disable.jmx=true",
        f"-Djava.io.tmpdir={home / 'tmp'}", f"-XX:ErrorFile={home / 'logs' / 'hs_err.log'}",
        f"-Dopensearch.path.home={home}", f"-Dopensearch.path.conf={home / 'config'}",
        "-cp", f"{home / 'lib'}/*", "org.opensearch.bootstrap.OpenSearch",
    ]
    options = run_as.child_options() if run_as else {}
    with node.console_log.open("wb") as log:
        # Its own session: Ctrl-C at the launcher's terminal is not for the node.
        process = subprocess.Popen(command, cwd=home, stdin=subprocess.DEVNULL, stdout=log,
                                   stderr=subprocess.STDOUT, start_new_session=True, **options)
    (home / "pid").write_text(f"{process.pid}\n")
    return process


def _wait_until_ready(plan: ClusterPlan, processes: dict[Node, subprocess.Popen[bytes]]) -> None:
    """Wait until every node has joined and the cluster is yellow or green."""
    deadline = time.monotonic() + START_TIMEOUT_S
    wanted = f"wait_for_status=yellow&wait_for_nodes={plan.nodes}&timeout=1s"
    with tqdm(desc="starting OpenSearch", bar_format="{desc}: {elapsed}", disable=None) as bar:
        while time.monotonic() < deadline:
            for node, process in processes.items():
                if process.poll() is not None:
                    raise LaunchError(
                        f"{node.name} died on start with {process.returncode}; its last lines, "
                        f"from {node.console_log}:\n{node.last_lines()}")
            answer = health(plan.urls[0], wanted)
            if answer and answer.get("timed_out") is False:
                return
            time.sleep(0.2)
            bar.update()
    slow = "\n".join(node.last_lines() for node in processes)
    raise LaunchError(f"OpenSearch was not ready after {START_TIMEOUT_S} s; last lines:\n{slow}")
