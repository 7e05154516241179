"""What do a made-up shop's shoppers do in a year? Columns of events, and an events file's rows.

How often users come is Zipf-distributed. Each user has a few tastes: a brand's products of one
kind. Most tastes come from one of several shared styles, so that like-minded shoppers exist. A few
products of those tastes are the user's staples, which the user looks at and buys again and again.
A visit is a search (or none), then views of some products of a kind, and for the last of them
perhaps a cart and a purchase. Columns take about 50 bytes per event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scripts._shop_products import (
    DAY_S,
    PIECE,
    QUERY_FORMS,
    FloatColumn,
    IntArray,
    Products,
    drawn,
    item_id,
    zipf,
)

KINDS = ("search", "click", "view", "add_to_cart", "purchase")
SEARCH, CLICK, VIEW, CART, PURCHASE = range(len(KINDS))
BEGIN = np.datetime64("2025-01-01T00:00:00").astype(np.int64)
DAYS = 365
BY_HOUR = np.array([2, 1, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 10, 9, 8, 8, 9, 10, 12, 14, 15, 13, 9, 5])
TASTES, STAPLES, STYLE_TASTES = 4, 6, 8  # a user, a user, a style
OWN_TASTE = 0.25  # share of tastes that no style has
STAPLE, TASTE, KIND = 0.4, 0.75, 0.93  # up to here: a staple, a taste, its kind; else anything
SEARCHED = 0.85  # share of visits
BUY_STAPLE, BUY_OTHER = 0.45, 0.15  # share of visits that end with a purchase
LEFT_IN_CART = 0.12


@dataclass(frozen=True, slots=True)
class Shelves:
    """Products by kind and brand, side by side, so that both are stretches to draw from.

    ``order`` (n) products; ``sums`` (n + 1) their weights added up; ``kind`` and ``brand`` (n, 2)
    first and last place of each product's kind, and of its kind and brand.
    """

    order: IntArray
    sums: FloatColumn
    kind: IntArray
    brand: IntArray

    def draw(self, stretch: IntArray, rng: np.random.Generator) -> IntArray:
        """Return a product out of each stretch (m, 2), a popular one more likely."""
        low, high = self.sums[stretch[:, 0]], self.sums[stretch[:, 1] + 1]
        place = np.searchsorted(self.sums, low + rng.random(len(low)) * (high - low), "right") - 1
        return self.order[np.clip(place, stretch[:, 0], stretch[:, 1])]


@dataclass(frozen=True, slots=True)
class VisitEvents:
    """Columns of m events, sorted by ``ts``: ``user``, ``item`` (-1 for a search), ``kind``,
    ``ts`` in seconds, ``visit``; and of each visit, the item that it is about, as ``about``, and
    the ``form`` of its query."""

    user: IntArray
    item: IntArray
    kind: npt.NDArray[np.int8]
    ts: npt.NDArray[np.int64]
    visit: IntArray
    about: IntArray
    form: IntArray

    def __len__(self) -> int:
        return len(self.ts)

    def rows(self, products: Products) -> Iterator[dict[str, Any]]:
        """Yield the rows of an events file."""
        for start in range(0, len(self), PIECE):
            yield from self._piece(products, slice(start, start + PIECE))

    def _piece(self, products: Products, cut: slice) -> Iterator[dict[str, Any]]:
        visits = self.visit[cut]
        columns = (self.user[cut], self.item[cut], self.kind[cut], visits, self.about[visits],
                   self.form[visits], np.datetime_as_string(self.ts[cut].astype("datetime64[s]")))
        pieces = [column.tolist() for column in columns]
        for user, item, kind, visit, about, form, ts in zip(*pieces, strict=True):
            row = {"user_id": f"u{user}", "item_id": item_id(item) if item >= 0 else None,
                   "event": KINDS[kind], "ts": ts,
                   "query": products.query(about, form) if kind in (SEARCH, CLICK) else None,
                   "session_id": f"s{visit}"}
            if kind == PURCHASE:
                row |= {"quantity": 1, "unit_price": float(products.price[item])}
            yield row


def shelve(products: Products) -> Shelves:
    """Put products of a kind and a brand side by side."""
    key = products.kind.astype(np.int64) * len(products.words.brands) + products.brand
    order = np.argsort(key, kind="stable")
    return Shelves(order.astype(np.int32), np.append(0.0, np.cumsum(products.weight[order])),
                   _stretches(products.kind, order), _stretches(key, order))


def _stretches(code: npt.NDArray[np.integer], order: npt.NDArray[np.integer]) -> IntArray:
    ascending = code[order]
    first = np.searchsorted(ascending, code, side="left")
    last = np.searchsorted(ascending, code, side="right") - 1
    return np.stack([first, last], axis=1).astype(np.int32)


def make_events(products: Products, users: int, count: int,
                rng: np.random.Generator) -> VisitEvents:
    """Make up ``count`` events of up to ``users`` users within a year."""
    shelves = shelve(products)
    most = -(-count // 2)  # a visit has two events at least
    user = drawn(rng.permutation(zipf(users)), most, rng)
    lengths, why = _lengths(most, rng)
    visits = int(np.searchsorted(np.cumsum(lengths), count)) + 1
    lengths, why, user = lengths[:visits], why[:visits], user[:visits]
    lengths[-1] -= lengths.sum() - count
    about = _about(products, shelves, users, user, why[:, 0], rng)
    start = _starts(visits, rng)
    visit = np.repeat(np.arange(visits, dtype=np.int32), lengths)
    place = np.arange(count) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kind, is_about = _kinds(why[visit], place)
    item = about[visit]
    item[~is_about] = shelves.draw(shelves.kind[item[~is_about]], rng)
    item[kind == SEARCH] = -1
    ts = start[visit] + place * rng.integers(10, 90, visits)[visit]
    order = np.argsort(ts, kind="stable")
    return VisitEvents(user[visit][order], item[order], kind[order], ts[order], visit[order], about,
                       drawn(np.array(QUERY_FORMS), visits, rng))


def _lengths(visits: int, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.int8]]:
    """Return the number of events of each visit, and why it has so many (visits, 4): what it is
    about (0 a staple, 1 a taste, 2 a taste's kind, 3 anything), whether there is a search, how many
    products are looked at, how far it goes after that (1 cart, 2 purchase)."""
    what = np.searchsorted([STAPLE, TASTE, KIND], rng.random(visits), side="right")
    searched = rng.random(visits) < SEARCHED
    looks = np.minimum(rng.geometric(0.55, visits), 6) + ~searched  # two events at least
    chance, buy = rng.random(visits), np.where(what == 0, BUY_STAPLE, BUY_OTHER)
    after = np.where(chance < buy, 2, chance < buy + LEFT_IN_CART)
    why = np.stack([what, searched, looks, after], axis=1).astype(np.int8)
    return (why[:, 1:].sum(axis=1, dtype=np.int32)), why


def _about(products: Products, shelves: Shelves, users: int, user: IntArray,
           what: npt.NDArray[np.int8], rng: np.random.Generator) -> IntArray:
    """Return the product that each visit is about."""
    everything = np.array([[0, len(products) - 1]], np.int32)
    styles = 4 + int(users ** 0.5 / 4)
    of_style = shelves.draw(everything.repeat(styles * STYLE_TASTES, axis=0), rng)
    mine = rng.integers(0, styles, users)[:, None] * STYLE_TASTES \
        + rng.integers(0, STYLE_TASTES, (users, TASTES))
    taste = np.where(rng.random((users, TASTES)) < OWN_TASTE,
                     shelves.draw(everything.repeat(users * TASTES, axis=0), rng
                                  ).reshape(users, TASTES), of_style[mine])
    of_taste = np.take_along_axis(taste, rng.integers(0, TASTES, (users, STAPLES)), axis=1)
    staple = shelves.draw(shelves.brand[of_taste.ravel()], rng).reshape(users, STAPLES)
    chosen = taste[user, (TASTES * rng.random(len(user)) ** 1.5).astype(np.int32)]
    stretch = np.where((what == 1)[:, None], shelves.brand[chosen], shelves.kind[chosen])
    stretch[what == 3] = everything
    usual = staple[user, (STAPLES * rng.random(len(user)) ** 1.5).astype(np.int32)]
    return np.where(what == 0, usual, shelves.draw(stretch, rng))


def _starts(visits: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return when visits begin, in seconds, ascending: evenly over the days, most in the evening.
    The last hour of the year is left to those that go on."""
    day, second = rng.integers(0, DAYS, visits), rng.integers(0, 3600, visits)
    starts = BEGIN + day * DAY_S + drawn(BY_HOUR.astype(float), visits, rng) * 3600 + second
    return np.sort(np.minimum(starts, BEGIN + DAYS * DAY_S - 3600))


def _kinds(why: npt.NDArray[np.int8], place: npt.NDArray[np.integer],
           ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Return the kinds of events (m), from each one's visit (m, 4) and place in it, and which are
    of the product that the visit is about: all from the last look on."""
    searched, looked = why[:, 1], why[:, 1] + why[:, 2]
    kind = np.where(searched, CLICK, VIEW)
    kind[place < searched] = SEARCH
    kind[place == looked] = CART
    kind[place > looked] = PURCHASE
    return kind.astype(np.int8), (place >= looked - 1) | (place < searched)
