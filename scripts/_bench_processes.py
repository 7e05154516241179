"""Processor time and memory of the measured processes, from ``/proc``: on Linux only."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

PROC = Path("/proc")
_LISTENING = "0A"
_LOCAL = re.compile(r"127\.\d+\.\d+\.\d+|localhost|::1")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a group of processes has used: seconds of processor, bytes of memory held now.

    ``own_bytes`` counts shared pages by their share (Pss) where the kernel tells it.
    """

    cpu_s: float
    rss_bytes: int
    own_bytes: int
    processes: int


class ProcessGroup:
    """The process that listens at a URL of this machine, and its children."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        is_here = PROC.is_dir() and _LOCAL.fullmatch(parts.hostname or "") is not None
        self.roots = _listeners(parts.port or 80) if is_here else set()

    def usage(self) -> Usage | None:
        """Return what the group has used so far; None where that is unknown."""
        pids = self.roots | {pid for root in self.roots for pid in _descendants(root)}
        if not pids:
            return None
        return Usage(cpu_s=sum(map(_cpu_s, pids)), processes=len(pids),
                     rss_bytes=sum(_bytes(pid, "status", "VmRSS") for pid in pids),
                     own_bytes=sum(_bytes(pid, "smaps_rollup", "Pss") for pid in pids))


def own_cpu_s() -> float:
    """Return the benchmark's own processor time."""
    times = os.times()
    return times.user + times.system


def _listeners(port: int) -> set[int]:
    inodes = set()
    for table in ("tcp", "tcp6"):
        lines = _read(PROC / "net" / table).splitlines()[1:]
        for fields in map(str.split, lines):
            if fields[3] == _LISTENING and int(fields[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    holders = {pid for pid in _pids() if inodes & _sockets(pid)}
    return {pid for pid in holders if _parent(pid) not in holders}


def _sockets(pid: int) -> set[str]:
    found = set()
    try:
        for name in os.listdir(PROC / str(pid) / "fd"):
            found.add(os.readlink(PROC / str(pid) / "fd" / name))
    except OSError:  # another user's, or gone
        pass
    return found


def _descendants(pid: int) -> set[int]:
    parents = {child: _parent(child) for child in _pids()}
    found, wave = set(), {pid}
    while wave:
        wave = {child for child, parent in parents.items() if parent in wave}
        found |= wave
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir(PROC) if name.isdigit()]


def _stat(pid: int) -> list[str]:
    """Return the fields of stat after the command's name, from the state on."""
    return _read(PROC / str(pid) / "stat").rpartition(")")[2].split()


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    ticks = int(fields[11]) + int(fields[12]) if fields else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def _bytes(pid: int, file: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", _read(PROC / str(pid) / file), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:  # the process ended, or is another user's
        return ""
