"""Starts, stops and inspects a local OpenSearch without Docker; reads Maven Central, writes --home.

Usage::

    python -m scripts.opensearch up --home DIR --port 9200 [--nodes 2] [--plugin ZIP]
    python -m scripts.opensearch status --home DIR
    python -m scripts.opensearch down --home DIR

``up`` prints one URL per node on stdout once the cluster answers. Data stays in the home between
``down`` and ``up``. If root calls, nodes run as an unprivileged user. They listen on the loopback
address only, without the security plugin: for development, tests and trying things out.
"""

from __future__ import annotations

import argparse
import errno
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts._arguments import port
from scripts._cluster import ClusterPlan, reachable_home
from scripts._distribution import LOCAL
from scripts._node import health, nodes_of, start, stop
from scripts._program import exit_code
from sidecar.errors import LaunchError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed (``status``: not running), 2 misused."""
    options = _parser().parse_args(argv)
    commands = {"up": _up, "down": _down, "status": _status}
    try:
        options.home = (options.home or reachable_home(LOCAL / "node")).absolute()
        return commands[options.command](options)
    except LaunchError as error:
        print(f"opensearch: {error}", file=sys.stderr)
    except OSError as error:
        full = "disk full: " if error.errno == errno.ENOSPC else ""
        print(f"opensearch: {full}{error}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.opensearch",
                                     description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start the nodes and wait until they answer; prints their URLs"),
                       ("down", "stop the nodes; the data stays"),
                       ("status", "print what runs, as JSON; exit code 1 if nothing does")):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--home", type=Path, metavar="DIR",
                             help="folder of the cluster's data, logs and configuration "
                                  "(default: .local/node)")
        if name == "up":
            _add_up_options(command)
    return parser


def _add_up_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--port", type=port, default=9200, metavar="N",
                         help="HTTP port of the first node (default: 9200); transport is 100 up")
    command.add_argument("--nodes", type=int, choices=range(1, 10), default=1, metavar="N",
                         help="number of nodes, on ports N, N+1, … (default: 1)")
    command.add_argument("--heap", default="1g", metavar="SIZE",
                         help="Java heap of each node (default: 1g)")
    command.add_argument("--plugin", type=Path, action="append", default=[], metavar="ZIP",
                         help="plugin to install; may be given several times")


def _up(options: argparse.Namespace) -> int:
    plan = ClusterPlan(home=options.home, port=options.port, nodes=options.nodes,
                       heap=options.heap,
                       plugins=tuple(path.absolute() for path in options.plugin))
    if not start(plan):
        print("already running", file=sys.stderr)
    print("\n".join(plan.urls))
    return 0


def _down(options: argparse.Namespace) -> int:
    stopped = stop(options.home)
    print(f"stopped {stopped} node{'' if stopped == 1 else 's'}", file=sys.stderr)
    return 0


def _status(options: argparse.Namespace) -> int:
    home = options.home
    plan = ClusterPlan.saved(home)
    running = {node.name: pid for node in nodes_of(home) if (pid := node.pid()) is not None}
    answer = health(plan.urls[0]) if plan and running else None
    print(json.dumps({"running": running, "urls": plan.urls if plan and running else [],
                      "health": answer["status"] if answer else None}))
    return 0 if running else 1


if __name__ == "__main__":
    sys.exit(exit_code(main))
