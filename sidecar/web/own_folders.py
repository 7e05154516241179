"""Folders that live as long as a sidecar, in which its processes share an item table and counts.

Each holds a file that is locked while any process of the sidecar lives. If the master is killed and
cannot remove its folders, the next sidecar that starts removes them.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from sidecar.stores.disk import deserted

_HELD = "held"


def folder_until_exit(prefix: str) -> str:
    """Make a temporary folder that goes with this process, the master; return its path.

    Those of the same prefix whose sidecar was killed go now.

    Raises:
        OSError: the folder cannot be made.
    """
    _remove_deserted(prefix)
    folder, master = tempfile.mkdtemp(prefix=prefix), os.getpid()
    held = os.open(Path(folder, "held.new"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)  # until this process and all that it forked have ended
    Path(folder, "held.new").rename(Path(folder, _HELD))

    def remove() -> None:
        if os.getpid() == master:  # workers inherit this hook with the fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _remove_deserted(prefix: str) -> None:
    """Remove the folders that nobody holds: a million products take 384 MB each time."""
    for held in deserted(Path(tempfile.gettempdir()).glob(f"{prefix}*/{_HELD}")):
        shutil.rmtree(held.parent, ignore_errors=True)
