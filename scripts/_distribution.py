"""Where does OpenSearch come from without Docker? Maven Central's artifacts, put together once.

``ready_distribution`` resolves a generated multi-module pom with ``mvn`` and lays the jars out as
OpenSearch expects them: ``lib/`` for the server, ``modules/NAME/`` with a written
``plugin-descriptor.properties`` for each module (the published jars carry none). The result stays
under ``.local/`` and serves every later home.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tqdm import tqdm

from scripts._jdk import find_jdk
from scripts._machine import require_space
from sidecar.errors import LaunchError

OPENSEARCH_VERSION = "3.9.0"
LOCAL = Path(__file__).resolve().parent.parent / ".local"

# Jars, the copies laid out from them, and room for Maven's own repository.
SPACE_BYTES = 500 * 2**20

SERVER_ARTIFACTS = (
    f"org.opensearch:opensearch:{OPENSEARCH_VERSION}",
    # Needed at start, but not pulled in by the server's pom.
    "org.apache.logging.log4j:log4j-core:2.25.5",
    f"org.opensearch:opensearch-agent-bootstrap:{OPENSEARCH_VERSION}",
    f"org.opensearch:opensearch-agent-policy:{OPENSEARCH_VERSION}",
    f"org.opensearch:opensearch-plugin-classloader:{OPENSEARCH_VERSION}",
)

DEPENDENCY_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the server: its folder, artifact, plugin class and what it extends."""

    name: str
    artifact: str
    class_name: str
    extends: str = ""

    @property
    def coordinates(self) -> str:
        """The artifact as ``group:artifact:version``."""
        return f"org.opensearch.plugin:{self.artifact}:{OPENSEARCH_VERSION}"

    def descriptor(self) -> str:
        """Return the text of its ``plugin-descriptor.properties``."""
        return (f"description={self.name}\nversion={OPENSEARCH_VERSION}\nname={self.name}\n"
                f"classname={self.class_name}\njava.version=21\n"
                f"opensearch.version={OPENSEARCH_VERSION}\n"
                f"extended.plugins={self.extends}\nhas.native.controller=false\n")


MODULES = (
    Module("transport-netty4", "transport-netty4-client",
           "org.opensearch.transport.Netty4ModulePlugin"),
    Module("analysis-common", "analysis-common",
           "org.opensearch.analysis.common.CommonAnalysisModulePlugin", extends="lang-painless"),
    Module("lang-painless", "lang-painless", "org.opensearch.painless.PainlessModulePlugin"),
    Module("lang-mustache", "lang-mustache-client",
           "org.opensearch.script.mustache.MustacheModulePlugin"),
    Module("reindex", "reindex-client", "org.opensearch.index.reindex.ReindexModulePlugin"),
    Module("mapper-extras", "mapper-extras-client",
           "org.opensearch.index.mapper.MapperExtrasModulePlugin"),
    Module("rank-eval", "rank-eval-client",
           "org.opensearch.index.rankeval.RankEvalModulePlugin"),
    Module("parent-join", "parent-join-client", "org.opensearch.join.ParentJoinModulePlugin"),
    Module("aggs-matrix-stats", "aggs-matrix-stats-client",
           "org.opensearch.search.aggregations.matrix.MatrixAggregationModulePlugin"),
)


def ready_distribution(local: Path = LOCAL) -> Path:
    """Return the folder with ``lib`` and ``modules``, resolving it if this is the first time.

    Safe to call from several processes at once: one resolves, the others wait.

    Raises:
        LaunchError: no ``mvn``, no JDK, no space, or Maven could not resolve the artifacts.
    """
    root = local / "opensearch"
    distribution = root / OPENSEARCH_VERSION
    if distribution.is_dir():
        return distribution
    root.mkdir(parents=True, exist_ok=True)
    with locked(root / "lock"):
        if not distribution.is_dir():
            require_space(root, SPACE_BYTES)
            # Appears under its name in one step, so a killed run leaves nothing half made.
            with tempfile.TemporaryDirectory(dir=root, prefix="resolving-") as scratch:
                assembled = _assemble(_resolve(Path(scratch), log=root / "maven.log"))
                assembled.chmod(0o755)
                assembled.rename(distribution)
    return distribution


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file for the block; waits for whoever has it."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _resolve(scratch: Path, log: Path) -> Path:
    """Let Maven copy each part's jars into ``scratch/PART/jars``."""
    parts = {"server": SERVER_ARTIFACTS} | {m.name: (m.coordinates,) for m in MODULES}
    for name, artifacts in parts.items():
        (scratch / name).mkdir()
        (scratch / name / "pom.xml").write_text(_pom(name, artifacts=artifacts))
    (scratch / "pom.xml").write_text(_pom("opensearch-parts", modules=tuple(parts)))
    mvn = shutil.which("mvn")
    if mvn is None:
        raise LaunchError("mvn is not on the PATH; install Maven")
    command = [mvn, "--batch-mode", "--strict-checksums", f"{DEPENDENCY_PLUGIN}:copy-dependencies",
               "-DincludeScope=runtime", "-DoutputDirectory=${project.basedir}/jars"]
    _run_maven(command, scratch, log, steps=len(parts) + 1)
    return scratch


def _run_maven(command: list[str], folder: Path, log: Path, steps: int) -> None:
    """Run Maven with a bar that advances with each part, and keep its output in ``log``."""
    environ = os.environ | {"JAVA_HOME": str(find_jdk().home)}
    errors: list[str] = []
    with (
        log.open("w") as kept,
        tqdm(total=steps, desc=f"resolving OpenSearch {OPENSEARCH_VERSION}", unit="part",
             disable=None) as bar,
        subprocess.Popen(command, cwd=folder, env=environ, text=True, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as maven,
    ):
        assert maven.stdout is not None
        for line in maven.stdout:
            kept.write(line)
            if line.startswith("[INFO] Building "):
                bar.update()
            elif line.startswith("[ERROR]"):
                errors.append(line.removeprefix("[ERROR]").strip())
    if maven.returncode != 0:
        reason = errors[0] if errors else f"mvn ended with {maven.returncode}"
        raise LaunchError(f"cannot resolve OpenSearch {OPENSEARCH_VERSION}: {reason}; "
                          f"check the network and Maven's settings, all its output is in {log}")


def _pom(name: str, artifacts: tuple[str, ...] = (), modules: tuple[str, ...] = ()) -> str:
    dependencies = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version>"
        "</dependency>".format(*map(escape, artifact.split(":"))) for artifact in artifacts)
    children = "".join(f"<module>{escape(module)}</module>" for module in modules)
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        f"<groupId>local</groupId><artifactId>{escape(name)}</artifactId><version>1</version>"
        f"<packaging>pom</packaging><modules>{children}</modules>"
        f"<dependencies>{dependencies}</dependencies></project>\n")


def _assemble(resolved: Path) -> Path:
    """Lay the resolved jars out as ``assembled/lib`` and ``assembled/modules/NAME``."""
    assembled = resolved / "assembled"
    lib = assembled / "lib"
    shutil.copytree(resolved / "server" / "jars", lib)
    in_lib = {jar.name for jar in lib.iterdir()}
    for module in MODULES:
        folder = assembled / "modules" / module.name
        folder.mkdir(parents=True)
        for jar in (resolved / module.name / "jars").iterdir():
            # A class in both lib/ and a module is refused at start as "jar hell".
            if jar.name not in in_lib:
                shutil.copy2(jar, folder / jar.name)
        (folder / "plugin-descriptor.properties").write_text(module.descriptor())
    return assembled
