"""Serves the sidecar under gunicorn; reads the settings and a model directory, writes logs.

Usage::

    python -m scripts.serve --opensearch http://127.0.0.1:9200 --model models/shop

Every option stands for the environment variable that its help names, and wins over it. Settings
without an option are given by their variable (see the README's settings table). gunicorn replaces
the program: SIGTERM ends it once the requests under way are answered, and SIGHUP replaces the
workers without refusing a connection.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence

from sidecar.errors import SettingsError
from sidecar.settings import Settings, variable
from sidecar.stores.upstream import Upstream

# Option, field of the settings, placeholder, help.
OPTIONS = (
    ("--opensearch", "opensearch_url", "URL", "OpenSearch nodes, comma-separated"),
    ("--model", "model_dir", "DIR", "model directory written by scripts.train"),
    ("--listen", "listen", "HOST:PORT", "address to serve at"),
    ("--workers", "workers", "N", "worker processes; 0: one a core, at most 8"),
    ("--threads", "threads", "N", "threads a worker"),
    ("--products-index", "products_index", "ALIAS", "index or alias of the catalogue"),
    ("--device", "device", "DEVICE", "where torch runs: auto, cpu or cuda"),
    ("--log-level", "log_level", "LEVEL", "DEBUG, INFO, WARNING or ERROR"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Become gunicorn; returns only if the settings are not right (2)."""
    options = _parser().parse_args(argv)
    environ = dict(os.environ) | {
        variable(field): value for _, field, _, _ in OPTIONS
        if (value := getattr(options, field)) is not None}
    try:
        settings = Settings.from_environ(environ)
        _check(settings)
    except SettingsError as error:
        print(f"serve: {error}", file=sys.stderr)
        return 2
    print(f"sidecar listens on {settings.listen}, in front of {settings.opensearch_url}",
          file=sys.stderr, flush=True)
    return _become_gunicorn(environ)


def _check(settings: Settings) -> None:
    """Look at what workers would find wrong one after the other, with a traceback each.

    Raises:
        SettingsError: an URL, a certificate or a folder that cannot be used.
    """
    Upstream(settings).close()
    folder = settings.shared_dir
    if folder and not (os.path.isdir(folder) and os.access(folder, os.W_OK)):
        raise SettingsError(f"{variable('shared_dir')} is {folder!r}, must be a folder that may be "
                            "written to")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.serve",
                                     description=(__doc__ or "").splitlines()[0])
    for option, field, placeholder, text in OPTIONS:
        parser.add_argument(option, dest=field, metavar=placeholder,
                            help=f"{text} ({variable(field)})")
    return parser


def _become_gunicorn(environ: Mapping[str, str]) -> int:
    command = [sys.executable, "-m", "gunicorn", "--config", "python:sidecar.web.gunicorn_conf"]
    os.execve(sys.executable, command, environ)


if __name__ == "__main__":
    sys.exit(main())
