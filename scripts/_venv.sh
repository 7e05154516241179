# Sourced by scripts/quickstart and scripts/test: makes .venv ready and sets $venv_python.
# Expects the repository's root as working directory.

fail() { echo "error: $*" >&2; exit 1; }

find_python() {
  local name
  for name in python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null &&
      "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "Python 3.11 or newer is needed, found $(python3 --version 2>/dev/null || echo none); install it and try again"
}

python=$(find_python) || exit 1
"$python" scripts/_bootstrap.py || exit 1
venv_python=$PWD/.venv/bin/python
