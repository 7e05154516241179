"""Swapping the ranker in use: whole or not at all, and never in a request's way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sidecar.errors import ModelError
from sidecar.serving import models
from sidecar.serving.models import ModelLoader, ModelSource
from sidecar.serving.telemetry import Telemetry


class Ranker:
    """Knows its version and whether it is warm."""

    items: tuple[str, ...] = ()

    def __init__(self, version: str) -> None:
        self.version = version
        self.is_warm = False

    def warm_up(self) -> None:
        self.is_warm = True


class Directory:
    """A model directory: ``version`` is what it holds, ``error`` what loading it raises."""

    def __init__(self, version: str = "v1") -> None:
        self.version = version
        self.error: Exception | None = None
        self.loads = 0

    def load(self, path: Path) -> Ranker:
        self.loads += 1
        if self.error is not None:
            raise self.error
        return Ranker(self.version)

    def source(self) -> ModelSource:
        return ModelSource("model", ModelLoader(self.load, lambda path: self.version), Telemetry())


def test_first_check_loads_and_warms():
    source = Directory().source()
    assert source() is None
    assert not source.is_ready
    assert source.check()
    assert source().is_warm
    assert source.is_ready


def test_without_a_configured_model_all_is_ready_and_nothing_loaded():
    directory = Directory()
    source = ModelSource("", ModelLoader(directory.load, lambda path: "v1"), Telemetry())
    assert not source.check()
    assert source.is_ready
    assert directory.loads == 0


def test_unchanged_directory_is_loaded_once():
    directory = Directory()
    source = directory.source()
    assert [source.check() for _ in range(3)] == [True, False, False]
    assert directory.loads == 1


def test_new_model_is_ready_before_it_is_switched_in():
    directory = Directory()
    source = directory.source()
    source.check()
    seen = []
    source.before_switch = lambda ranker: seen.append((ranker.version, ranker.is_warm,
                                                       source().version))
    directory.version = "v2"
    assert source.check()
    assert seen == [("v2", True, "v1")]
    assert source().version == "v2"


@pytest.mark.parametrize("error", [ModelError("weights are for 3 layers, configuration says 2"),
                                   OSError("no such file"), KeyError("vocabulary")])
def test_broken_model_leaves_the_old_one_and_says_why(error, caplog):
    directory = Directory()
    source = directory.source()
    source.check()
    directory.version, directory.error = "v2", error
    with caplog.at_level(logging.ERROR, "sidecar"):
        assert [source.check() for _ in range(3)] == [False, False, False]
    assert source().version == "v1"
    assert str(error) in source.error
    assert directory.loads == 2
    assert len(caplog.records) == 1


def test_refused_model_is_tried_again_later(monkeypatch):
    """It may have been half written when it was looked at."""
    directory = Directory()
    directory.error = ModelError("weights are missing")
    source = directory.source()
    assert not source.check()
    directory.error = None
    assert not source.check()
    monkeypatch.setattr(models, "RETRY_S", 0.0)
    monkeypatch.setattr(source, "_retry_at", 0.0)
    assert source.check()
    assert source.error is None


def test_mended_model_is_taken_at_once_when_its_version_changes():
    directory = Directory()
    directory.error = ModelError("weights are missing")
    source = directory.source()
    source.check()
    directory.version, directory.error = "v2", None
    assert source.check()


def test_refusal_is_forgotten_when_the_model_in_use_is_put_back():
    directory = Directory()
    source = directory.source()
    source.check()
    directory.version, directory.error = "v2", ModelError("weights are missing")
    source.check()
    assert source.error is not None
    directory.version, directory.error = "v1", None
    assert not source.check()
    assert (source().version, source.error) == ("v1", None)
    directory.version = "v2"  # whole this time: not held to be what it was
    assert source.check()
    assert directory.loads == 3
