"""How much does each kind of event say about what a shopper wants?

Event words are free (``purchase``, ``view``, …, or any other); each maps to a strength in [-1, 1].
A *strong* event is one of the kind that the model was trained to bring about (purchases where the
shop logs them, else the strongest that it has); every other positive event is *weak*. Words of
other systems for the same are known too, however they are written: ``AddToCart``, ``add-to-cart``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

STRENGTHS: Mapping[str, float] = {
    "purchase": 1.0, "add_to_cart": 0.6, "review": 0.5, "favourite": 0.5, "share": 0.5,
    "click": 0.3, "view": 0.25, "impression": 0.0, "search": 0.0,
    "return": -1.0, "remove_from_cart": -0.5, "dislike": -1.0,
}
UNKNOWN_STRENGTH = 0.25
WORDS = 1024  # that are kept worked out: a shop has a dozen
_OTHER_WORDS: Mapping[str, str] = {
    "purchase": "buy bought purchased order ordered order_placed order_completed checkout "
                "transaction sale sold",
    "add_to_cart": "cart add_to_basket basket add_to_bag product_added",
    "favourite": "favorite fav add_to_wishlist wishlist like",
    "click": "click_through item_click product_click product_clicked select_item",
    "view": "watch view_item item_view page_view pv product_view product_viewed detail_view",
    "impression": "impressions view_item_list product_impression product_list_viewed shown",
    "return": "returned refund refunded order_refunded cancel canceled cancelled cancellation",
    "remove_from_cart": "remove_from_basket product_removed",
}


def _plain(word: str) -> str:
    return "".join(filter(str.isalnum, word.casefold()))


_MEANINGS = {_plain(known): known for known in STRENGTHS} | {
    _plain(other): known for known, others in _OTHER_WORDS.items() for other in others.split()}


@lru_cache(WORDS)
def meaning(event: str) -> str | None:
    """Return the word of ``STRENGTHS`` that an event word stands for; None if it is unknown."""
    return _MEANINGS.get(_plain(event))


@lru_cache(WORDS)
def is_among(event: str, kinds: frozenset[str]) -> bool:
    """Return True if an event word is one of ``kinds`` or, as another system writes it, means what
    one of them does."""
    known = meaning(event)
    return event in kinds or (known is not None and known in map(meaning, kinds))


def is_impression(event: str) -> bool:
    """Return True for what a shop did and not a shopper: it is logged, and in no history."""
    return meaning(event) == "impression"


def strength(event: str) -> float:
    """Return the strength of an event word in [-1, 1]; unknown words count as a view."""
    return STRENGTHS.get(meaning(event) or "", UNKNOWN_STRENGTH)


def word_of(event: str, quantity: float | None) -> str:
    """Return the word that an event counts under: many shops log a return as a purchase of a
    negative quantity."""
    is_return = quantity is not None and quantity < 0 and meaning(event) == "purchase"
    return "return" if is_return else event


def target_kinds(events: Iterable[str], counts: Iterable[int], *, share: float = 0.005,
                 ) -> frozenset[str]:
    """Return the kinds of event that a model should bring about.

    The strongest kinds that make up at least ``share`` of all events with an item; two kinds of
    equal strength (``purchase``, ``order``) are both taken.
    """
    pairs = [(word, count) for word, count in zip(events, counts, strict=True)
             if strength(word) > 0]
    total = sum(count for _, count in pairs)
    frequent = [word for word, count in pairs if count >= max(share * total, 1)]
    if not frequent:
        return frozenset()
    best = max(strength(word) for word in frequent)
    return frozenset(word for word, _ in pairs if strength(word) == best)
