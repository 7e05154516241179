"""One item table for all workers: the same rows, the same scores, one writer at a time."""

from __future__ import annotations

import fcntl
import threading
import time

import numpy as np
import pytest

from sidecar.ranking.item_ids import ItemIds
from sidecar.ranking.items import SHARED, TABLE, ItemTable
from sidecar.records import PackedIds
from sidecar.serving import catalogue
from sidecar.serving.catalogue import CatalogueRefresh
from sidecar.serving.telemetry import Telemetry
from sidecar.stores.shared_items import TABLES, SharedItems
from tests.shops import context, fresh_ranker, history_of, make_events, make_rows, state_of, window


def ids_of(*ids):
    shapes = ItemIds.shapes(50, 500)
    made = ItemIds({name: np.zeros(size, dtype) for name, (size, dtype) in shapes.items()})
    made.extend(ids)
    return made


def test_ids_are_found_as_text_and_as_bytes_of_an_answer():
    ids = ids_of("a", "bb", "äöü", "a b")
    assert ids.rows(["bb", None, "x", "äöü", "", "a"]).tolist() == [1, -1, -1, 2, -1, 0]
    spans = np.array([[1, 3], [4, 5], [6, 7]], np.int32)
    assert ids.rows(PackedIds(b"-bb-a-x", spans)).tolist() == [1, 0, -1]
    assert list(ids) == ["a", "bb", "äöü", "a b"]
    assert (ids[3], ids[-1], ids[1:3], len(ids)) == ("a b", "a b", ["bb", "äöü"], 4)
    assert "bb" in ids
    assert "b" not in ids
    with pytest.raises(IndexError):
        ids[4]


def test_many_ids_keep_their_rows():
    names = [f"item-{n * 7919 % 100_003}" for n in range(5000)]
    shapes = ItemIds.shapes(5000, 80_000)
    ids = ItemIds({name: np.zeros(size, dtype) for name, (size, dtype) in shapes.items()})
    for start in range(0, 5000, 700):
        ids.extend(names[start:start + 700])
    assert ids.rows(names).tolist() == list(range(5000))
    assert ids.rows(["item-x", *names[:2]]).tolist() == [-1, 0, 1]


def test_no_ids_are_no_rows():
    assert ids_of().rows([]).tolist() == []
    assert ids_of().rows(["a"]).tolist() == [-1]


@pytest.fixture
def shop():
    return fresh_ranker()


@pytest.fixture
def shared(tmp_path):
    made = []

    def share(table, version="v1"):
        made.append(SharedItems(tmp_path, version))
        made[-1].adopt(table)
        return made[-1]

    yield share
    for one in made:
        one.close()


def copy_of(table):
    return ItemTable.from_arrays(table.vocabulary, list(table.ids), {
        name: getattr(table, name)[:len(table)].copy() for name in TABLE})


def row(item_id, **more):
    return {"item_id": item_id, "title": "new thing", "brand": None, "categories": [], **more}


def test_shared_table_holds_the_rows_in_half_precision(shop, shared):
    before = copy_of(shop.items)
    shared(shop.items)
    count = len(before)
    assert list(shop.items.ids) == before.ids
    for name in SHARED:
        atol = 1e-3 if name == "vectors" else 0.0
        np.testing.assert_allclose(getattr(shop.items, name)[:count].astype(np.float64),
                                   getattr(before, name), atol=atol, rtol=1e-3)


def test_scores_differ_by_less_than_a_hundredth(shop, shared):
    candidates = window(shop.items.ids[:30])
    events = [event for event in make_events(make_rows()) if event.user_id == "u1"]
    state = state_of(history_of(events), shop)
    alone = shop.rank(candidates, state, context())
    shared(shop.items)
    together = shop.rank(candidates, state, context())
    np.testing.assert_allclose(together.scores, alone.scores, atol=0.01)
    assert shop.advance(None, history_of(events[:5])).dtype == np.float32


def test_what_one_worker_writes_the_others_see(shop, shared):
    other = copy_of(shop.items)
    first, second = shared(shop.items), shared(other)
    assert first.may_write()
    assert not second.may_write()
    assert shop.items.upsert([row("brand-new", price=3.0), row(shop.items.ids[0], price=99.0)]) == 2
    assert other.rows(["brand-new"]).tolist() == [len(other) - 1]
    assert np.array_equal(other.numbers[:len(other)], shop.items.numbers[:len(other)],
                          equal_nan=True)
    first.close()
    assert second.may_write()


def test_table_grows_beyond_its_room_for_everybody(shop, shared):
    other = copy_of(shop.items)
    shared(shop.items)
    follower = shared(other)
    many = [row(f"more-{n}") for n in range(3000)]
    assert shop.items.upsert(many) == 3000
    assert other.rows(["more-2999"]).tolist() == [-1]
    follower.follow(other)
    assert other.rows(["more-2999"]).tolist() == [len(shop.items) - 1]
    assert len(other.brand) >= len(other)


def test_repeated_and_unchanged_rows_are_counted_once(shop, shared):
    shared(shop.items)
    assert shop.items.upsert([row("twice", price=1.0), row("twice", price=2.0)]) == 1
    assert shop.items.upsert([row("twice", price=2.0)]) == 0


class Changes:
    """Rows that are read once, by whoever resumes where the last reader was."""

    uuids = {"products-1": "u"}  # noqa: RUF012 (never written)

    def __init__(self, rows, opened):
        self.rows, self.progress, self.looks = rows, 0, 0
        opened.append(self)

    def resume(self, progress):
        self.progress = progress

    def look(self):
        self.looks += 1

    def poll(self):
        while self.progress < len(self.rows):
            self.progress += 1
            yield [self.rows[self.progress - 1]]


class Ranker:
    def __init__(self, items):
        self.items = items


def test_one_process_reads_the_catalogue_and_the_next_goes_on_where_it_was(shop, shared):
    other, opened = copy_of(shop.items), []
    shared(shop.items)
    shared(other)
    rows = [row("n-1"), row("n-2")]
    refreshes = []
    for table in (shop.items, other):
        ranker = Ranker(table)
        refreshes.append(CatalogueRefresh(lambda: Changes(rows, opened), lambda r=ranker: r,
                                          Telemetry(), refresh_s=60.0))
    assert refreshes[0].refresh() == 2
    assert refreshes[1].refresh() == 0
    assert refreshes[1].uuid_of("products-1") == "u"
    assert other.rows(["n-2"]).tolist() == [len(other) - 1]
    refreshes[0].stop()
    rows.append(row("n-3"))
    assert refreshes[1].refresh() == 1
    assert shop.items.rows(["n-3"]).tolist() == [len(other) - 1]
    refreshes[1].stop()


def tables_in(folder):
    return {table.name for table in (folder / TABLES).iterdir()}


def test_table_of_a_model_before_is_removed_by_the_last_who_used_it(shop, shared, tmp_path):
    tables = [shop.items, copy_of(shop.items)]
    before = [shared(table) for table in tables]
    after = [shared(fresh_ranker().items, "v2") for _ in tables]
    before[0].close()
    after[0].remove_others()
    assert tables_in(tmp_path) == {"v1", "v2"}
    assert before[1].may_write()
    before[1].close()
    after[1].remove_others()
    assert tables_in(tmp_path) == {"v2"}
    assert shop.items.rows([shop.items.ids[3]]).tolist() == [3]


def test_table_of_a_model_after_is_not_removed_by_who_was_slow(shop, shared, tmp_path):
    """A second swap began while a worker still prepared the first."""
    newest = copy_of(shop.items)
    slow_table = copy_of(shop.items)
    shared(shop.items).close()
    slow = shared(slow_table, "v2")
    storage = shared(newest, "v3")
    slow.remove_others()
    assert tables_in(tmp_path) == {"v2", "v3"}
    storage.follow(newest)
    assert storage.may_write()


def test_table_of_another_sidecar_stays_while_it_runs(shop, shared, tmp_path):
    """Each has its own model; that they share the folder is a mistake, but not a costly one."""
    storage = shared(shop.items, "theirs")
    assert storage.may_write()
    shared(fresh_ranker().items, "ours").remove_others()
    storage.note(2)
    assert shop.items.upsert([row(f"more-{n}") for n in range(3000)]) == 3000
    assert tables_in(tmp_path) == {"theirs", "ours"}


def test_folders_of_others_are_left_alone(shop, shared, tmp_path):
    photos = [tmp_path / "photos" / "a.jpg", tmp_path / TABLES / "photos" / "a.jpg"]
    for photo in photos:
        photo.parent.mkdir(parents=True)
        photo.write_text("x")
    shared(shop.items).remove_others()
    assert all(photo.exists() for photo in photos)


def test_table_that_is_removed_while_somebody_waits_for_it_is_made_anew(shop, shared, tmp_path):
    table = copy_of(shop.items)
    shared(shop.items).close()
    folder, adopted = tmp_path / TABLES / "v1", []
    with (folder / "held").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: adopted.append(shared(table)))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
        assert not adopted
        folder.rename(tmp_path / "removed")
    waiting.join(10)
    assert adopted[0].may_write()
    assert (folder / "current").exists()


def changed_row(item_id):
    return row(item_id, price=999.0, title="black lamp", brand="Dune", categories=["lamps"])


def test_failed_encoding_leaves_the_row_as_it_was_until_the_next_attempt(shop):
    encode, item_id = shop.items.encode, shop.items.ids[0]
    before = copy_of(shop.items)

    def fail(table, index):
        raise RuntimeError("out of memory")

    shop.items.encode = fail
    with pytest.raises(RuntimeError):
        shop.items.upsert([row("new"), changed_row(item_id)])
    for name in TABLE:
        np.testing.assert_array_equal(getattr(shop.items, name)[:len(before)],
                                      getattr(before, name))
    shop.items.encode = encode
    assert shop.items.upsert([row("new"), changed_row(item_id)]) == 2
    np.testing.assert_allclose(shop.items.vectors[0], encode(shop.items, np.array([0]))[0],
                               atol=1e-5)


def test_next_writer_encodes_what_the_one_before_left_half_written(shop, shared):
    """It was killed when it had written the features and not yet the vector."""
    other, encode = copy_of(shop.items), shop.items.encode
    other.encode = encode
    first = shared(shop.items)
    shared(other)
    rows = [changed_row(shop.items.ids[0])]
    assert first.may_write()
    shop.items.encode = None
    shop.items.upsert(rows)
    first.close()
    ranker = Ranker(other)
    refresh = CatalogueRefresh(lambda: Changes(rows, []), lambda: ranker, Telemetry(),
                               refresh_s=60.0)
    refresh.refresh()
    np.testing.assert_allclose(other.vectors[0].astype(np.float32),
                               encode(other, np.array([0]))[0], atol=1e-3)
    refresh.stop()


def test_worker_that_leaves_writes_nothing_once_another_may(shop, shared):
    """It is stopped in the middle of a page; the next one reads that page again."""
    other, page = copy_of(shop.items), [row(f"n-{n}") for n in range(1000)]
    base = len(other)
    shared(shop.items)
    successor = shared(other)
    opened = []
    refresh = CatalogueRefresh(lambda: Pages([page, page], opened), lambda: shop, Telemetry(),
                               refresh_s=60.0)
    running = set(threading.enumerate())
    refresh.start()
    until = time.monotonic() + 10
    while len(other) < base + catalogue.PIECE and time.monotonic() < until:
        time.sleep(0.001)
    refresh.stop()
    while not successor.may_write() and time.monotonic() < until:
        time.sleep(0.001)
    written = len(other)
    assert successor.may_write()
    for thread in set(threading.enumerate()) - running:
        thread.join(10)
    assert base < written == len(other) < base + len(page)
    assert successor.progress is None
    assert opened[0].progress == 0
    refresh.bring_up_to_date(shop)
    assert len(other) == written


class Pages(Changes):
    """Each entry is a page; one is read when the next is asked for."""

    def poll(self):
        for number, rows in enumerate(self.rows):
            yield rows
            self.progress = number + 1


class Interrupted(CatalogueRefresh):
    """Another of the worker's threads refreshes once the next ranker's table was read: as good as
    always, as each second brings one."""

    def bring_up_to_date(self, ranker):
        changed = super().bring_up_to_date(ranker)
        self.refresh()
        return changed


def test_unchanged_catalogue_keeps_no_worker_waiting_for_the_next_model(
        shop, shared, monkeypatch):
    """The next table has been read as far as the one before, which has to be noted again."""
    monkeypatch.setattr(catalogue, "PATIENCE_S", 5.0)
    new = fresh_ranker()
    shared(shop.items, "v1")
    refresh = CatalogueRefresh(lambda: Changes([], []), lambda: shop, Telemetry(), refresh_s=1.0)
    refresh.refresh()
    storage = shared(new.items, "v2")
    refresh.prepare(new)
    assert storage.progress == 0
    refresh.stop()


def test_refresh_beside_a_swap_stays_with_the_model_to_come(shop, shared, tmp_path):
    new, in_use = fresh_ranker(), [shop]
    shared(shop.items, "v1")
    refresh = Interrupted(lambda: Changes([], []), lambda: in_use[0], Telemetry(), refresh_s=1.0)
    refresh.refresh()
    storage = shared(new.items, "v2")
    refresh.prepare(new)
    refresh.refresh()
    assert tables_in(tmp_path) == {"v2"}
    assert not SharedItems(tmp_path, "v2").may_write()  # this process writes the new table
    assert storage.progress == 0
    in_use[0] = new
    refresh.refresh()
    assert not SharedItems(tmp_path, "v2").may_write()
    refresh.stop()


def test_failed_preparation_leaves_the_refresh_with_the_model_in_use(shop, shared):
    new = fresh_ranker()
    read = []
    refresh = CatalogueRefresh(lambda: Changes(read, []), lambda: shop, Telemetry(), refresh_s=1.0)
    read.append(None)
    with pytest.raises(TypeError):
        refresh.prepare(new)
    read[:] = [row("late")]
    assert refresh.refresh() == 1
    assert "late" in shop.items


def test_worker_whose_models_table_was_removed_keeps_its_rows(shop, shared):
    """It had left it for the next model's, which then could not be switched in."""
    shared(shop.items, "v1").close()
    count = len(shop.items)
    shared(fresh_ranker().items, "v2").remove_others()
    storage = shop.items.storage
    storage.follow(shop.items)
    assert not storage.may_write()
    assert len(shop.items) == count


def test_full_disk_is_an_error_that_leaves_nothing_behind(shop, full_disk):
    """Not a SIGBUS, which would end the process."""
    count = len(shop.items)
    with pytest.raises(OSError, match="No space left"):
        SharedItems(full_disk, "v1").adopt(shop.items)
    assert not list(full_disk.rglob("*.npy"))
    assert len(shop.items) == count
