"""Arrays in a file that can be mapped into memory: numpy's own .npz, with each array aligned.

``np.load`` reads these files like any other. This module maps the large arrays instead of copying
them: processes share the pages, an unused page is never read, and a page that is written to becomes
the writer's own. Arrays that are packed or not aligned in their file are copied.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Arrays = dict[str, npt.NDArray[Any]]

ALIGNMENT = 64  # what numpy's own .npy header is padded to, and no processor asks for more
MAPPED_BYTES = 64 * 1024  # smaller arrays are not worth a mapping
_LOCAL = struct.Struct("<4s5H3I2H")  # a zip's local header: the name's and extra's lengths last
_PADDING_ID = 0xD935  # of the extra field; the one that Android's zipalign uses


def save_arrays(file: IO[bytes], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as an .npz whose members are stored as they are, each aligned."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.file_size = array.nbytes + 1024  # decides on the header's form before it is known
            start = file.tell() + _LOCAL.size + len(info.filename.encode()) + 20 + 4
            padding = -start % ALIGNMENT
            info.extra = struct.pack("<HH", _PADDING_ID, padding) + bytes(padding)
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def load_arrays(path: Path) -> Arrays:
    """Return the arrays of a file, large ones mapped (copy on write) where they can be.

    Raises:
        OSError, ValueError, EOFError, zipfile.BadZipFile: no such file, or not of this kind.
    """
    arrays: Arrays = {}
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"{path} is no archive of arrays")
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        for info in archive.infolist():
            arrays[info.filename.removesuffix(".npy")] = _array(path, file, archive, info)
    return arrays


def _array(path: Path, file: IO[bytes], archive: zipfile.ZipFile,
           info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size < MAPPED_BYTES:
        return _read(archive, info)
    file.seek(info.header_offset)
    *_, name_length, extra_length = _LOCAL.unpack(file.read(_LOCAL.size))
    file.seek(info.header_offset + _LOCAL.size + name_length + extra_length)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        return _read(archive, info)
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject or file.tell() % ALIGNMENT:
        return _read(archive, info)
    mapped: npt.NDArray[Any] = np.memmap(path, dtype, "c", file.tell(), shape,
                                         "F" if is_fortran else "C")
    return mapped.view(np.ndarray)


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(info) as member:
        found: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return found
