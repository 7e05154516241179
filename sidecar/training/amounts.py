"""How much does the blend learn from? Scales lists and epochs to the number of shoppers.

A shop of many shoppers gives as many lists as ``most_lists`` allows, each read ``epochs`` times. A
blend soon knows few shoppers by heart, so a smaller shop's lists are read a fixed number of times
per shopper. If visits are few, more lists are made of each visit and read more often; if visits are
many, each list is read less often. With 6 lists per visit, read 8 times, the blends of two eighths
and a 32nd of online_retail's shoppers had .008, .012 and .017 less MRR on its dev window. Read 16
times, those of two 32nds of complete_journey's households had some .007 less on its own. Pure; no
I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_PER_VISIT = 24


@dataclass(frozen=True, slots=True)
class Amounts:
    """``lists`` at most, ``per_visit`` of a visit at most; ``reads`` of lists in all, which is
    ``epochs`` readings of each, half to twice as many in a shop of few shoppers."""

    lists: int
    per_visit: int
    reads: int
    epochs: int

    @classmethod
    def of(cls, shoppers: int, visits: int, *, most_lists: int, per_visit: int, epochs: int,
           reads_per_shopper: int) -> Amounts:
        """Work them out for a log in which ``shoppers`` took something, in ``visits``; the other
        arguments are ``TrainConfig``'s, of a shop of many shoppers."""
        reads = min(most_lists * epochs, reads_per_shopper * shoppers)
        wanted = -(-2 * reads // (epochs * max(visits, 1)))  # many a visit gives but half of them
        return cls(min(most_lists, -(-2 * reads // epochs)),
                   max(per_visit, min(MOST_PER_VISIT, wanted)), reads, epochs)

    def epochs_of(self, lists: int) -> int:
        """Return how often that many lists, at least one, are read."""
        return max(1, round(min(2 * self.epochs, max(self.epochs / 2, self.reads / lists))))
