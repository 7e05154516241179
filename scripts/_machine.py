"""What does this machine offer: a user to run as, free ports, disk, folders that the user reaches?

It touches sockets, the user database and file modes, and changes nothing that lasts.
"""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar.errors import LaunchError

LOOPBACK = "127.0.0.1"

# Users that a root-owned launcher may start a node as, the first that exists.
UNPRIVILEGED_USERS = ("opensearch", "nobody")


@dataclass(frozen=True, slots=True)
class RunAs:
    """A user that child processes run as."""

    name: str
    uid: int
    gid: int

    def child_options(self) -> dict[str, Any]:
        """Return keyword arguments that make ``subprocess`` start a child as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def unprivileged_user() -> RunAs | None:
    """Return whom root should start a node as; None when the current user is not root.

    Raises:
        LaunchError: there is no user that root can become.
    """
    if os.geteuid() != 0:
        return None
    for name in UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return RunAs(name, entry.pw_uid, entry.pw_gid)
    raise LaunchError(
        "OpenSearch refuses to run as root and no other user was found; "
        "create one: useradd --system opensearch")


def can_reach(path: Path, run_as: RunAs | None) -> bool:
    """Say whether the user can enter the folder or read the file; None is the current user."""
    test = "-x" if path.is_dir() else "-r"
    options = run_as.child_options() if run_as else {}
    command = ["/bin/sh", "-c", f'test {test} "$0"', str(path.absolute())]
    return subprocess.run(command, cwd="/", check=False, **options).returncode == 0


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise ``LaunchError`` when the file system of ``folder`` has less free than needed."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise LaunchError(
            f"disk full: {existing} has {free / 2**20:.0f} MB free, {needed_bytes / 2**20:.0f} MB "
            "are needed; free some space or choose another disk")


def require_free_ports(ports: Iterable[int], remedy: str) -> None:
    """Raise ``LaunchError``, ending in ``remedy``, when something holds one of the ports."""
    for port in ports:
        if not is_port_free(port):
            raise LaunchError(f"port {port} is taken; stop what listens there or {remedy}")


def is_port_free(port: int) -> bool:
    """Say whether a server could listen on the port now."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        # A listener on the wildcard address does not stop a bind to loopback on every system.
        if probe.connect_ex((LOOPBACK, port)) == 0:
            return False
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def find_free_port(companions: tuple[int, ...] = ()) -> int:
    """Return a port that is free now, and with it the ports ``companions`` above it."""
    while True:
        with closing(socket.socket()) as probe:
            probe.bind((LOOPBACK, 0))
            port: int = probe.getsockname()[1]
        if all(is_port_free(port + offset) for offset in (0, *companions)):
            return port
