"""Prints the settings table of the README as Markdown; reads the settings' own documentation.

``tests/unit/test_settings.py`` compares the README with it.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from scripts._program import exit_code
from sidecar.settings import Settings, variable


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table."""
    argparse.ArgumentParser(prog="python -m scripts.settings_table",
                            description=(__doc__ or "").splitlines()[0]).parse_args(argv)
    print(render())
    return 0


def render() -> str:
    """Return the table, one row a setting in the order of the code."""
    rows = [f"| `{variable(field.name)}` | {_default(field.default)} | {_meaning(field)} |"
            for field in dataclasses.fields(Settings)]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


def _default(value: Any) -> str:
    if value == "":
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _meaning(field: dataclasses.Field[Any]) -> str:
    meta = field.metadata
    bounds = ""
    if meta["choices"]:
        bounds = f" ({', '.join(meta['choices'])})"
    elif meta["low"] is not None and meta["high"] is not None:
        bounds = f" ({meta['low']:g} to {meta['high']:g})"
    return f"{meta['doc']}{bounds}".replace("|", "\\|")


if __name__ == "__main__":
    sys.exit(exit_code(main))
