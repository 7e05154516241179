"""How does a process that the sidecar has started learn that the sidecar has ended?

By a pipe that only the master holds open: the other end closes, whatever ended the master. A
process id would not do, because another process may get it later.
"""

from __future__ import annotations

import os


class Lifeline:
    """One pipe; made by the master before the first fork."""

    def __init__(self) -> None:
        self.end, self._held = os.pipe()

    def let_go(self) -> None:
        """Close a forked worker's write end, so that only the master keeps the pipe open."""
        os.close(self._held)


lifeline = Lifeline()
