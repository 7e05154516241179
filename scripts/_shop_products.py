"""What does a made-up shop sell? Columns of products, and the rows that a catalogue file holds.

Kinds of product (nouns), brands, words of titles and popularity follow Zipf's law: rank r has a
weight of 1/(r + c). A brand sells in a few categories, at one level of price in all of them.
Columns take about 40 bytes per product.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts._shop_words import ADJECTIVES, BASE_PRICES, COLOURS, MOST_NAMES, SIZES, kinds, names

IntArray = npt.NDArray[np.int32]
FloatColumn = npt.NDArray[np.float64]

OPENED = np.datetime64("2022-01-01T00:00:00").astype(np.int64)  # the oldest product's seconds
DAY_S = 86_400
PIECE = 50_000  # rows made at once
BRANDS = (20, 4000)
SERIES = (50, 20_000)
CODES = 20_000  # model codes, as E1234
NO_BRAND = 0.05  # share of products
QUERY_FORMS = (0.3, 0.25, 0.2, 0.15, 0.1)  # noun; brand, adjective before it; colour after; series


@dataclass(frozen=True, slots=True)
class Words:
    """What the codes of products mean; an empty text where a product has none."""

    nouns: list[str]
    categories: list[list[str]]  # of each noun, widest first
    sizes: list[list[str]]  # of each noun
    brands: list[str]
    series: list[str]
    adjectives: list[str]
    colours: list[str]


@dataclass(frozen=True, slots=True)
class Products:
    """Columns of n products in the order of the file; product k has the id ``item_id(k)``.

    ``kind`` (n) codes of nouns; ``brand``, ``series``, ``adjective``, ``colour`` (n) codes, 0 for
    none; ``size`` (n) codes among the noun's sizes, ``code`` (n) numbers of a model code, -1 for
    none; ``price`` (n); ``weight`` (n) how popular each is; ``rating`` (n), ``reviews`` (n);
    ``created`` (n) seconds since 1970.
    """

    words: Words
    kind: IntArray
    brand: IntArray
    series: IntArray
    adjective: IntArray
    colour: IntArray
    size: IntArray
    code: IntArray
    price: FloatColumn
    weight: FloatColumn
    rating: FloatColumn
    reviews: IntArray
    created: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.kind)

    def query(self, k: int, form: int) -> str:
        """Return what a shopper types who looks for product ``k``, in one of QUERY_FORMS."""
        words = self.words
        before = after = ""
        if form == 1:
            before = words.brands[self.brand[k]].lower()
        elif form == 2:
            before = words.adjectives[self.adjective[k]]
        elif form == 3:
            after = words.colours[self.colour[k]]
        elif form == 4:
            before = words.series[self.series[k]].lower()
        return " ".join(filter(None, (before, words.nouns[self.kind[k]], after)))

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of a catalogue file."""
        for start in range(0, len(self), PIECE):
            yield from self._piece(slice(start, start + PIECE))

    def _piece(self, cut: slice) -> Iterator[dict[str, Any]]:
        words = self.words
        created_at = np.datetime_as_string(self.created[cut].astype("datetime64[s]")).tolist()
        pieces = [column[cut].tolist() for column in (
            self.kind, self.brand, self.series, self.adjective, self.colour, self.size, self.code,
            self.price, self.rating, self.reviews)]
        for number, (kind, brand, series, adjective, colour, size, code, price, rating, reviews,
                     created) in enumerate(zip(*pieces, created_at, strict=True), cut.start):
            title = " ".join(filter(None, (
                words.brands[brand], words.series[series], words.adjectives[adjective],
                words.nouns[kind], words.colours[colour],
                f"{'EKMPRSTX'[code % 8]}{code}" if code >= 0 else "", words.sizes[kind][size])))
            row = {"item_id": item_id(number), "title": title, "brand": words.brands[brand] or None,
                   "categories": words.categories[kind], "price": price, "currency": "EUR",
                   "review_count": reviews, "created_at": created}
            yield row | {"rating": rating} if reviews else row


def item_id(number: int) -> str:
    """Return the id of the product of that number."""
    return f"p{number}"


def zipf(count: int) -> FloatColumn:
    """Return weights (count) of ranks that fall as 1/(r + c) and add up to 1; c flattens the head
    so that no single one outweighs all others."""
    weights = 1.0 / (np.arange(count) + 1.0 + count / 1000)
    return weights / weights.sum()


def drawn(weights: FloatColumn, count: int, rng: np.random.Generator) -> IntArray:
    """Return codes (count) drawn with their weights."""
    sums = np.cumsum(weights)
    found = np.searchsorted(sums, rng.random(count) * sums[-1], side="right")
    return np.minimum(found, len(weights) - 1).astype(np.int32)


def make_products(count: int, rng: np.random.Generator) -> Products:
    """Make up ``count`` products."""
    words = _words(count, rng)
    kind = drawn(zipf(len(words.nouns)), count, rng)
    brand = _brands(kind, words, rng)
    colour = drawn(zipf(len(COLOURS)), count, rng) + 1
    size = _within(np.array([len(found) for found in words.sizes])[kind], rng)
    weight = rng.permutation(zipf(count))
    reviews = rng.poisson(weight * count * 12 * rng.lognormal(0, 0.5, count))
    return Products(
        words=words, kind=kind, brand=brand,
        series=_some(drawn(zipf(len(words.series) - 1), count, rng) + 1, 0.7, rng),
        adjective=_some(drawn(zipf(len(ADJECTIVES)), count, rng) + 1, 0.8, rng),
        colour=_some(colour, 0.6, rng), size=size,
        code=np.where(rng.random(count) < 0.3, rng.integers(100, CODES, count), -1
                      ).astype(np.int32),
        price=_prices(kind, brand, words, rng), weight=weight,
        rating=np.clip(np.round(rng.normal(4.1, 0.45, count), 1), 1.0, 5.0),
        reviews=reviews.astype(np.int32),
        created=OPENED + rng.integers(0, 4 * 365 * DAY_S, count))


def _words(count: int, rng: np.random.Generator) -> Words:
    stock = kinds()
    brands, series = (int(np.clip(factor * count ** 0.5, *bounds))
                      for factor, bounds in ((3, BRANDS), (8, SERIES)))
    assert brands + series <= MOST_NAMES
    made = [name.capitalize() for name in names(brands + series, rng)]
    sizes = {department: ["", *text.split(", ")] for department, text in SIZES.items()}
    return Words(
        nouns=stock.noun,
        categories=[[department, category, noun.capitalize()] for noun, category, department
                    in zip(stock.noun, stock.category, stock.department, strict=True)],
        sizes=[sizes[department] for department in stock.department],
        brands=["", *made[:brands]], series=["", *made[brands:]],
        adjectives=["", *ADJECTIVES], colours=["", *COLOURS])


def _brands(kind: IntArray, words: Words, rng: np.random.Generator) -> IntArray:
    """Return each product's brand: one at home in its category, a large one more likely."""
    home, category_of_kind = np.unique([" / ".join(names[:2]) for names in words.categories],
                                       return_inverse=True)
    sizes = zipf(len(words.brands) - 1)
    each = min(len(sizes), max(8, 3 * len(sizes) // len(home)))
    at_home = np.stack([rng.choice(len(sizes), each, replace=False, p=sizes) for _ in home])
    sums = np.cumsum(sizes[at_home], axis=1)
    sums = sums / sums[:, -1:] + np.arange(len(home))[:, None]  # category c lies in c to c + 1
    category = category_of_kind[kind]
    place = np.searchsorted(sums.ravel(), category + rng.random(len(kind)), side="right")
    place = np.minimum(place, (category + 1) * each - 1)
    return _some((at_home.ravel()[place] + 1).astype(np.int32), 1 - NO_BRAND, rng)


def _prices(kind: IntArray, brand: IntArray, words: Words,
            rng: np.random.Generator) -> FloatColumn:
    base = np.array([BASE_PRICES[names[0]] for names in words.categories])
    base = base * rng.lognormal(0, 0.6, len(base))
    level = rng.lognormal(0, 0.35, len(words.brands))
    price = base[kind] * level[brand] * rng.lognormal(0, 0.25, len(kind))
    return np.round(np.maximum(np.floor(price * 2) / 2, 1.0) - 0.01, 2)


def _within(sizes: npt.NDArray[np.integer], rng: np.random.Generator) -> IntArray:
    """Return a code below each of ``sizes``, a small one more likely."""
    return (sizes * rng.random(len(sizes)) ** 2).astype(np.int32)


def _some(codes: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """Return ``codes`` with 0, for none, where the share does not have one."""
    return np.where(rng.random(len(codes)) < share, codes, 0).astype(np.int32)
