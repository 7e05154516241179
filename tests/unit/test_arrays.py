"""Arrays on disk: numpy reads them; large ones are mapped, aligned, and the file stays as it is."""

from __future__ import annotations

import numpy as np
import pytest

from sidecar.stores.arrays import ALIGNMENT, MAPPED_BYTES, load_arrays, save_arrays

LARGE = MAPPED_BYTES // 4 + 1


@pytest.fixture
def path(tmp_path):
    return tmp_path / "some.npz"


def saved(path, **arrays):
    with path.open("wb") as file:
        save_arrays(file, arrays)
    return arrays


def test_numpy_reads_what_was_saved(path):
    rng = np.random.default_rng(1)
    given = saved(path, **{
        "a": np.arange(LARGE, dtype=np.int32), "scalar": np.array(3.5), "none": np.zeros((0, 4)),
        "half.precision" * 9: rng.random((LARGE, 3)).astype(np.float16), "text": np.array(["ä"])})
    with np.load(path) as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            name: array.tolist() for name, array in given.items()}
    for name, array in load_arrays(path).items():
        assert array.dtype == given[name].dtype
        assert array.tolist() == given[name].tolist()


def test_large_arrays_are_mapped_aligned_and_private(path):
    saved(path, before=np.zeros(7, np.int8), large=np.arange(LARGE, dtype=np.float32))
    large = load_arrays(path)["large"]
    assert isinstance(large.base, np.memmap)
    assert large.ctypes.data % ALIGNMENT == 0
    large[0] = 42.0
    assert load_arrays(path)["large"][0] == 0.0


def test_archives_of_numpy_are_read(path):
    given = {"a": np.arange(LARGE, dtype=np.int64), "b": np.arange(3.0)}
    np.savez(path, **given)
    assert load_arrays(path)["a"].tolist() == given["a"].tolist()
    np.savez_compressed(path, **given)
    assert load_arrays(path)["b"].tolist() == given["b"].tolist()


def test_another_kind_of_file_is_refused(path):
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="no archive of arrays"):
        load_arrays(path)
