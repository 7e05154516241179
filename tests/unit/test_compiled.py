"""Machine code that is kept on disk, as another version of the sidecar may have left it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
from typing import NamedTuple
import numpy as np
from sidecar.compiled import compiled

class {name}(NamedTuple):
    values: np.ndarray

@compiled
def total(of):
    return of.values.sum()

print(total({name}(np.arange({count}))))
"""


def test_code_kept_by_a_version_whose_classes_had_other_names_is_no_failure(tmp_path: Path) -> None:
    def run(name: str, count: int) -> str:
        (tmp_path / "shop.py").write_text(PROGRAM.format(name=name, count=count))
        done = subprocess.run([sys.executable, "-c", "import shop"], text=True, check=True,
                              capture_output=True,
                              env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "kept"),
                                   "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])})
        return done.stdout.strip()

    assert run("Window", 4) == "6"
    assert list(tmp_path.glob("kept/*/*.nbc"))
    assert [run("Hits", 5), run("Hits", 5)] == ["10", "10"]
