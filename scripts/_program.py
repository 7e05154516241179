"""How a program ends: with what its ``main`` returns, or with a word where it was interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable

INTERRUPTED = 130  # what a shell makes of SIGINT


def exit_code(main: Callable[[], int]) -> int:
    """Run a program; Ctrl-C ends it with one line."""
    try:
        return main()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
