"""One of a worker's threads is left over when all others wait for OpenSearch."""

from __future__ import annotations

import pytest

from sidecar.web.turns import Turns, needs_turn


@pytest.mark.parametrize(("threads", "turns"), [(1, 1), (2, 1), (17, 16)])
def test_one_turn_fewer_than_threads(threads, turns):
    given = Turns(threads)
    assert [given.begin() for _ in range(turns + 1)] == [True] * turns + [False]
    given.end()
    assert given.begin()
    assert not given.begin()


@pytest.mark.parametrize(("target", "needed"), [
    (b"/_personalize/health/live", False), (b"/_personalize/health/live?x", False),
    (b"/metrics", False), (b"/_personalize/health/ready", True), (b"/i/_search", True),
    (b"/metrics/_search", True)])
def test_what_may_need_opensearch_needs_a_turn(target, needed):
    assert needs_turn(target) is needed
