"""Write the plugin's search pipeline to an OpenSearch that has the plugin, or remove it.

The pipeline has both processors, with the keys given here and the nodes' settings for all others.
--default-for makes it the default pipeline of an index, so that every search of the index is
personalised. Otherwise searches name it: ?search_pipeline=NAME. --remove undoes all of that, for
every index that has it as its default.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from opensearchpy import OpenSearch
from opensearchpy.exceptions import NotFoundError, OpenSearchException

from scripts._arguments import number, server_urls, whole
from scripts._program import exit_code
from sidecar.errors import LaunchError, SettingsError, SidecarError
from sidecar.settings import Settings
from sidecar.stores.administration import administration_client
from sidecar.stores.catalogue_versions import DEFAULT_PIPELINE

PROCESSOR = "personalize"
PLUGIN = "opensearch-personalize"
_SETTING = f"index.{DEFAULT_PIPELINE}"
MOST_WINDOW, MOST_TIMEOUT_MS = 10_000, 60_000  # that the plugin takes


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; the pipeline's name goes to stdout."""
    options = _parser().parse_args(argv)
    try:
        settings = Settings.from_environ()
        if options.opensearch:
            settings = dataclasses.replace(settings, opensearch_url=options.opensearch)
        with administration_client(settings) as client:
            _remove(client, options) if options.remove else _write(client, options)
    except SettingsError as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 2
    except (SidecarError, OpenSearchException, OSError) as error:
        print(f"pipeline: {error}", file=sys.stderr)
        return 1
    print(options.name)
    return 0


def _write(client: OpenSearch, options: argparse.Namespace) -> None:
    lacking = _nodes_without_plugin(client)
    if lacking:
        raise LaunchError(f"the plugin {PLUGIN} is not installed on {', '.join(lacking)}; install "
                          "it on every node and restart it (plugin/README.md)")
    client.transport.perform_request("PUT", _target(options.name), body=_pipeline(options))
    if options.default_for:
        _set_default(client, options.default_for, options.name)


def _pipeline(options: argparse.Namespace) -> dict[str, Any]:
    asks = {"window_size": options.window, "weight": options.weight,
            "item_id_field": options.item_id_field}
    answers = {"endpoint": options.endpoint, "timeout_ms": options.timeout_ms,
               "on_failure": options.on_failure, "item_id_field": options.item_id_field}
    return {"description": "hits in the order of whoever searches",
            "request_processors": [{PROCESSOR: _given(asks)}],
            "response_processors": [{PROCESSOR: _given(answers)}]}


def _given(keys: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if value is not None}


def _remove(client: OpenSearch, options: argparse.Namespace) -> None:
    for index in _indices_by_default(client, options.name):  # their searches would all fail
        _set_default(client, index, None)
    try:
        client.transport.perform_request("DELETE", _target(options.name))
    except NotFoundError:
        print(f"pipeline: there is no {options.name}, nothing to remove", file=sys.stderr)


def _nodes_without_plugin(client: OpenSearch) -> list[str]:
    nodes = client.nodes.info(metric="plugins")["nodes"].values()
    return sorted(node["name"] for node in nodes
                  if PLUGIN not in {plugin["name"] for plugin in node["plugins"]})


def _set_default(client: OpenSearch, index: str, name: str | None) -> None:
    client.indices.put_settings(index=index, body={_SETTING: name})


def _indices_by_default(client: OpenSearch, name: str) -> list[str]:
    found = client.indices.get_settings(index="*", name=_SETTING, flat_settings=True,
                                        expand_wildcards="all")
    return sorted(index for index, body in found.items() if body["settings"].get(_SETTING) == name)


def _target(name: str) -> str:
    return f"/_search/pipeline/{quote(name, safe='')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.pipeline", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="Credentials and certificates come from SIDECAR_OPENSEARCH_*, as the sidecar's do.")
    parser.add_argument("--opensearch", type=server_urls, metavar="URL",
                        help="a node (default: SIDECAR_OPENSEARCH_URL)")
    parser.add_argument("--name", default="personal", help="the pipeline (default: personal)")
    parser.add_argument("--default-for", metavar="INDEX")
    parser.add_argument("--endpoint", metavar="URL", help="the sidecar, as the nodes reach it")
    parser.add_argument("--window", type=whole(1, MOST_WINDOW), metavar="K")
    parser.add_argument("--weight", type=number(0.0, 1.0))
    parser.add_argument("--item-id-field", default="item_id", metavar="FIELD",
                        help="field with doc values that equals _id (default: item_id)")
    parser.add_argument("--timeout-ms", type=whole(1, MOST_TIMEOUT_MS), metavar="MS")
    parser.add_argument("--on-failure", choices=("keep_order", "fail"))
    parser.add_argument("--remove", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
