"""How programs end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; from scripts._program import exit_code; sys.exit(exit_code(lambda: {}))"


@pytest.mark.parametrize(("lines", "codes"), [
    (1, {"0", "141"}),  # written at the very end, perhaps before its reader has gone
    (100_000, {"141"})])  # more than a pipe holds
def test_reader_that_has_enough_ends_a_program_without_a_trace(lines: int,
                                                               codes: set[str]) -> None:
    """As ``head`` does."""
    shell = f"{sys.executable} -c \"$1\" | true; echo ${{PIPESTATUS[0]}}"
    told = subprocess.run(
        ["bash", "-c", shell, "-", PROGRAM.format(f"print('word\\n' * {lines}) or 0")],
        capture_output=True, text=True, check=True, timeout=60)
    assert told.stderr == ""
    assert told.stdout.strip() in codes


def test_broken_connection_is_no_reader_that_has_enough() -> None:
    program = PROGRAM.format("(_ for _ in ()).throw(BrokenPipeError(32, 'a node'))")
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False, timeout=60)
    assert told.returncode == 1
    assert "a node" in told.stderr


def test_table_of_settings_whose_reader_has_gone_ends_without_a_trace() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        told = subprocess.run([sys.executable, "-m", "scripts.settings_table"], stdout=writer,
                              stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    finally:
        os.close(writer)
    assert (told.returncode, told.stderr) == (141, "")
