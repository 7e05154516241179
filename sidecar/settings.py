"""The settings table, and the only reader of the environment.

Each row is a dataclass field whose metadata holds its documentation. ``Settings.from_environ``
reads ``SIDECAR_<FIELD>`` and refuses values out of range, naming the variable and the remedy.
A test (``tests/unit/test_settings.py``) compares the README's table with this one.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.errors import SettingsError

PREFIX = "SIDECAR_"
MOST = 1e6  # of a fraction, seconds above all: eleven days; the system's waits take few more
LAST_PORT = 65_535
# What Kubernetes tells every pod beside a Service called "sidecar": NAME=VALUE.
OF_KUBERNETES = re.compile(
    PREFIX + r"(SERVICE_HOST=.*|SERVICE_PORT(_[A-Z0-9_]+)?=.*|PORT=(tcp|udp|sctp)://.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*)")
# Words for on and off, here and in the controls of a request.
SWITCH = {"on": True, "true": True, "1": True, "yes": True,
          "off": False, "false": False, "0": False, "no": False}

# What a text must look like, as a regular expression and in words.
LISTEN = (r"(unix:.+|fd://\d+|(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]*):\d{1,5})", "HOST:PORT or unix:PATH")
HEADER = (r"[ -~]*", "printable ASCII on one line")
NAME = (r"[^\s]+", "the name of an index or alias")
OWN_INDEX = (r"(?![-_+]|\.\.?$)[^A-Z\\/*?\"<>|\s,#:]+",
             "the name of one index or alias, as OpenSearch takes it: lower case, not a pattern")
ORIGINS = (r"\s*((\*|[A-Za-z][\w+.-]*://[^\s/,]+)\s*(,\s*|$))*",
           "* or SCHEME://HOST, comma-separated")


def _setting(default: Any, doc: str, *, low: float | None = None, high: float | None = None,
             choices: tuple[str, ...] = (), form: tuple[str, str] | None = None) -> Any:
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices, "form": form}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Settings:
    """How one sidecar behaves. Durations carry their unit in the name."""

    opensearch_url: str = _setting(
        "http://127.0.0.1:9200", "OpenSearch nodes, http[s]://HOST[:PORT][/PREFIX], "
        "comma-separated; the default port is 443 for https and 9200 for http")
    opensearch_authorization: str = _setting(
        "", "Authorization header (Basic BASE64 or Bearer TOKEN) for the sidecar's own reads and "
        "writes (state, events, products)",
        form=HEADER)
    opensearch_ca: str = _setting("", "PEM file with the CA that signed the nodes' certificates")
    opensearch_client_cert: str = _setting("", "PEM file with a client certificate and its key")
    opensearch_verify: bool = _setting(True, "verify the nodes' certificates")
    upstream_timeout_s: float = _setting(30.0, "longest wait for an answer to a search, or to the "
                                       "sidecar's own reads and writes", low=0.1)
    pass_timeout_s: float = _setting(
        600.0, "longest wait for an answer to any other request, such as a reindex or a wait for "
        "green", low=0.1)
    listen: str = _setting("127.0.0.1:8080", "address and port that gunicorn binds",
                           form=LISTEN)
    workers: int = _setting(0, "worker processes; 0: one per core, at most 8", low=0, high=256)
    threads: int = _setting(16, "threads per worker", low=1, high=256)
    model_dir: str = _setting(
        "", "model directory written by train; empty: pass everything through")
    device: str = _setting("auto", "where torch runs", choices=("auto", "cpu", "cuda"))
    scorer: str = _setting(
        "auto", "one process that runs the networks for all workers; auto: where there is a GPU",
        choices=("auto", "on", "off"))
    shared_dir: str = _setting(
        "", "folder in which the workers of one sidecar, and of no other, share the item table; "
        "empty: a temporary folder of the system, for as long as the sidecar runs")
    products_index: str = _setting("products", "index or alias of the catalogue", form=NAME)
    states_index: str = _setting("personalize-states", "index that keeps one document per user",
                                 form=OWN_INDEX)
    events_index: str = _setting("ubi_events", "index of raw events, in UBI's form",
                                 form=OWN_INDEX)
    queries_index: str = _setting("ubi_queries", "index of searches and the order that was shown",
                                  form=OWN_INDEX)
    item_id_field: str = _setting(
        "item_id", "keyword field equal to _id, from which ids are read without a fetch; empty: "
        "fetch the whole window at once")
    personalize: bool = _setting(True, "personalise a request that does not say on or off")
    window: int = _setting(100, "hits that are reordered, unless a request says otherwise",
                           low=1, high=10_000)
    max_window: int = _setting(1000, "largest window that a request may ask for", low=1,
                               high=10_000)
    weight: float = _setting(1.0, "strength of the personal part, unless a request says otherwise",
                             low=0.0, high=1.0)
    timeout_ms: float = _setting(
        50.0, "longest that ranking may take after the upstream's answer", low=0.0)
    history_events: int = _setting(500, "events kept per user", low=1, high=10_000)
    without_history: str = _setting(
        "engine", "order for users without history: the engine's or the unpersonalised model's",
        choices=("engine", "model"))
    rewrite_scores: bool = _setting(
        False, "put blended scores into _score and max_score, raised above the engine's scores "
        "behind the window")
    ubi: str = _setting(
        "forward", "ext.ubi of a search: forwarded to OpenSearch's UBI plugin, or taken by the "
        "sidecar, which then logs the search in the plugin's place", choices=("forward", "take"))
    passthrough: str = _setting(
        "read", "other requests let through: read-only ones, or all", choices=("read", "all"))
    admin_authorization: str = _setting(
        "", "Authorization header that callers of /_personalize/users and /_personalize/rescore "
        "must send, and callers who want to see events in explanations; empty: none is needed",
        form=HEADER)
    cors_origins: str = _setting(
        "", "origins whose pages may post events, comma-separated, or *; empty: none",
        form=ORIGINS)
    max_body_bytes: int = _setting(100 * 2**20, "largest request body", low=1024)
    max_searches: int = _setting(
        64, "searches that a worker personalises at once; any more pass through", low=1)
    max_requests: int = _setting(
        1024, "requests for OpenSearch that a worker serves at once; any more are answered 429",
        low=1)
    refresh_s: float = _setting(1.0, "seconds between two looks for changed products", low=0.1)
    log_level: str = _setting("INFO", "lowest level that is logged",
                              choices=("DEBUG", "INFO", "WARNING", "ERROR"))

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``SIDECAR_*``; unknown names under the prefix are errors, so that a typo shows.

        Those that Kubernetes makes for a Service called ``sidecar`` are passed over.

        Raises:
            SettingsError: naming the variable, its value and what it must be.
        """
        source = os.environ if environ is None else environ
        by_variable = {PREFIX + ALIASES.get(f.name, f.name).upper(): f
                       for f in dataclasses.fields(cls)}
        given = {name: text for name, text in source.items()
                 if name.startswith(PREFIX) and not OF_KUBERNETES.fullmatch(f"{name}={text}")}
        unknown = sorted(set(given) - set(by_variable))
        if unknown:
            raise SettingsError(f"{unknown[0]} is not a setting; see the README's settings table")
        values = {by_variable[name].name: _parse(name, text, by_variable[name])
                  for name, text in given.items()}
        return cls(**values)._checked()

    def _checked(self) -> Settings:
        """Return the settings if their port is one, and they agree with each other."""
        host, _, port = self.listen.rpartition(":")
        if port.isdecimal() and not host.startswith("unix") and int(port) > LAST_PORT:
            raise SettingsError(f"{variable('listen')} is {self.listen!r}, must have a port of at "
                                f"most {LAST_PORT}")
        own = ("states_index", "events_index", "queries_index")
        for place, name in enumerate(own):
            for other in own[:place]:
                if getattr(self, name) == getattr(self, other):
                    raise SettingsError(f"{variable(name)} is {getattr(self, name)!r}, must be "
                                        f"another index than {variable(other)}")
        return self


# Field names that would clash with a Python keyword bear another name than their variable.
ALIASES = {"passthrough": "pass"}


def variable(field_name: str) -> str:
    """Return the environment variable of a field, such as ``SIDECAR_WINDOW``."""
    return PREFIX + ALIASES.get(field_name, field_name).upper()


def _parse(name: str, text: str, field: dataclasses.Field[Any]) -> Any:
    kind: Any = type(field.default)
    meta = field.metadata
    try:
        value = SWITCH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        wanted = "true or false" if kind is bool else f"of type {kind.__name__}"
        raise SettingsError(f"{name} is {text!r}, must be {wanted}") from None
    if meta["choices"] and value not in meta["choices"]:
        raise SettingsError(f"{name} is {text!r}, must be one of {', '.join(meta['choices'])}")
    if meta["form"] and not re.fullmatch(meta["form"][0], text):
        shown = "wrong" if meta["form"] is HEADER else repr(text)  # it may hold a password
        raise SettingsError(f"{name} is {shown}, must be {meta['form'][1]}")
    low, high = meta["low"], meta["high"]
    if kind is float and value > MOST and high is None:
        raise SettingsError(f"{name} is {text}, must be {low}-{MOST:.0f}")
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"{low}-{high}" if high is not None else f"at least {low}"
        raise SettingsError(f"{name} is {text}, must be {bounds}")
    return value
