"""Puts together the parts of a worker process, after the fork."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.errors import ModelError, SettingsError
from sidecar.serving.catalogue import CatalogueRefresh
from sidecar.serving.events import EventIntake
from sidecar.serving.hit_cache import HitCache
from sidecar.serving.models import ModelLoader, ModelSource, Ranks
from sidecar.serving.personalizer import Personalizer
from sidecar.serving.popularity import PopularityRefresh
from sidecar.serving.telemetry import Telemetry
from sidecar.settings import Settings, variable
from sidecar.stores.event_changes import EventChanges
from sidecar.stores.event_log import open_logs
from sidecar.stores.products import ProductChanges
from sidecar.stores.protocols import Logs, StateStore
from sidecar.stores.query_log import QueryLog
from sidecar.stores.states import OpenSearchStateStore
from sidecar.stores.upstream import Upstream
from sidecar.web.gateway import SearchGateway
from sidecar.web.lifeline import lifeline

if TYPE_CHECKING:
    from sidecar.ranking.ranker import Ranker
    from sidecar.scorer.client import Scorer

log = logging.getLogger(__name__)

PARTS_SHARE = 0.4  # of the time for ranking: a scorer that takes longer is not waited for


@dataclass(frozen=True, slots=True)
class Services:
    """The long-lived parts of one worker; ``start`` before the first request, ``close`` at last."""

    settings: Settings
    telemetry: Telemetry
    upstream: Upstream
    states: StateStore
    logs: Logs
    models: ModelSource
    catalogue: CatalogueRefresh
    popularity: PopularityRefresh
    personalizer: Personalizer
    intake: EventIntake
    shown: QueryLog
    gateway: SearchGateway
    scorer: Scorer | None = None

    def start(self) -> None:
        """Load and warm the model, then watch for newer ones and for changed products.

        A model that cannot be loaded is logged and shown by ``/_personalize/health/ready``;
        searches then keep the engine's order.
        """
        self.models.check()
        self.models.start()
        self.catalogue.start()
        self.popularity.start()

    def close(self) -> None:
        """End the threads and connections."""
        self.models.stop()
        self.catalogue.stop()
        self.popularity.stop()
        self.personalizer.close()
        self.shown.close()
        self.upstream.close()
        if self.scorer is not None:
            self.scorer.close()


def build(settings: Settings, loader: ModelLoader | None = None) -> Services:
    """Put a worker's parts together; connects to nothing and loads nothing yet.

    Args:
        settings: how they are to behave.
        loader: reads model directories; None: those that ``scripts.train`` writes.

    Raises:
        SettingsError: a setting that only its part can judge, such as a certificate's path.
    """
    telemetry = Telemetry()
    upstream = Upstream(settings)
    states = OpenSearchStateStore(settings, upstream)
    logs = open_logs(settings, upstream)
    scorer = _scorer(settings, telemetry)
    models = ModelSource(settings.model_dir, loader or _loader(settings, scorer), telemetry)
    catalogue = CatalogueRefresh(lambda: ProductChanges(settings, upstream), models, telemetry,
                                 refresh_s=settings.refresh_s, index=settings.products_index)
    popularity = PopularityRefresh(lambda since: EventChanges(settings, upstream, since), models)

    def prepare(ranker: Ranks) -> None:
        catalogue.prepare(ranker)
        popularity.prepare(ranker)  # events are counted for items that are known

    models.before_switch = prepare
    personalizer = Personalizer(settings, states, models, telemetry)
    shown = QueryLog(settings, upstream, telemetry.shown_orders_dropped)
    return Services(
        settings=settings, telemetry=telemetry, upstream=upstream, states=states, logs=logs,
        models=models, catalogue=catalogue, popularity=popularity,
        personalizer=personalizer,
        intake=EventIntake(settings, states, logs, models, telemetry),
        shown=shown, gateway=SearchGateway(settings, upstream, personalizer, shown,
                                           HitCache(catalogue.uuid_of)),
        scorer=scorer)


def _share(ranker: Ranker, folder: Path) -> None:
    """Let the ranker's items lie where all workers see them; its own memory, if that is denied."""
    from sidecar.stores.shared_items import SharedItems

    try:
        SharedItems(folder, ranker.version).adopt(ranker.items)
    except OSError as error:
        log.warning("item table is not shared", extra={"folder": str(folder),
                                                       "error": repr(error)})


def _scorer(settings: Settings, telemetry: Telemetry) -> Scorer | None:
    """Return the way to the process that owns the device, if there is to be one; start it.

    Raises:
        SettingsError: one is asked for, and there is no folder for its socket.
    """
    if not settings.model_dir or settings.scorer == "off":
        return None
    if settings.scorer == "auto" and not (settings.shared_dir and _has_gpu(settings)):
        return None
    if not settings.shared_dir:
        raise SettingsError(f"{variable('scorer')} needs a folder for its socket; set "
                            f"{variable('shared_dir')}")
    from sidecar.scorer.client import Launch, Scorer

    launch = Launch(settings.model_dir, settings.device, os.getppid(), lifeline.end,
                    settings.log_level)
    scorer = Scorer(Path(settings.shared_dir), launch, telemetry,
                    PARTS_SHARE * settings.timeout_ms / 1000.0)
    scorer.start()
    return scorer


def _has_gpu(settings: Settings) -> bool:
    """Return whether torch is to run on a GPU; one that is asked for in vain is told of by the
    model's loader, while searches pass through."""
    if settings.device == "cpu":
        return False
    from sidecar.stores.models import pick_device

    try:
        return pick_device(settings.device) == "cuda"
    except ModelError:
        return False


def _loader(settings: Settings, scorer: Scorer | None) -> ModelLoader:
    """Return the checkpoint's reader; torch is imported at the first load, in the worker.

    With a scorer, which owns the device, a worker's own networks stay on the processor.
    """
    device = settings.device if scorer is None else "cpu"

    def load(model_dir: Path) -> Ranks:
        from sidecar.stores.models import load_ranker

        ranker = load_ranker(model_dir, device)
        ranker.orders_strangers = settings.without_history == "model"
        if ranker.config.kept > settings.history_events:
            log.warning("model reads more events than are kept of a user: it ranks by the rest",
                        extra={"reads": ranker.config.kept, "kept": settings.history_events,
                               "setting": variable("history_events")})
        if settings.shared_dir:
            _share(ranker, Path(settings.shared_dir))
        if scorer is not None:
            ranker.use(scorer)
        return ranker

    def stamp(model_dir: Path) -> str:
        """Return what changes when the directory is replaced; its description is too long to read
        at every look."""
        try:
            found = (model_dir / "model.json").stat()
        except OSError as error:
            raise ModelError(f"{model_dir} holds no model ({error.strerror}); train one with "
                             "python -m scripts.train, or set SIDECAR_MODEL_DIR") from error
        return f"{found.st_dev}-{found.st_ino}-{found.st_mtime_ns}-{found.st_size}"

    return ModelLoader(load, stamp)
