"""How the sidecar logs: a constant message with fields, one line each, to stderr.

``log.info("model in use", extra={"model": "v1"})`` becomes
``2026-01-31T12:00:00.123Z INFO sidecar.serving.models model in use model=v1``.
"""

from __future__ import annotations

import json
import logging
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class FieldFormatter(logging.Formatter):
    """Appends a record's extra attributes as ``name=value``, quoted where they need it."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line without its traceback."""
        fields = [f"{name}={_text(value)}" for name, value in vars(record).items()
                  if name not in _STANDARD]
        return " ".join([super().formatMessage(record), *fields])


def configure(level: str) -> None:
    """Send the package's log lines of at least ``level`` to stderr; safe to call again."""
    logger = logging.getLogger("sidecar")
    logger.setLevel(level)
    logger.propagate = False
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(FieldFormatter())
        logger.addHandler(handler)


def _text(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text and not set(text) & set(" \n\"=") else json.dumps(text, ensure_ascii=False)
