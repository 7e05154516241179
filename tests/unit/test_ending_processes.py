"""Processes that a launcher ends: they are waited for, and killed where they do not go."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from scripts._processes import command_line, send_signal, wait_until_gone

DEAF = ("import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print(flush=True); time.sleep(60)")


def test_signal_to_a_process_that_has_ended_is_nothing():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    send_signal(ended.pid, signal.SIGTERM)
    assert command_line(ended.pid) == ""


def test_process_that_does_not_heed_is_killed_at_the_deadline():
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        send_signal(deaf.pid, signal.SIGTERM)
        assert "signal.SIG_IGN" in command_line(deaf.pid)
        wait_until_gone(lambda: deaf.pid if deaf.poll() is None else None, time.monotonic() + 0.3)
    assert deaf.returncode == -signal.SIGKILL
