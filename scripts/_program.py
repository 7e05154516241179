"""What all programs do alike: log to stderr, write figures that JSON can hold, and end with an exit
code or one line on why not."""

from __future__ import annotations

import logging
import math
import os
import select
import sys
from collections.abc import Callable
from typing import Any

INTERRUPTED = 130  # what a shell makes of SIGINT
NOT_READ = 141  # and of SIGPIPE


def log_to_stderr(level: int = logging.WARNING) -> None:
    """Write the log's lines of a level and above to stderr."""
    logging.basicConfig(level=level, format="%(levelname)s %(message)s")


def known(figures: Any) -> Any:
    """Return figures with null for those that nothing was counted for: JSON has no NaN."""
    if isinstance(figures, dict):
        return {name: known(value) for name, value in figures.items()}
    if isinstance(figures, list | tuple):
        return [known(value) for value in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def exit_code(main: Callable[[], int]) -> int:
    """Run a program; Ctrl-C ends it with one line, and a reader that has enough without any."""
    try:
        code = main()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _has_lost_its_reader():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the exit
        return NOT_READ
    return code


def _has_lost_its_reader() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
