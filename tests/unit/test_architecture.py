"""The rooms and their doors: imports point one way, and the pure rooms stay pure."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.stores.models import save_ranker
from tests.shops import fresh_ranker

ROOT = Path(__file__).resolve().parents[2]

# Who may import whom within the project; a room may always import itself.
_BASE = {"records", "errors", "settings", "compiled"}
_MIDDLE = _BASE | {"ranking", "search"}
MAY_IMPORT = {
    "records": set(),
    "errors": {"records"},
    "settings": {"errors"},
    "compiled": set(),
    "ranking": _BASE,
    "search": _BASE,
    "stores": _MIDDLE,
    "serving": _MIDDLE | {"stores"},
    "scorer": _MIDDLE | {"stores", "serving"},
    "web": _MIDDLE | {"stores", "serving", "scorer"},
    "training": _MIDDLE | {"stores", "serving"},
    "analysis": _MIDDLE | {"stores", "training"},
    "scripts": _MIDDLE | {"stores", "serving", "web", "training", "analysis"},
}

# The pure rooms get bytes, arrays, an instant and a seed; they never fetch them.
IMPURE = {"asyncio", "flask", "gunicorn", "http", "httptools", "io", "multiprocessing",
          "opensearchpy", "os", "pathlib", "random", "requests", "secrets", "select", "shutil",
          "socket", "ssl", "subprocess", "tempfile", "time", "urllib3"}

FILES = sorted([*ROOT.glob("sidecar/**/*.py"), *ROOT.glob("scripts/*.py")])


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "sidecar" else parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yield the full names of the modules that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute, so that they can be checked"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def project_rooms(path: Path) -> set[str]:
    """Return the rooms of the project that a file imports from."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "sidecar" and len(parts) > 1:
            found.add(parts[1])
        elif parts[0] == "scripts":
            found.add("scripts")
    return found


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_point_one_way(path):
    if path.name == "__init__.py" and path.parent.name == "sidecar":
        return
    own = room(path)
    assert project_rooms(path) - {own, "__init__"} <= MAY_IMPORT[own]


@pytest.mark.parametrize("path", [p for p in FILES if room(p) in ("ranking", "search")],
                         ids=name_of)
def test_ranking_and_search_do_no_io(path):
    outside = {name.split(".")[0] for name in imports(path)}
    assert not outside & IMPURE
    calls = {node.func.id for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
             if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "print", "input"}


def test_every_room_says_what_it_is_for():
    for path in ROOT.glob("sidecar/*/__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), name_of(path)


def test_only_the_settings_read_the_environment():
    """The settings table is then the whole truth; gunicorn's configuration only sets variables."""
    readers = [name_of(path) for path in FILES
               if room(path) not in ("settings", "scripts") and path.name != "gunicorn_conf.py"
               and {"os.environ", "os.getenv"} & set(_attributes(path))]
    assert readers == []


def test_only_the_worker_knows_gunicorn_inside():
    """What a new gunicorn may break is then to be looked for in one file."""
    knowing = [name_of(path) for path in FILES
               if any(name.split(".")[0] == "gunicorn" for name in imports(path))]
    assert knowing == ["sidecar/web/worker.py"]


def test_nothing_heavy_is_loaded_before_the_fork():
    """torch's threads do not survive a fork, so gunicorn's master must not import it."""
    program = ("import sys, sidecar.web.gunicorn_conf as conf; "
               "sys.exit(bool({'torch', 'flask', 'prometheus_client'} & set(sys.modules))"
               " or conf.preload_app)")
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


def test_loading_a_model_imports_no_compiler_of_torch(tmp_path):
    """It takes seconds of a core, and 300 MB that each worker would have for itself."""
    save_ranker(fresh_ranker(), tmp_path, {})
    program = ("import pathlib, sys; from sidecar.stores.models import load_ranker; "
               "load_ranker(pathlib.Path(sys.argv[1])); sys.exit('torch._dynamo' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", program, tmp_path], cwd=ROOT,
                          check=False).returncode == 0


def test_compiled_functions_call_none_of_another_file():
    """numba would keep the machine code that was made of the callee as it once was."""
    compiled = {(".".join(path.relative_to(ROOT).with_suffix("").parts), function.name)
                for path in FILES for function in _compiled(path)}
    for path in FILES:
        names = {alias.asname or alias.name: (node.module, alias.name)
                 for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                 if isinstance(node, ast.ImportFrom) for alias in node.names}
        for function in _compiled(path):
            called = {names.get(node.id) for node in ast.walk(function)
                      if isinstance(node, ast.Name)}
            assert not called & compiled, f"{name_of(path)}: {function.name}"


def _compiled(path: Path) -> Iterator[ast.FunctionDef]:
    """Yield the functions of a file that numba compiles."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            told = " ".join(map(ast.unparse, node.decorator_list))
            if "njit" in told or "compiled" in told:
                yield node


def _attributes(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"
