"""What a worker is made of, where the settings ask for what the machine does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.errors import SettingsError
from sidecar.serving.models import ModelLoader
from sidecar.settings import Settings
from sidecar.web.services import build
from tests.shops import fresh_ranker

LOADER = ModelLoader(lambda _: fresh_ranker(), lambda _: "v1")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.mark.parametrize(("history_events", "is_told"), [(100, True), (500, False)])
def test_model_that_reads_more_than_is_kept_of_a_user_is_told(
        history_events: int, is_told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture) -> None:
    """Else it ranks by less than its figures were measured with, and nobody knows."""
    ranker = fresh_ranker()
    assert ranker.config.kept == 500
    monkeypatch.setattr("sidecar.stores.models.load_ranker", lambda *given: ranker)
    (tmp_path / "model.json").touch()
    services = build(Settings(model_dir=str(tmp_path), device="cpu",
                              history_events=history_events))
    assert services.models.check()
    services.close()
    told = [record.__dict__ for record in caplog.records if "reads more" in record.getMessage()]
    assert [(record["reads"], record["kept"], record["setting"]) for record in told] == (
        [(500, 100, "SIDECAR_HISTORY_EVENTS")] if is_told else [])


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_without_a_gpu_a_worker_comes_up_and_has_no_scorer(device: str, tmp_path: Path) -> None:
    services = build(Settings(device=device, model_dir=str(tmp_path), shared_dir=str(tmp_path)))
    try:
        assert services.scorer is None
        services.models.check()
        assert services.models() is None  # no model there; searches pass through
        assert services.models.error
    finally:
        services.close()


def test_gpu_without_a_folder_for_the_socket_is_each_worker_s_own(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    services = build(Settings(model_dir=str(tmp_path)), LOADER)
    assert services.scorer is None
    services.close()


def test_scorer_that_is_asked_for_needs_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="SIDECAR_SCORER needs a folder"):
        build(Settings(scorer="on", model_dir=str(tmp_path)), LOADER)


def test_model_is_switched_in_when_products_and_then_events_are_up_to_date(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    services = build(Settings(model_dir=str(tmp_path)), LOADER)
    monkeypatch.setattr(services.catalogue, "prepare", lambda _: done.append("products"))
    monkeypatch.setattr(services.popularity, "prepare", lambda _: done.append("events"))
    services.models.check()
    assert done == []  # searches pass through until there is one
    assert services.models.before_switch is not None
    services.models.before_switch(fresh_ranker())
    assert done == ["products", "events"]
    services.close()
