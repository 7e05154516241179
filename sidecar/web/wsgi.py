"""What gunicorn calls in each worker: settings from the environment, services, application.

When ``application`` returns, the model is loaded and warm, so that no request pays for it, and the
threads that watch for a newer model and for changed products have started.
"""

from __future__ import annotations

import gc
import sys

from flask import Flask

from sidecar.serving import logs
from sidecar.settings import Settings
from sidecar.web.app import create_app
from sidecar.web.services import build
from sidecar.web.warm_up import warm_up

# How long a background thread (product changes, a new model) may hold the interpreter while a
# search waits for it; Python's 5 ms would be paid at each of a search's reads from a socket.
SWITCH_S = 0.0005
COLLECT_AFTER = 10_000  # new objects; Python's 700 are not one decoded history of a busy shopper


def application() -> Flask:
    """Return a worker's application; call after the fork."""
    sys.setswitchinterval(SWITCH_S)
    settings = Settings.from_environ()
    logs.configure(settings.log_level)
    services = build(settings)
    services.start()
    app = create_app(services)
    warm_up(services)
    _spare_collector()
    return app


def _spare_collector() -> None:
    """Take permanent objects out of the garbage collector's rounds.

    Libraries and compiled code are 430,000 objects; a full round over them holds the interpreter,
    and every search, for some 150 ms. A model is freed without the collector when the next has
    taken over, as nothing in it refers back to it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)
