"""How are the hot loops compiled? By numba, kept on disk where there is a place to keep it.

numba's cache looks at the time of the file that a function stands in, and not at those of the
functions it calls: what calls each other stands in one file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function of arrays; it releases the interpreter's lock while it runs.

    The machine code is kept beside the source, or in NUMBA_CACHE_DIR; where neither can be
    written (a read-only image), each process compiles anew when it warms up, in some ten seconds.
    """
    try:
        return numba.njit(cache=True, nogil=True, error_model="numpy")(function)  # type: ignore[return-value]
    except RuntimeError:  # no place to keep it
        return numba.njit(nogil=True, error_model="numpy")(function)  # type: ignore[return-value]
