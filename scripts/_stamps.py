"""Which steps of a long set-up are done already and still fit their inputs?

A stamp is a file that holds the hash of everything its step depended on. It is written when the
step is complete, so a step that was killed in the middle runs again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Stamps:
    """The stamps in one folder."""

    folder: Path

    def is_done(self, step: str, key: str) -> bool:
        """Say whether the step was completed with the same inputs."""
        try:
            return (self.folder / f"{step}.stamp").read_text() == key
        except FileNotFoundError:
            return False

    def mark(self, step: str, key: str) -> None:
        """Record that the step is complete."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{step}.stamp").write_text(key)


def key_of(paths: Iterable[Path], *words: str) -> str:
    """Return a hash of files' contents (of a folder: its Python files) and of some words."""
    digest = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
