"""What a fake model's ranker does alike in every process that tests start: all but rank."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from sidecar.records import ItemEvent, UserState


class Unlearnt:
    """Prepares nothing, counts nothing, needs no warm-up."""

    def __init__(self) -> None:
        self.counted_until = time.time()

    def prepare(self, state: UserState) -> None:
        """Nothing."""

    def count(self, pages: Iterable[Sequence[ItemEvent]], now: float) -> int:
        """Read on, and count nothing."""
        return sum(0 for _ in pages)

    def warm_up(self) -> None:
        """Nothing."""
