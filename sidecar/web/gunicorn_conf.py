"""gunicorn's configuration, from the settings.

Nothing is loaded before the fork: torch's threads and OpenSearch's connections do not survive one
(gunicorn issue 2478, pytorch issues 49555 and 68861). Each worker loads and warms its model before
it accepts its first connection; until then the kernel holds what arrives.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import Any

# One intra-op thread: the matrices are small, and workers share the cores anyway. numpy reads
# these when it is imported, which the settings do.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from sidecar.settings import Settings  # noqa: E402 (see above)

_settings = Settings.from_environ()

wsgi_app = "sidecar.web.wsgi:application()"
bind = _settings.listen
workers = _settings.workers or min(os.cpu_count() or 1, 8)
worker_class = "sidecar.web.worker.Worker"
threads = _settings.threads
worker_connections = 1000 + threads
preload_app = False
timeout = 300  # covers a worker's start on a busy machine; a request is bounded by its deadlines
graceful_timeout = 30
keepalive = 75  # longer than the usual load balancer's 60 s, so that it is the one to close
limit_request_line = 0  # OpenSearch bounds it; a source parameter may be long
limit_request_field_size = 65_536
control_socket_disable = True
accesslog = None
loglevel = _settings.log_level.lower()



def _share_metrics() -> None:
    """Give the workers a folder to add their counts up in; it goes when the master does."""
    folder, master = tempfile.mkdtemp(prefix="personalize-metrics-"), os.getpid()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder

    def remove() -> None:
        if os.getpid() == master:  # workers inherit this hook with the fork
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)


if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    _share_metrics()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 (gunicorn's signature)
    """Write what waits for the logs, and close connections, when a worker has answered all."""
    services = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("personalize")
    if services is not None:
        services.close()


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 (gunicorn's signature)
    """Take an ended worker's gauges out of the metrics."""
    from sidecar.serving.telemetry import forget_process

    forget_process(worker.pid)
