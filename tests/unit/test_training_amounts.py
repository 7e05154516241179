"""How much the blend learns from: what a shop has, and what does not make it learn by heart."""

from __future__ import annotations

import pytest

from sidecar.training.amounts import MOST_PER_VISIT, Amounts


def amounts(shoppers, visits, epochs=12):
    return Amounts.of(shoppers, visits, most_lists=48_000, per_visit=6, epochs=epochs,
                      reads_per_shopper=480)


@pytest.mark.parametrize(("shoppers", "visits"), [(2_400, 54_000), (100_000, 1_000_000)])
def test_shop_of_many_shoppers_gives_all_lists_that_may_be(shoppers, visits):
    found = amounts(shoppers, visits)
    assert (found.lists, found.per_visit, found.epochs_of(48_000)) == (48_000, 6, 12)


def test_few_visits_give_more_lists_each_and_are_read_more_often():
    found = amounts(300, 780)
    assert 6 < found.per_visit <= MOST_PER_VISIT
    assert 12 < found.epochs_of(7_000) <= 24


def test_few_shoppers_of_many_visits_are_read_less_often():
    found = amounts(300, 6_700)
    assert found.per_visit == 6
    assert 6 <= found.epochs_of(18_500) < 12


def test_lists_are_no_more_than_can_be_read_half_as_often():
    found = amounts(10, 10_000)
    assert found.lists == 800
    assert found.epochs_of(found.lists) == 6


@pytest.mark.parametrize(("shoppers", "visits", "lists"), [(1, 1, 1), (0, 0, 1), (1, 10**6, 80)])
def test_tiniest_shops_are_read_too(shoppers, visits, lists):
    for epochs in (1, 12):
        assert amounts(shoppers, visits, epochs).epochs_of(lists) >= 1
