"""Measures the item table that workers share; generates products, writes numbers.

Usage::

    python -m scripts.bench_memory --products 1000000 --width 128 --workers 2

Each worker is a process of its own that maps the table as a sidecar's worker does, reads every row
once, then looks up windows of a hundred random ids. The report gives the bytes of each array and,
for each worker, the memory that it shares (mapped pages), the private memory that the table added,
and the time of a look-up with its gather of the vectors.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

import numpy as np

from scripts._arguments import seed, whole
from scripts._program import exit_code
from sidecar.ranking.items import SHARED, ItemTable
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import PackedIds
from sidecar.stores.shared_items import SharedItems

LOOKUPS = 2000
WINDOW = 100
PIECE = 100_000
NO_WORDS = Vocabulary({}, {}, {}, [], np.zeros(1, np.float32), np.zeros((1, 1), np.float32), {})


def main(argv: Sequence[str] | None = None) -> int:
    """Generate, map, look up, tell; 0 done, 1 failed, 2 misused."""
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_memory",
                                     description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--products", type=whole(1), default=1_000_000, metavar="N")
    add("--width", type=whole(1), default=128, metavar="D", help="width of the item vectors")
    add("--workers", type=whole(1), default=2, metavar="N")
    add("--seed", type=seed, default=0, metavar="N")
    add("--json", action="store_true", help="print every number as JSON")
    options = parser.parse_args(argv)
    try:
        with tempfile.TemporaryDirectory(prefix="personalize-bench-") as folder:
            report = run(Path(folder), options)
    except OSError as error:
        print(f"bench_memory: {error}", file=sys.stderr)
        return 1
    print(json.dumps(report, indent=1) if options.json else _rendered(report))
    return 0


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the bytes of each array and what each worker measured; raises OSError."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:  # what generating takes shall not count
        arrays = pool.apply(_generated, (folder, options.products, options.width, options.seed))
    pools = [context.Pool(1) for _ in range(options.workers)]
    try:
        return {"products": options.products, "width": options.width, "arrays_bytes": arrays,
                "workers": _measured(pools, folder, options)}
    finally:
        for pool in pools:
            pool.terminate()


def _measured(pools: Sequence[Pool], folder: Path,
              options: argparse.Namespace) -> list[dict[str, float]]:
    given = (folder, options.products, options.width, options.seed)
    waiting = [pool.apply_async(_mapped, given) for pool in pools]
    return [one.get() for one in waiting]


def _generated(folder: Path, products: int, width: int, seed: int) -> dict[str, int]:
    """Write the shared table; return the bytes of its arrays, spare room aside."""
    rng = np.random.default_rng(seed)
    table = ItemTable(NO_WORDS, width)
    table.ids = [_id(number) for number in range(products)]
    for name in SHARED:
        shape = (products, *getattr(table, name).shape[1:])
        dtype = getattr(table, name).dtype
        array = np.empty(shape, dtype)
        for start in range(0, products, PIECE):
            piece = array[start:start + PIECE]
            piece[...] = (rng.integers(1, min(9000, np.iinfo(dtype).max), piece.shape)
                          if dtype.kind == "i"
                          else rng.standard_normal(piece.shape, np.float32) / width ** 0.5)
        setattr(table, name, array)
    SharedItems(folder, "bench").adopt(table)
    assert not isinstance(table.ids, list)
    sizes = {name: getattr(table, name)[:products].nbytes for name in SHARED}
    ids = table.ids.arrays
    return sizes | {"ids": table.ids.text_bytes + ids["ends"][:products].nbytes
                    + ids["slots"].nbytes}


def _mapped(folder: Path, products: int, width: int, seed: int) -> dict[str, float]:
    table = ItemTable(NO_WORDS, width)
    before = _kilobytes("Private_Dirty") + _kilobytes("Private_Clean")
    storage = SharedItems(folder, "bench")
    storage.adopt(table)
    total = sum(float(getattr(table, name)[start:start + PIECE].sum(dtype=np.float64))
                for name in SHARED for start in range(0, products, PIECE))
    assert np.isfinite(total)
    rng = np.random.default_rng(seed + 1)
    times_ms = []
    for _ in range(LOOKUPS):
        names = [_id(int(number)).encode() for number in rng.integers(0, products, WINDOW)]
        ends = np.cumsum([len(name) for name in names], dtype=np.int32)
        packed = PackedIds(b"".join(names), np.stack((np.append(np.int32(0), ends[:-1]), ends), 1))
        started = time.perf_counter()
        rows = table.rows(packed)
        table.vectors[rows].astype(np.float32)
        times_ms.append((time.perf_counter() - started) * 1000.0)
        assert (rows >= 0).all()
    mapped = _kilobytes("Rss", "personalize-bench")
    own = _kilobytes("Private_Dirty") + _kilobytes("Private_Clean")
    own_mapped = _kilobytes("Private_Dirty", "personalize-bench") \
        + _kilobytes("Private_Clean", "personalize-bench")
    return {"shared_mb": mapped / 1024, "own_mb": (own - own_mapped - before) / 1024,
            "lookup_p50_ms": statistics.median(times_ms)}


def _id(number: int) -> str:
    return f"{1_000_000 + number * 7}"


def _kilobytes(field: str, path: str = "") -> int:
    """Add up a field of Linux's smaps over mappings whose file's path holds ``path``."""
    total, is_counted = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, *rest = line.split()
        if not name.endswith(":"):
            is_counted = path in line
        elif is_counted and name == f"{field}:":
            total += int(rest[0])
    return total


def _rendered(report: dict[str, Any]) -> str:
    arrays = report["arrays_bytes"]
    lines = [f"{report['products']:,} products, vectors of {report['width']}: "
             f"{sum(arrays.values()) / 1e6:.0f} MB",
             ", ".join(f"{name} {size / 1e6:.0f}" for name, size in arrays.items())]
    lines += [f"worker {number}: shared {seen['shared_mb']:.0f} MiB, own {seen['own_mb']:.1f} MiB, "
              f"look-up of {WINDOW} ids and vectors p50 {seen['lookup_p50_ms']:.3f} ms"
              for number, seen in enumerate(report["workers"], 1)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_code(main))
