"""Product changes reach the table of the ranker in use, and of the next one before its turn."""

from __future__ import annotations

import logging
import time

import pytest

from sidecar.serving.catalogue import CatalogueRefresh
from sidecar.serving.telemetry import Telemetry


class Table(dict):
    """Items by id."""

    def upsert(self, rows, *, anew=False):
        assert not anew  # no process wrote before
        changed = [row for row in rows if self.get(row["item_id"]) != row]
        self.update((row["item_id"], row) for row in rows)
        return len(changed)


class Ranker:
    def __init__(self):
        self.items = Table()


class Catalogue:
    """Rows in order of their change; readers remember how far they have read."""

    def __init__(self):
        self.rows = []
        self.uuids = {"products-1": "u1"}
        self.error = None
        self.looks = 0

    def open(self):
        return Reader(self)


class Reader:
    def __init__(self, catalogue):
        self.catalogue = catalogue
        self.uuids = {}
        self.read = 0

    def poll(self):
        self.catalogue.looks += 1
        if self.catalogue.error:
            raise self.catalogue.error
        self.uuids = self.catalogue.uuids
        while self.read < len(self.catalogue.rows):
            self.read += 1
            yield [self.catalogue.rows[self.read - 1]]


@pytest.fixture
def catalogue():
    return Catalogue()


@pytest.fixture
def in_use():
    return [Ranker()]


@pytest.fixture
def refresh(catalogue, in_use):
    return CatalogueRefresh(catalogue.open, lambda: in_use[0], Telemetry(), refresh_s=0.01,
                            index="products")


def wait_until(condition):
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_changes_are_taken_once(catalogue, in_use, refresh):
    catalogue.rows += [{"item_id": "a", "price": 1.0}, {"item_id": "b", "price": 2.0}]
    assert refresh.refresh() == 2
    assert refresh.refresh() == 0
    catalogue.rows.append({"item_id": "a", "price": 9.0})
    assert refresh.refresh() == 1
    assert in_use[0].items["a"]["price"] == 9.0


def test_next_model_sees_every_change_before_it_ranks(catalogue, in_use, refresh):
    catalogue.rows.append({"item_id": "a", "price": 1.0})
    refresh.refresh()
    new = Ranker()
    assert refresh.bring_up_to_date(new) == 1
    in_use[0] = new
    assert refresh.refresh() == 0
    assert set(new.items) == {"a"}


def test_nothing_is_read_while_there_is_no_model(catalogue, in_use, refresh):
    in_use[0] = None
    catalogue.rows.append({"item_id": "a"})
    assert refresh.refresh() == 0


def test_failing_catalogue_is_said_once_and_tried_again(catalogue, in_use, refresh, caplog):
    catalogue.error = OSError("gone")
    with caplog.at_level(logging.INFO, "sidecar"):
        refresh.start()
        wait_until(lambda: catalogue.looks >= 3)
        catalogue.rows.append({"item_id": "a"})
        catalogue.error = None
        looks = catalogue.looks
        wait_until(lambda: catalogue.looks >= looks + 3)
        refresh.stop()
    assert set(in_use[0].items) == {"a"}
    assert [record.message for record in caplog.records] == [
        "catalogue refresh failed", "catalogue refresh works again"]


def test_catalogue_that_is_not_there_is_said_once_and_so_is_its_return(
        catalogue, refresh, caplog):
    """A misspelt name and an alias that vanished look like a catalogue that is yet to be made."""
    there = catalogue.uuids
    with caplog.at_level(logging.INFO, "sidecar"):
        for uuids in (there, {}, {}, there, there, {}):
            catalogue.uuids = uuids
            refresh.refresh()
    absent = "catalogue is not there; load it, or set SIDECAR_PRODUCTS_INDEX"
    assert [(record.levelname, record.message, record.index) for record in caplog.records] == [
        ("WARNING", absent, "products"), ("INFO", "catalogue is there", "products"),
        ("WARNING", absent, "products")]
