"""When may the old workers leave at a reload? Once the new ones serve.

gunicorn's master sends the old workers SIGTERM right after it has forked the new ones. These then
take seconds to load a model. Meanwhile no worker would accept, and every search would wait. So the
master notes, in memory shared by all its workers, which ones are new. Each new worker notes there
when it is about to serve, and an old worker goes on until all new ones have. The handover ends at
once if a new worker dies, or has to leave itself because the sidecar stops. It also ends if the
master has to stop: the master waits in its reload until the old workers have gone, and could stop
only then.
"""

from __future__ import annotations

import mmap
import struct
import time

PATIENCE_S = 120.0  # a new worker that loads for longer may be stuck: leave the work to the others
_HEAD = struct.Struct("<qqd")  # the last old worker's age, new workers to come, until when to wait
_MARKS = 4096 - _HEAD.size


class Handover:
    """One page of memory that a master and its workers share; made before the first fork.

    A worker is known by its age: gunicorn numbers workers in the order of their forks, from 1.
    """

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 4096)

    def begin(self, last_age: int, count: int) -> None:
        """Note that ``count`` workers younger than ``last_age`` are to take over; by the master."""
        self._memory[_HEAD.size:] = bytes(_MARKS)
        self._memory[:_HEAD.size] = _HEAD.pack(last_age, min(count, _MARKS),
                                               time.monotonic() + PATIENCE_S)

    def arrive(self, age: int) -> None:
        """Note that a worker serves from now on."""
        last_age, _, _ = self._head()
        if age > last_age:
            self._memory[_HEAD.size + (age - last_age - 1) % _MARKS] = 1

    def leave(self, age: int) -> None:
        """Note that a worker ends: once a new one does, no worker waits for the new ones."""
        if age > self._head()[0]:
            self.end()

    def end(self) -> None:
        """Note that no worker is waited for any longer."""
        self._memory[:_HEAD.size] = _HEAD.pack(self._head()[0], 0, 0.0)

    def may_go(self, age: int) -> bool:
        """Return True if a worker that was told to leave need not wait for others to take over."""
        last_age, count, until = self._head()
        return (age > last_age or time.monotonic() > until
                or self._memory[_HEAD.size:].count(1) >= count)

    def _head(self) -> tuple[int, int, float]:
        head: tuple[int, int, float] = _HEAD.unpack(self._memory[:_HEAD.size])
        return head


handover = Handover()
