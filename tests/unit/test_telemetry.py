"""What ``/metrics`` shows of a process in which nothing has happened yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FRESH = ("from sidecar.serving.telemetry import Telemetry, exposition; Telemetry(); "
         "print(exposition().decode())")
FIRST = [
    *(f'personalize_events_total{{outcome="{word}"}}'
      for word in ("taken", "refused", "duplicate", "failed")),
    *(f'personalize_events_without_effect_total{{reason="{word}"}}'
      for word in ("names_nothing", "unknown_item")),
    *(f'personalize_model_loads_total{{outcome="{word}"}}' for word in ("loaded", "refused")),
    *(f'personalize_scorer_requests_total{{outcome="{word}"}}'
      for word in ("answered", "late", "refused", "unreachable")),
    *(f'personalize_refused_requests_total{{reason="{word}"}}'
      for word in ("too_many_requests", "not_allowed", "bad_control", "bad_events", "bad_request",
                   "body_too_large", "upstream_timeout", "upstream_unavailable",
                   "internal_error")),
    'personalize_searches_total{reason="overload",status="skipped"}',
    "personalize_state_conflicts_total",
]


@pytest.mark.parametrize("is_shared", [False, True])
def test_counters_stand_at_zero_before_anything_is_counted(tmp_path: Path,
                                                           is_shared: bool) -> None:
    """``increase()`` does not see the first count of a series that begins with it."""
    shared = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if is_shared else {}
    shown = subprocess.run([sys.executable, "-c", FRESH], check=True, capture_output=True,
                           text=True, env={**os.environ, **shared}).stdout.splitlines()
    assert [line for line in FIRST if f"{line} 0.0" not in shown] == []
