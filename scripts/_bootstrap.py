"""Makes ``.venv`` ready: creates it, and installs the lock file and the project into it.

It runs under stock Python 3.11 or newer before any package is installed, so it imports only the
standard library. A stamp with the lock file's hash and Python's version makes later runs immediate.
A run that was killed in the middle leaves no stamp, and the next one goes on where pip left off.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed-lock"

# torch as PyPI serves it brings its CUDA libraries on Linux: 6 GB installed.
SPACE_BYTES = (8 if sys.platform == "linux" else 3) * 2**30


def main() -> int:
    """Install what is missing; 0 when the environment is ready."""
    if PYTHON.exists() and STAMP.exists() and STAMP.read_text() == _wanted():
        return 0
    problem = _install()
    if problem:
        print(f"error: {problem}", file=sys.stderr)
        return 1
    STAMP.write_text(_wanted())
    return 0


def _wanted() -> str:
    """Return what the stamp says of an environment that fits: packages are one Python's own."""
    content = (ROOT / "requirements.lock").read_bytes() + (ROOT / "pyproject.toml").read_bytes()
    asked = subprocess.run([str(PYTHON), "-c", "import sys; print(*sys.version_info[:2])"],
                           check=False, capture_output=True, stdin=subprocess.DEVNULL)
    return f"{hashlib.sha256(content).hexdigest()} {asked.stdout.decode().strip()}"


def _install() -> str | None:
    """Create the environment and fill it; return what went wrong, in one line."""
    if not PYTHON.exists():
        free = shutil.disk_usage(ROOT).free
        if free < SPACE_BYTES:
            return (f"disk full: {ROOT} has {free / 2**30:.1f} GB free, the Python packages need "
                    f"{SPACE_BYTES / 2**30:.0f} GB; free some space")
        print("making .venv", file=sys.stderr)
        if _run([sys.executable, "-m", "venv", str(VENV)]):
            shutil.rmtree(VENV, ignore_errors=True)
            return "python3 -m venv failed; on Debian and Ubuntu, apt install python3-venv"
    print("installing the Python packages of requirements.lock", file=sys.stderr)
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    if sys.stderr.isatty():
        pip.remove("--quiet")
    if _run([str(PYTHON), "-m", "ensurepip", "--upgrade"], quiet=True):
        return "the environment in .venv has no pip; remove the folder and try again"
    if _run([*pip, "--require-hashes", "--no-deps", "-r", str(ROOT / "requirements.lock")]):
        return "pip could not install requirements.lock; its message is above"
    if _run([*pip, "--no-deps", "--no-build-isolation", "--editable", str(ROOT)]):
        return "pip could not install the project; its message is above"
    return None


def _run(command: list[str], quiet: bool = False) -> int:
    """Run a command with its output on stderr; return its exit code."""
    output = subprocess.DEVNULL if quiet else sys.stderr
    return subprocess.run(command, check=False, stdout=output, stderr=output,
                          stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
