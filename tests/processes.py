"""Which of the sidecar's processes run on this machine, as the tests need to know it."""

from __future__ import annotations

import subprocess


def scorers_of(owner: int) -> list[int]:
    """Return the scorers that live as long as this process, ended ones aside."""
    listed = subprocess.run(["ps", "-wweo", "pid,stat,args"], capture_output=True, text=True,
                            check=True).stdout.splitlines()
    return [int(line.split()[0]) for line in listed
            if f"--owner {owner} " in line and not line.split()[1].startswith("Z")]
