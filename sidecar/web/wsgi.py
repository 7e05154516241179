"""What gunicorn calls in each worker: settings from the environment, services, application.

``application`` returns with the model loaded and warm, so that no request pays for it, and with
the threads started that watch for a newer model and for changed products.
"""

from __future__ import annotations

from flask import Flask

from sidecar.serving import logs
from sidecar.settings import Settings
from sidecar.web.app import create_app
from sidecar.web.services import build


def application() -> Flask:
    """Return a worker's application; call after the fork."""
    settings = Settings.from_environ()
    logs.configure(settings.log_level)
    services = build(settings)
    services.start()
    return create_app(services)
