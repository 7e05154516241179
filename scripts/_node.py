"""How are local OpenSearch nodes started, watched and stopped?

They listen on the loopback address only, and their data stays when they stop.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from scripts._cluster import ClusterPlan, node_folders, prepare_home
from scripts._distribution import locked, ready_distribution
from scripts._jdk import Jdk, find_jdk
from scripts._machine import RunAs, require_free_ports, require_space, unprivileged_user
from scripts._node_files import lay_out
from scripts._processes import command_line, send_signal, wait_until_gone
from sidecar.errors import LaunchError

START_TIMEOUT_S = 300  # an idle machine takes 7
STOP_TIMEOUT_S = 60
SPACE_BYTES = 300 * 2**20
LOG_TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class NodeProcess:
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


def nodes_of(home: Path) -> list[NodeProcess]:
    """Return the nodes that a home holds, running or not, in the order of their numbers."""
    return [NodeProcess(folder) for folder in node_folders(home)]


def start(plan: ClusterPlan) -> bool:
    """Start the cluster and wait until it answers; False if it was running already.

    Raises:
        LaunchError: something is missing, a port is taken, or a node died on its way up.
    """
    run_as = unprivileged_user()
    prepare_home(plan, run_as)
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
                node = NodeProcess(lay_out(plan, index, distribution, run_as))
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
        send_signal(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for node in running:
        wait_until_gone(node.pid, deadline)
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


def _is_running_as_planned(plan: ClusterPlan) -> bool:
    """Say whether the nodes run already; stops a half-dead cluster so that it can be started."""
    running = [node for node in nodes_of(plan.home) if node.pid() is not None]
    if not running:
        return False
    saved = ClusterPlan.saved(plan.home)
    if saved != plan:
        raise LaunchError(f"{plan.home} already runs, with other options: {saved}; "
                          "stop it first: scripts/quickstart --stop, or scripts.opensearch down")
    if len(running) == plan.nodes and health(plan.urls[0]):
        return True
    stop(plan.home)
    return False


def _spawn(node: NodeProcess, plan: ClusterPlan, jdk: Jdk,
           run_as: RunAs | None) -> subprocess.Popen[bytes]:
    home = node.folder
    command = [
        str(jdk.java), f"-Xms{plan.heap}", f"-Xmx{plan.heap}", "-XX:+ExitOnOutOfMemoryError",
        "--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector",
        "-Dfile.encoding=UTF-8", "-Djna.nosys=true", "-Dlog4j2.disable.jmx=true",
        "-Dlog4j.shutdownHookEnabled=false",  # the node closes its log itself, last of all
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


def _wait_until_ready(plan: ClusterPlan,
                      processes: dict[NodeProcess, subprocess.Popen[bytes]]) -> None:
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
