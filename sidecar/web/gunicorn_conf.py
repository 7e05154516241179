"""gunicorn's configuration, from the settings.

No model is loaded before the fork: torch's threads and OpenSearch's connections do not survive one
(gunicorn issue 2478, pytorch issues 49555 and 68861). Each worker loads and warms its model before
it accepts its first connection; until then the kernel holds what arrives.

The hooks below rely on two things inside gunicorn's master: ``worker_age`` is the ``age`` of the
worker that was forked last, and ``signal`` is its own handler, which queues the signal
(``worker.py`` says the same of the worker).
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import resource
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

# One intra-op thread: the matrices are small, and workers share the cores anyway. numpy reads
# these when it is imported, which the settings do.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from sidecar.settings import Settings, variable  # noqa: E402 (see above)
from sidecar.stores.disk import take_room  # noqa: E402
from sidecar.web.handover import handover  # noqa: E402
from sidecar.web.lifeline import lifeline  # noqa: E402
from sidecar.web.own_folders import folder_until_exit  # noqa: E402

_settings = Settings.from_environ()

MOST_FILES = 16_384  # asked for; a worker's connections take up to half of them


def _raise_file_limit() -> int:
    """Let a process have as many open files as it may, and return their number; systemd gives 1,024
    to who does not ask, which clients' connections alone exceed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # macOS tells of no limit, and has one
        return soft
    return most


wsgi_app = "sidecar.web.wsgi:application()"
bind = _settings.listen
workers = _settings.workers or min(os.cpu_count() or 1, 8)
worker_class = "sidecar.web.worker.Worker"
threads = _settings.threads + 1  # which answers while all the others wait for OpenSearch
worker_connections = min(1000, _raise_file_limit() // 2) + threads
preload_app = False
timeout = 300  # covers a worker's start on a busy machine; a request is bounded by its deadlines
graceful_timeout = 30
keepalive = 75  # longer than the usual load balancer's 60 s, so that it is the one to close
limit_request_line = 0  # OpenSearch bounds it; a source parameter may be long
limit_request_field_size = 65_536
control_socket_disable = True
accesslog = None
loglevel = _settings.log_level.lower()

_METRICS = "PROMETHEUS_MULTIPROC_DIR"  # where the workers' counts are added up
_METRICS_BYTES = 2**20  # room for a worker's

if _METRICS not in os.environ:
    os.environ[_METRICS] = folder_until_exit("personalize-metrics-")
if not _settings.shared_dir:
    os.environ[variable("shared_dir")] = folder_until_exit("personalize-items-")


def on_starting(server: Any) -> None:  # noqa: ARG001 (gunicorn's signature)
    """Import the large libraries once for all workers.

    Their data takes some 300 MB, which forked workers share, and seconds to read. Nothing of them
    is used before the fork: no thread is started and no device touched. The workers import the
    sidecar's own code, so that a reload brings in what has changed.
    """
    model = Path(_settings.model_dir, "model.json")
    if _settings.model_dir and model.is_file() and b'"format"' in model.read_bytes()[:100]:
        for name in ("numpy", "scipy.sparse.linalg", "torch", "numba"):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a worker would touch, and so copy, the pages that are shared


def when_ready(server: Any) -> None:
    """Let a stop end a reload; workers, which inherit these handlers, have their own at once."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, partial(_stop, server))


def _stop(server: Any, number: int, frame: Any) -> None:
    handover.end()
    server.signal(number, frame)


def post_fork(server: Any, worker: Any) -> None:
    """Leave the lifeline to the master; let a worker count by itself where the disk is full.

    prometheus_client maps files with holes. If there is no room for a page, SIGBUS ends the worker,
    and the next, and so on.
    """
    lifeline.let_go()
    try:
        with tempfile.TemporaryFile(dir=os.environ[_METRICS]) as probe:
            take_room(probe.fileno(), _METRICS_BYTES)
    except OSError as error:
        server.log.warning("Worker (pid:%s) has metrics of its own: %s", worker.pid, error)
        del os.environ[_METRICS]


def on_reload(server: Any) -> None:
    """Let the workers that are there serve until those that are forked next do."""
    handover.begin(server.worker_age, server.cfg.workers)


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 (gunicorn's signature)
    """Write what waits for the logs, and close connections, when a worker has answered all.

    The process then ends at once. Taking torch and numba apart first, as the interpreter would,
    takes seconds of a core, which during a reload the new workers need.
    """
    if worker.pid != os.getpid():  # the master, which found the worker gone
        return
    ending = sys.exception()
    services = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("personalize")
    if services is not None:
        services.close()
    if isinstance(ending, SystemExit) and isinstance(ending.code, int):
        logging.shutdown()
        os._exit(ending.code)


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 (gunicorn's signature)
    """Take an ended worker's gauges out of the metrics; the handover no longer waits for it."""
    handover.leave(worker.age)
    # What prometheus_client's mark_process_dead does. Its import chooses, for the workers forked
    # from here on too, that counts lie in files: one without room for a file would not start.
    for gauges in Path(os.environ[_METRICS]).glob(f"gauge_live*_{worker.pid}.db"):
        gauges.unlink(missing_ok=True)
