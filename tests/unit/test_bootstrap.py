"""When the environment of the quickstart and the tests is filled again."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import _bootstrap


def test_environment_of_another_python_is_filled_again(tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    python, installs = tmp_path / "python", []
    monkeypatch.setattr(_bootstrap, "PYTHON", python)
    monkeypatch.setattr(_bootstrap, "STAMP", tmp_path / "stamp")
    monkeypatch.setattr(_bootstrap, "_install", lambda: installs.append(1))
    for version, installed in (("3 11", 1), ("3 11", 1), ("3 12", 2)):
        python.write_text(f"#!/bin/sh\necho {version}\n")
        python.chmod(0o755)
        assert _bootstrap.main() == 0
        assert len(installs) == installed
