"""How are the hot loops compiled? By numba, which keeps the code on disk where it can.

numba's cache checks the time of a function's own file, not of the files of the functions that it
calls. So functions that call each other are in one file, and a function that two files need (the
hash of ids) is in both. The machine code is kept beside the source or in NUMBA_CACHE_DIR. If
neither can be written (a read-only image), each process compiles anew, for a minute or so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile a function of arrays at its first call, for the types it is called with; it releases
    the interpreter's lock while it runs, and divides as numpy does."""
    return _kept(function, nogil=True, error_model="numpy")


def compiled_for(signature: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile at import, for one signature in numba's notation."""
    return lambda function: _kept(function, signature)


def _kept(function: Function, *signature: str, **options: Any) -> Function:
    compile_with: Any = numba.njit
    try:
        kept = compile_with(*signature, cache=True, **options)(function)
        _drop_unreadable(kept)
        return cast(Function, kept)
    except (RuntimeError, OSError):  # no place to keep it
        return cast(Function, compile_with(*signature, **options)(function))


def _drop_unreadable(kept: Any) -> None:
    """Begin a function's kept code anew if it is of a version whose classes had other names: numba
    unpickles it before it asks whether it is of this source, and would fail at the first call."""
    try:
        kept._cache._cache_file._load_index()
    except (AttributeError, ImportError):
        kept._cache.flush()
