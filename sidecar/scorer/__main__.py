"""Owns a device for the workers of one sidecar; reads a model directory, answers on a socket.

Started by a worker (``client``), never by hand::

    python -m sidecar.scorer --model DIR --device cuda --socket PATH --owner PID --lifeline FD

It ends when the other end of the pipe FD is closed, because gunicorn's master, which holds it, has
ended. PID is the master's, shown so that a list of processes says whose scorer this is.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from sidecar.errors import ModelError
from sidecar.scorer.server import Models, Server
from sidecar.serving import logs
from sidecar.stores.models import pick_device


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the owner has ended; 0 then, 1 without a model, a device or a socket."""
    options = _parser().parse_args(argv)
    logs.configure(options.log_level)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the master's to handle
    torch.set_num_threads(1)
    try:
        models = Models(options.model, pick_device(options.device))
        models.read()
        with _listening(options.socket) as listener:
            Server(listener, models, lambda: _is_held(options.lifeline)).run()
    except (ModelError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _listening(path: Path) -> socket.socket:
    """Return a socket at ``path``, which appears there only when it answers.

    The starter holds the lock that makes this process the only one, so what lies there is stale.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    listener.bind(str(fresh))
    fresh.chmod(0o600)
    listener.listen(1024)
    fresh.replace(path)
    return listener


def _is_held(lifeline: int) -> bool:
    """Return whether any process holds the other end of a pipe that is never written to."""
    look = select.poll()
    look.register(lifeline, select.POLLIN)
    return not look.poll(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sidecar.scorer",
                                     description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--socket", type=Path, required=True, metavar="PATH")
    add("--owner", type=int, required=True, metavar="PID")
    add("--lifeline", type=int, required=True, metavar="FD")
    add("--log-level", default="INFO")
    return parser


if __name__ == "__main__":
    sys.exit(main())
