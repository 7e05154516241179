"""How much does each kind of event say about what a shopper wants?

Event words are free (``purchase``, ``view``, …, or any other); each maps to a strength in [-1, 1].
A *strong* event is one of the kind that the model was trained to bring about (purchases where the
shop logs them, else the strongest that it has); every other positive event is *weak*.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

STRENGTHS: Mapping[str, float] = {
    "purchase": 1.0, "buy": 1.0, "order": 1.0, "checkout": 1.0,
    "add_to_cart": 0.6, "cart": 0.6, "review": 0.5, "favourite": 0.5, "favorite": 0.5,
    "share": 0.5, "click": 0.3, "view": 0.25, "watch": 0.25,
    "impression": 0.0, "search": 0.0,
    "return": -1.0, "refund": -1.0, "remove_from_cart": -0.5, "dislike": -1.0,
}
UNKNOWN_STRENGTH = 0.25


def strength(event: str) -> float:
    """Return the strength of an event word in [-1, 1]; unknown words count as a view."""
    return STRENGTHS.get(event, UNKNOWN_STRENGTH)


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
