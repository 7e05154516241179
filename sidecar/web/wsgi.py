"""What gunicorn calls in each worker: settings from the environment, services, application.

``application`` returns with the model loaded and warm, so that no request pays for it, and with
the threads started that watch for a newer model and for changed products.
"""

from __future__ import annotations

import sys

from flask import Flask

from sidecar.serving import logs
from sidecar.settings import Settings
from sidecar.web.app import create_app
from sidecar.web.services import build

# How long a background thread (product changes, a new model) may hold the interpreter while a
# search waits for it; Python's 5 ms would be paid at each of a search's reads from a socket.
SWITCH_S = 0.0005


def application() -> Flask:
    """Return a worker's application; call after the fork."""
    sys.setswitchinterval(SWITCH_S)
    settings = Settings.from_environ()
    logs.configure(settings.log_level)
    services = build(settings)
    services.start()
    return create_app(services)
