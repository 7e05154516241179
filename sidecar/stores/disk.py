"""Room on a disk, taken before it is needed."""

from __future__ import annotations

import os
import sys


def take_room(file: int, size: int) -> None:
    """Give an open file all its blocks, where the system can (Linux): a page of a mapped file that
    a full disk has no room for would end the process that writes there, by SIGBUS.

    Raises:
        OSError: there is no room.
    """
    if sys.platform == "linux":
        os.posix_fallocate(file, 0, size)
