"""Write catalogue.jsonl.gz and events.jsonl.gz of a made-up shop, of any size; reads nothing.

Usage::

    python -m scripts.generate_shop --products 1000000 --users 100000 --events 3000000 --out DIR

Titles are put together from nouns, adjectives and made-up names of brands and series, in a tree of
departments, categories and kinds. Popularity of products, activity of users, brands and words of
titles are Zipf-distributed; users have tastes, shared with others, and buy some products again
(``_shop_products`` and ``_shop_visits`` say how). The events are those of the year 2025: searches,
clicks and views, carts and purchases, sorted by time. A product is at least as old as its first
event.

The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from scripts._arguments import seed, whole
from scripts._lines import write_lines
from scripts._program import exit_code
from scripts._shop_products import DAY_S, Products, make_products
from scripts._shop_visits import VisitEvents, make_events


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; data goes to files, progress to stderr; 0 done, 1 failed, 2 misused."""
    options = _parser().parse_args(argv)
    try:
        write(options.out, products=options.products, users=options.users,
              events=options.events, seed=options.seed)
    except OSError as error:
        print(f"generate_shop: {error}", file=sys.stderr)
        return 1
    return 0


def write(out: Path, *, products: int, users: int, events: int, seed: int = 0) -> None:
    """Write both files into ``out``; each appears under its name only when it is complete."""
    out.mkdir(parents=True, exist_ok=True)
    of_products, of_events = np.random.default_rng(seed).spawn(2)
    stock = make_products(products, of_products)
    log = make_events(stock, users, events, of_events)
    _date_back(stock, log)
    for name, rows, count in (("catalogue", stock.rows(), products),
                              ("events", log.rows(stock), events)):
        path = out / f"{name}.jsonl.gz"
        write_lines(path, tqdm(rows, name, count, unit=" rows"))
        print(f"{path}: {count} rows", file=sys.stderr)


def _date_back(products: Products, events: VisitEvents) -> None:
    """Let no product be younger than a day before its first event."""
    has_item = events.item >= 0
    np.minimum.at(products.created, events.item[has_item], events.ts[has_item] - DAY_S)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.generate_shop", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--products", type=whole(1), required=True, metavar="N")
    add("--users", type=whole(1), required=True, metavar="N")
    add("--events", type=whole(1), required=True, metavar="N")
    add("--seed", type=seed, default=0, metavar="N")
    add("--out", type=Path, required=True, metavar="DIR",
        help="directory for the two files; made if absent")
    return parser


if __name__ == "__main__":
    sys.exit(exit_code(main))
