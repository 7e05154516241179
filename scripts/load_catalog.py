"""Read a catalogue file and write it to OpenSearch as a new index version behind an alias.

FILE is JSON lines (optionally .gz), Parquet or CSV. Each row is validated. Refused rows go, with
line number and reason, to FILE.refused.jsonl (in the working directory if FILE's is not writable).
The alias moves to the new version once every row is there. If the alias already serves a version
and too large a share of the rows was refused, the alias stays and the load fails. A load that was
killed goes on where it was; loading the same file again changes nothing. The indices of states,
events and queries are made first if they are absent.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opensearchpy import OpenSearch
from opensearchpy.exceptions import (
    AuthenticationException,
    AuthorizationException,
    ConnectionError,
    OpenSearchException,
)
from tqdm import tqdm

from scripts._arguments import number, server_urls
from scripts._program import exit_code
from sidecar.errors import SettingsError, SidecarError, UpstreamUnavailable
from sidecar.settings import OWN_INDEX, Settings, variable
from sidecar.stores.administration import administration_client, create_indices
from sidecar.stores.catalogue_loader import MOST_REFUSED, CatalogueLoader, Loaded
from sidecar.stores.catalogue_survey import EncodesItems
from sidecar.stores.files import RefusedRows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; progress goes to stderr, the index's name to stdout."""
    options = _parser().parse_args(argv)
    told = logging.StreamHandler()
    told.setFormatter(WithReason())
    logging.basicConfig(level=logging.WARNING, handlers=[told])
    logging.getLogger("opensearch").setLevel(logging.ERROR)  # retries are told by the loader
    try:
        settings = Settings.from_environ()
        if options.opensearch:
            settings = dataclasses.replace(settings, opensearch_url=options.opensearch)
        if options.index is not None:
            settings = dataclasses.replace(settings, products_index=options.index)
        _check_alias(settings.products_index)
        loaded = _load(settings, options.catalogue, options.model, options.most_refused)
    except SettingsError as error:
        print(f"load_catalog: {error}", file=sys.stderr)
        return 2
    except (AuthenticationException, AuthorizationException) as error:
        print(f"load_catalog: opensearch answered {error.status_code}: {error.error}; set "
              f"{variable('opensearch_authorization')} to credentials that may make indices and "
              "aliases", file=sys.stderr)
        return 1
    except (SidecarError, OpenSearchException, OSError) as error:
        print(f"load_catalog: {error}", file=sys.stderr)
        return 1
    print(loaded.index)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.load_catalog", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Credentials and certificates come from SIDECAR_OPENSEARCH_*, as the sidecar's do.")
    parser.add_argument("--opensearch", type=server_urls, metavar="URL",
                        help="nodes, comma-separated (default: SIDECAR_OPENSEARCH_URL)")
    parser.add_argument("--index", metavar="ALIAS",
                        help="alias of the catalogue (default: SIDECAR_PRODUCTS_INDEX)")
    parser.add_argument("--catalogue", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", type=Path, metavar="DIR",
                        help="check that the model knows the items, and store its item vectors")
    parser.add_argument("--most-refused", type=number(0.0, 1.0), default=MOST_REFUSED,
                        metavar="SHARE",
                        help="share of the rows, 0 to 1, that may be refused where the alias "
                             "serves a version; with more the load fails and the alias stays "
                             "(default: %(default)s)")
    return parser


class WithReason(logging.Formatter):
    """A line a message, with the field that says why."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, and the reason if there is one."""
        return ": ".join(filter(None, (super().format(record), getattr(record, "reason", ""))))


def _check_alias(name: str) -> None:
    form, words = OWN_INDEX
    if not re.fullmatch(form, name):
        raise SettingsError(f"the catalogue's alias is {name!r}, must be {words}; set --index or "
                            f"{variable('products_index')}")


def _load(settings: Settings, catalogue: Path, model: Path | None,
          most_refused: float) -> Loaded:
    client = administration_client(settings)
    _check_reachable(client, settings)
    encoder = _encoder(model) if model else None
    for name in create_indices(client, settings):
        _say(f"made index {name}")
    with RefusedRows(_refused_path(catalogue)) as refused, Bars() as bars:
        loader = CatalogueLoader(client, settings.products_index, catalogue, refused, encoder,
                                 most_refused=most_refused)
        loaded = loader.load(bars.show)
    _tell(loaded, refused, settings, encoder)
    return loaded


def _check_reachable(client: OpenSearch, settings: Settings) -> None:
    """Fail at once on a wrong address; later on, a node that goes away is waited for."""
    try:
        client.info()
    except ConnectionError as error:
        raise UpstreamUnavailable(f"opensearch does not answer at {settings.opensearch_url}; is it "
                                  f"running? {error}") from error


def _encoder(model: Path) -> EncodesItems:
    # Only when needed: torch takes seconds to load.
    from sidecar.stores.item_encoder import ItemEncoder

    return ItemEncoder(model)


def _refused_path(catalogue: Path) -> Path:
    folder = catalogue.parent if os.access(catalogue.parent, os.W_OK) else Path()
    return folder / (catalogue.name + ".refused.jsonl")


class Bars:
    """One progress bar a stage, on stderr."""

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None
        self._stage = ""

    def show(self, stage: str, done: int, total: int) -> None:
        """Draw a stage's progress; a new stage ends the one before."""
        if self._bar is None or stage != self._stage:
            self.__exit__()
            self._stage = stage
            self._bar = tqdm(desc=stage, total=total, unit=" items", smoothing=0)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _tell(loaded: Loaded, refused: RefusedRows, settings: Settings,
          encoder: EncodesItems | None) -> None:
    if loaded.resumed_after_line:
        _say(f"resumed after line {loaded.resumed_after_line}")
    if loaded.refused:
        _say(f"{loaded.refused} rows were refused; see {refused.path}")
    if loaded.other_columns:
        _say(f"columns kept beyond the documented ones: {', '.join(loaded.other_columns)}")
    if encoder is not None and loaded.is_new:
        _say(f"model {encoder.version} knows {loaded.known_to_model} of {loaded.items} items")
    done = "now serves" if loaded.is_new else "already served"
    _say(f"{settings.products_index} {done} {loaded.items} items from {loaded.index}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(exit_code(main))
