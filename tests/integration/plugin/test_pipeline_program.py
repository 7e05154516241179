"""``scripts.pipeline`` sets the plugin's pipeline up, and takes it away again."""

from __future__ import annotations

import uuid

import pytest

from scripts import pipeline
from tests.http_answers import ask

MILK = {"query": {"match": {"title": "milk"}}, "size": 5}
FOR_USER = {**MILK, "ext": {"personalize": {"user_id": "u1"}}}


@pytest.fixture
def name() -> str:
    return f"program-{uuid.uuid4().hex[:6]}"


def test_one_command_sets_the_pipeline_up_and_another_takes_it_away(one_node, name, capsys):
    node = one_node.nodes[0]
    asked = ["--opensearch", node, "--name", name]
    assert pipeline.main([*asked, "--endpoint", one_node.sidecar, "--timeout-ms", "5000",
                          "--window", "50"]) == 0
    assert capsys.readouterr().out == f"{name}\n"
    plain = ask(node, "POST", "/one/_search", MILK)
    personal = ask(node, "POST", f"/one/_search?search_pipeline={name}", FOR_USER)
    assert personal.told["applied"] is True
    assert personal.ids != plain.ids
    assert pipeline.main([*asked, "--remove"]) == 0
    gone = ask(node, "POST", f"/one/_search?search_pipeline={name}", FOR_USER)
    assert gone.status == 400
    assert pipeline.main([*asked, "--remove"]) == 0
    assert "nothing to remove" in capsys.readouterr().err


def test_pipeline_can_be_an_indexs_default_until_it_is_removed(one_node, name):
    """Without its default pipeline every search of the index would fail."""
    node = one_node.nodes[0]
    asked = ["--opensearch", node, "--name", name]
    assert pipeline.main([*asked, "--default-for", "narrow", "--endpoint", one_node.sidecar,
                          "--timeout-ms", "5000"]) == 0
    try:
        assert ask(node, "POST", "/narrow/_search", FOR_USER).told["applied"] is True
    finally:
        assert pipeline.main([*asked, "--remove"]) == 0
    assert "ext" not in ask(node, "POST", "/narrow/_search", MILK).json


def test_removal_leaves_the_default_that_another_pipeline_is(one_node, name):
    node, other = one_node.nodes[0], f"{name}-other"
    asked = ["--opensearch", node, "--default-for", "narrow"]
    assert pipeline.main([*asked, "--name", name]) == 0
    assert pipeline.main([*asked, "--name", other]) == 0
    try:
        assert pipeline.main([*asked, "--name", name, "--remove"]) == 0
        assert ask(node, "POST", "/narrow/_search", FOR_USER).told is not None
    finally:
        assert pipeline.main(["--opensearch", node, "--name", other, "--remove"]) == 0


def test_node_without_the_plugin_is_named(opensearch, capsys):
    assert pipeline.main(["--opensearch", opensearch]) == 1
    said = capsys.readouterr().err
    assert "opensearch-personalize is not installed on node-1" in said


def test_configuration_that_the_plugin_refuses_is_told(one_node, name, capsys):
    assert pipeline.main(["--opensearch", one_node.nodes[0], "--name", name,
                          "--endpoint", "ftp://x"]) == 1
    assert "endpoint" in capsys.readouterr().err


def test_opensearch_that_is_not_there_exits_with_one_line(capsys):
    assert pipeline.main(["--opensearch", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.startswith("pipeline: ")
