"""Which process has an id, and how is it ended? Its command line tells, and a signal ends it.

The system gives the id of an ended process to another one. So code that keeps an id in a file
checks the command line before it sends a signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


def send_signal(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process; one that has just ended needs none."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_until_gone(find: Callable[[], int | None], deadline: float) -> None:
    """Wait for a process that was told to end, and kill it at ``deadline``, an instant of
    ``time.monotonic``; ``find`` returns its id while it runs."""
    while (pid := find()) is not None:
        if time.monotonic() > deadline:
            send_signal(pid, signal.SIGKILL)
        time.sleep(0.1)


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
