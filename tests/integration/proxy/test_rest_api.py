"""OpenSearch's own REST API tests: what passes on a node passes through the sidecar, too.

Every request goes out for a user with a history, and every search that can be personalised is
taken apart, ranked and written anew, by a model that keeps the engine's order. A test that fails
through the sidecar is run on the node itself: the node is newer than the last tests that were
published, and one of its own making fails some of them.

``TEST_REST_API=all`` runs all of them; else some of each folder about documents and searches.
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from scripts._cluster import TRANSPORT_OFFSET
from scripts._distribution import DEPENDENCY_PLUGIN, OPENSEARCH_VERSION
from scripts._jdk import find_jdk
from scripts._machine import find_free_port

ROOT = Path(__file__).resolve().parents[3]
ARTIFACT = "org.opensearch:rest-api-spec:3.1.0"  # the newest that Maven Central has
USER = {"X-Personalize-User": "u1"}
OF_SEARCHES = (
    "search", "search.highlight", "search.inner_hits", "search_pipeline", "search_shards",
    "msearch", "scroll", "pit", "count", "explain", "suggest", "field_caps", "range", "mlt",
    "indices.validate_query", "termvectors", "mtermvectors", "scripts")
OF_DOCUMENTS = ("bulk", "create", "delete", "exists", "get", "get_source", "index", "mget",
                "update")
OF_THE_NODE = ("cat.aliases", "cat.count", "cat.indices", "info", "ping", "indices.analyze")
OTHERS = (
    "cat.allocation", "cat.cluster_manager", "cat.fielddata", "cat.health", "cat.nodeattrs",
    "cat.nodes", "cat.plugins", "cat.recovery", "cat.repositories", "cat.segments", "cat.shards",
    "cat.snapshots", "cat.tasks", "cat.templates", "cat.thread_pool",
    "cluster.allocation_explain", "cluster.component_template", "cluster.health",
    "cluster.pending_tasks", "cluster.put_settings", "cluster.remote_info", "cluster.reroute",
    "cluster.state", "cluster.stats", "cluster.voting_config_exclusions", "indices.blocks",
    "indices.clear_cache", "indices.clone", "indices.create", "indices.delete",
    "indices.delete_alias", "indices.delete_index_template", "indices.exists",
    "indices.exists_alias", "indices.exists_template", "indices.flush", "indices.forcemerge",
    "indices.get", "indices.get_alias", "indices.get_field_mapping", "indices.get_index_template",
    "indices.get_mapping", "indices.get_settings", "indices.get_template", "indices.open",
    "indices.put_alias", "indices.put_index_template", "indices.put_mapping",
    "indices.put_settings", "indices.put_template", "indices.recovery", "indices.refresh",
    "indices.resolve_index", "indices.rollover", "indices.segments", "indices.shard_stores",
    "indices.shrink", "indices.simulate_index_template", "indices.simulate_template",
    "indices.sort", "indices.split", "indices.stats", "indices.update_aliases", "indices.upgrade",
    "ingest", "nodes.info", "nodes.reload_secure_settings", "nodes.stats", "search.aggregation",
    "search.backpressure", "snapshot.clone", "snapshot.create", "snapshot.get",
    "snapshot.get_repository", "snapshot.restore", "snapshot.status", "tasks.cancel", "tasks.get",
    "tasks.list", "wlm_stats")
IS_COMPLETE = os.environ.get("TEST_REST_API") == "all"
FOLDERS = (*OF_SEARCHES, *OF_DOCUMENTS, *OF_THE_NODE, *(OTHERS if IS_COMPLETE else ()))
MOST = 8  # tests of a folder that are run each time, spread over it


def load_suite() -> ModuleType:
    """Import the runner, which lies beside this file."""
    spec = importlib.util.spec_from_file_location("rest_suite", Path(__file__).with_name(
        "rest_suite.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rest_suite"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


rest_suite = load_suite()


@dataclass
class Place:
    """A node that may be emptied, the sidecar in front of it, and the tests."""

    node: str
    sidecar: str
    suite: Any

    def outcome(self, url: str, test: Any, headers: dict[str, str]) -> tuple[str, list[Any]]:
        """Run one test and empty the node; return ``passed``, ``unsupported …`` or what failed,
        and the answers on the way."""
        runner = rest_suite.Runner(url, self.suite, VERSION, headers)
        try:
            runner.run(test)
            said = "passed"
        except rest_suite.Unsupported as reason:
            said = f"unsupported: {reason}"
        except rest_suite.Failed as failure:
            said = f"failed: {failure}"
        finally:
            rest_suite.wipe(self.node)
        return said, runner.seen


VERSION = tuple(int(part) for part in OPENSEARCH_VERSION.split("."))


@pytest.fixture(scope="module")
def suite() -> Any:
    folder = ROOT / ".local" / "rest-api-spec"
    [_, name, version] = ARTIFACT.split(":")
    jar = folder / f"{name}-{version}.jar"
    if not jar.exists():
        mvn = shutil.which("mvn")
        assert mvn, "mvn is not on the PATH; install Maven, OpenSearch's tests come with it"
        subprocess.run(
            [mvn, "--batch-mode", "--quiet", "--strict-checksums", f"{DEPENDENCY_PLUGIN}:copy",
             f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"], check=True,
            env=os.environ | {"JAVA_HOME": str(find_jdk().home)}, stdin=subprocess.DEVNULL)
    return rest_suite.Suite.read(jar)


@pytest.fixture(scope="module")
def place(launcher: Callable[..., Any], sidecar_over: Callable[..., Any], suite: Any,
          ) -> Iterator[Place]:
    """Start a node of its own: every test empties it."""
    home = Path(tempfile.mkdtemp(prefix="opensearch-test-"))
    port = find_free_port(companions=(1, TRANSPORT_OFFSET, TRANSPORT_OFFSET + 1))
    try:
        started = launcher("up", "--home", home, "--port", str(port), "--heap", "512m")
        assert started.returncode == 0, started.stderr
        node = started.stdout.strip()
        with sidecar_over(node, app="orderly_app", timeout_ms=5000) as url:
            yield Place(node, url, suite)
    finally:
        launcher("down", "--home", home)
        shutil.rmtree(home)


def test_every_folder_of_the_tests_is_named(suite):
    folders = {test.file.partition("/")[0] for test in suite.tests}
    assert folders == {*OF_SEARCHES, *OF_DOCUMENTS, *OF_THE_NODE, *OTHERS}


@pytest.mark.timeout(3600 if IS_COMPLETE else 300)
@pytest.mark.parametrize("folder", FOLDERS)
def test_what_passes_on_the_node_passes_through_the_sidecar(place, folder, record_property):
    tests = [test for test in place.suite.tests if test.file.startswith(f"{folder}/")]
    tests = tests if IS_COMPLETE else tests[::math.ceil(len(tests) / MOST)]
    different, counts = [], Counter()
    for test in tests:
        through, answers = place.outcome(place.sidecar, test, USER)
        counts["applied"] += sum(answer.headers["X-Personalize-Status"] == "applied"
                                 for answer in answers)
        kind = through.partition(":")[0]
        if kind == "failed":
            direct, _ = place.outcome(place.node, test, {})
            if direct == "passed":
                different.append(f"{test}: {through}")
                kind = "different"
        counts[kind] += 1
    for name, count in counts.items():
        record_property(name, count)
    assert not different, "\n".join(different)
    assert counts["passed"] > 0 or IS_COMPLETE
    if folder in ("search", "search.highlight", "search.inner_hits"):
        assert counts["applied"] > 0
