"""Model directories: what is written is what is read, and what does not fit is said so."""

from __future__ import annotations

import gc
import json
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sidecar.errors import ModelError
from sidecar.ranking.items import TABLE, ItemTable
from sidecar.stores.models import (
    load_networks,
    load_ranker,
    model_version,
    pick_device,
    save_ranker,
)
from sidecar.stores.shared_items import SharedItems
from tests.shops import context, fresh_ranker, history_of, make_events, make_rows, state_of, window

CUPS = tuple(f"i{k}" for k in range(0, 60, 6))
HISTORY = history_of([e for e in make_events(make_rows()) if e.user_id == "u1"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    model_dir = tmp_path_factory.mktemp("models") / "shop"
    save_ranker(fresh_ranker(), model_dir, {"gain": 0.1})
    return model_dir


@pytest.fixture
def model_dir(saved, tmp_path) -> Path:
    return shutil.copytree(saved, tmp_path / "model")


def arrays_of(model_dir: Path, name: str) -> Path:
    [path] = model_dir.glob(f"{name}-*.npz")
    return path


def described(model_dir: Path) -> dict:
    return json.loads((model_dir / "model.json").read_text())


def test_loaded_model_ranks_as_the_saved_one(saved):
    ranker, loaded = fresh_ranker(), load_ranker(saved, "cpu")
    assert loaded.config == ranker.config
    assert loaded.items.ids == ranker.items.ids
    ours, theirs = (r.rank(window((*CUPS, "unknown")), state_of(HISTORY, r), context())
                    for r in (ranker, loaded))
    # popularity and associations are kept in half the digits
    np.testing.assert_allclose(theirs.scores, ours.scores, atol=2e-3)
    np.testing.assert_array_equal(theirs.order, ours.order)
    np.testing.assert_array_equal(loaded.advance(None, HISTORY), ranker.advance(None, HISTORY))


@pytest.mark.parametrize("most_bytes", [0, 10, 60_000])
def test_full_disk_keeps_the_model_there_and_leaves_nothing_half_written(model_dir, most_bytes):
    """The last bytes are written when the file is closed: that may be what fails."""
    other = fresh_ranker()
    other.knowledge.statistics.first[0] += 1.0
    before = {path.name: path.read_bytes() for path in model_dir.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, hard))
    try:
        with pytest.raises(ModelError, match="cannot be written: "):
            save_ranker(other, model_dir, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert before.items() <= {p.name: p.read_bytes() for p in model_dir.iterdir()}.items()
    assert not list(model_dir.glob("*.partial-*"))


def test_loaded_model_saves_as_the_same_version(saved, tmp_path):
    assert save_ranker(load_ranker(saved, "cpu"), tmp_path / "again", {}) == model_version(saved)


def test_loaded_model_takes_products_in(saved):
    """Rows fitted alike with the vocabulary and the rules that were saved: nothing changes."""
    loaded = load_ranker(saved, "cpu")
    assert loaded.items.upsert(make_rows()) == 0
    assert loaded.items.upsert([{**make_rows()[0], "item_id": "new"}]) == 1


def test_version_is_a_digest_of_all_that_was_learnt(saved, tmp_path):
    ranker = fresh_ranker()
    version = save_ranker(ranker, tmp_path / "same", {"gain": 0.9})
    assert version == model_version(saved) == load_ranker(saved, "cpu").version
    rhythm = ranker.knowledge.rhythm + 1
    ranker.knowledge = replace(ranker.knowledge, rhythm=rhythm)
    assert save_ranker(ranker, tmp_path / "other", {}) != version


@pytest.mark.parametrize("entry", ["items", "switch"])
def test_models_of_equal_arrays_that_rank_otherwise_have_versions_of_their_own(saved, tmp_path,
                                                                               entry):
    """A sidecar that served the one would not take the other in, or read its ids as the one's."""
    ranker = load_ranker(saved, "cpu")
    if entry == "switch":
        ranker.config = replace(ranker.config, is_personal=not ranker.config.is_personal)
    else:
        items = ranker.items
        ids = ["renamed", *items.ids[1:]]
        arrays = {name: getattr(items, name)[:len(items)] for name in TABLE}
        ranker.knowledge = replace(ranker.knowledge, items=ItemTable.from_arrays(
            items.vocabulary, ids, arrays))
    assert save_ranker(ranker, tmp_path / "other", {}) != model_version(saved)


def test_directory_holds_nothing_but_json_and_plain_arrays(saved):
    assert sorted(path.name.split("-")[0] for path in saved.iterdir()) == [
        "knowledge", "model.json", "weights"]
    for name in ("knowledge", "weights"):
        with np.load(arrays_of(saved, name), allow_pickle=False) as archive:
            assert all(archive[entry].dtype != object for entry in archive.files)
    assert described(saved)["evidence"] == {"gain": 0.1}



class Trap:
    """Pickles into a call that would leave a mark."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_pickled_arrays_are_refused_and_never_run(model_dir, tmp_path):
    mark = tmp_path / "ran"
    path = arrays_of(model_dir, "weights")
    with path.open("wb") as file:
        np.savez(file, trap=np.array([Trap(mark)], dtype=object))
    with pytest.raises(ModelError, match=r"weights-.*\.npz cannot be read"):
        load_ranker(model_dir, "cpu")
    path.write_bytes(pickle.dumps(Trap(mark)))
    with pytest.raises(ModelError, match=r"weights-.*\.npz cannot be read"):
        load_ranker(model_dir, "cpu")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["weights", "knowledge"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "one bit", "gone"])
def test_damaged_arrays_are_named_with_the_remedy(model_dir, name, damage):
    path = arrays_of(model_dir, name)
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "one bit":
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1:])
    else:
        path.write_bytes({"empty": b"", "truncated": content[:len(content) // 2],
                          "text": b"not an archive"}[damage])
    with pytest.raises(ModelError, match=f"{name}-.*train again"):
        load_ranker(model_dir, "cpu")


@pytest.mark.parametrize(("content", "said"), [
    (b"", "cannot be read"), (b"{", "cannot be read"), (b"\xff\xfe", "cannot be read"),
    (b"[]", "has format None"), (b"{}", "has format None"), (b'{"format": 1}', "has format 1"),
    (b'{"format": 5}', "names no version")])
def test_damaged_description_is_named(model_dir, content, said):
    (model_dir / "model.json").write_bytes(content)
    for read in (load_ranker, model_version):
        with pytest.raises(ModelError, match=rf"model\.json {said}"):
            read(model_dir)


@pytest.mark.parametrize("entry", ["ranker", "encoder", "blend", "features", "context",
                                   "vocabulary", "imputation", "associations", "items"])
@pytest.mark.parametrize("value", [None, "gone", [1]])
def test_entry_that_does_not_fit_is_a_model_error(model_dir, entry, value):
    found = described(model_dir)
    if value == "gone":
        del found[entry]
    else:
        found[entry] = value
    (model_dir / "model.json").write_text(json.dumps(found))
    with pytest.raises(ModelError, match="does not fit"):
        load_ranker(model_dir, "cpu")


def test_shapes_that_do_not_fit_the_weights_are_told(model_dir):
    found = described(model_dir)
    found["encoder"]["hidden"] += 1
    (model_dir / "model.json").write_text(json.dumps(found))
    with pytest.raises(ModelError, match=r"does not fit its weights: .*size mismatch"):
        load_networks(model_dir)


def test_statistics_of_another_program_s_half_lives_are_refused(tmp_path):
    ranker = fresh_ranker()
    statistics = ranker.knowledge.statistics.copy()
    statistics.strong = statistics.strong[:, :2]
    ranker.knowledge = replace(ranker.knowledge, statistics=statistics)
    save_ranker(ranker, tmp_path / "model", {})
    with pytest.raises(ModelError, match=r"does not fit: .*statistics.strong has shape"):
        load_ranker(tmp_path / "model", "cpu")


def test_arrays_of_another_model_are_refused(model_dir, tmp_path):
    ranker = fresh_ranker()
    ranker.knowledge = replace(ranker.knowledge, rhythm=ranker.knowledge.rhythm + 1)
    save_ranker(ranker, tmp_path / "other", {})
    shutil.copy(arrays_of(tmp_path / "other", "knowledge"), arrays_of(model_dir, "knowledge"))
    with pytest.raises(ModelError, match="is of other arrays"):
        load_ranker(model_dir, "cpu")


def test_no_directory_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"model\.json cannot be read.*scripts\.train"):
        load_ranker(tmp_path / "never")


def test_directory_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="cannot be written"):
        save_ranker(fresh_ranker(), tmp_path / "file" / "model", {})


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pick_device("auto") == "cpu"
    with pytest.raises(ModelError, match="device is cuda, but torch finds none"):
        pick_device("cuda")


def test_reader_sees_the_old_model_or_the_new_one(model_dir):
    """Saved over and over by one thread, loaded by another: always whole, always one of them."""
    first, second = fresh_ranker(), fresh_ranker()
    second.knowledge = replace(second.knowledge, rhythm=second.knowledge.rhythm + 1)
    versions = {save_ranker(ranker, model_dir, {}) for ranker in (first, second)}
    seen, failures, done = set(), [], threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                model_version(model_dir)
                seen.add(load_ranker(model_dir, "cpu").version)
            except ModelError as error:
                failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for k in range(12):
        save_ranker((first, second)[k % 2], model_dir, {})
    done.set()
    reader.join()
    assert failures == []
    assert seen <= versions
    assert seen


def test_only_the_newest_two_models_are_kept(model_dir):
    ranker = fresh_ranker()
    for k in range(4):
        ranker.knowledge = replace(ranker.knowledge, rhythm=ranker.knowledge.rhythm + k)
        version = save_ranker(ranker, model_dir, {})
    assert len(list(model_dir.iterdir())) == 5
    assert model_version(model_dir) == version


SAVE = """
import pathlib, sys
from sidecar.stores import models

def wait(*arrays):
    print("saving", flush=True)
    sys.stdin.read()

models.save_arrays = wait
folder = pathlib.Path(sys.argv[1])
models.save_ranker(models.load_ranker(folder, "cpu"), folder, {})
"""


def test_file_that_a_killed_training_left_goes_and_that_of_one_still_saving_stays(model_dir):
    started = [subprocess.Popen([sys.executable, "-c", SAVE, model_dir], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE) for _ in range(2)]
    for process in started:
        assert process.stdout.readline() == b"saving\n"
    killed, saving = started
    killed.kill()
    killed.wait()
    assert len(list(model_dir.glob("*.partial-*"))) == 2
    save_ranker(load_ranker(model_dir, "cpu"), model_dir, {})
    [left] = model_dir.glob("*.partial-*")
    assert left.name.endswith(f"-{saving.pid}")
    for process in started:
        process.communicate()
    assert saving.returncode == 0
    assert not list(model_dir.glob("*.partial-*"))


def test_a_model_that_is_switched_out_goes_without_the_collector(
        saved: Path, tmp_path: Path) -> None:
    gc.collect()
    gc.disable()
    try:
        loaded = load_ranker(saved, "cpu")
        SharedItems(tmp_path, loaded.version).adopt(loaded.items)
        loaded.warm_up()
        parts = [weakref.ref(part) for part in (loaded, loaded.items, loaded.encoder)]
        del loaded
        assert [part() for part in parts] == [None] * 3
    finally:
        gc.enable()
