"""Catalogue files are loaded into a real node: whole, once, and in spite of what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from opensearchpy import OpenSearch
from opensearchpy.exceptions import RequestError

from scripts.load_catalog import WithReason, main
from sidecar.errors import FileError, InputError, ModelError, UpstreamError
from sidecar.settings import Settings
from sidecar.stores import catalogue_loader
from sidecar.stores.administration import administration_client
from sidecar.stores.catalogue_loader import CatalogueLoader, Loaded
from sidecar.stores.files import RefusedRows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_indices(index_prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("states", "events", "queries"):
        monkeypatch.setenv(f"SIDECAR_{name.upper()}_INDEX", f"{index_prefix}{name}")


@pytest.fixture
def alias(index_prefix: str) -> str:
    return f"{index_prefix}products"


@pytest.fixture
def client(opensearch: str) -> OpenSearch:
    return administration_client(Settings(opensearch_url=opensearch))


@pytest.fixture
def load(opensearch: str, alias: str) -> Callable[..., int]:
    """Run the program in this process."""
    def run(path: Path, *arguments: str) -> int:
        return main(["--opensearch", opensearch, "--index", alias, "--catalogue", str(path),
                     *arguments])
    return run


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_loader, "BATCH_ROWS", 100)


def items(count: int, **more: Any) -> list[dict[str, Any]]:
    return [{"item_id": str(n), "title": f"item {n}", "brand": None, "categories": ["all"],
             "price": float(n), **more} for n in range(count)]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n"
                            for row in rows))
    return path


def refused(path: Path) -> list[dict[str, Any]]:
    file = path.with_name(path.name + ".refused.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def versions(client: OpenSearch, alias: str) -> dict[str, bool]:
    """Each version's name, and whether the alias leads to it."""
    found = client.indices.get_alias(index=f"{alias}-v*")
    return {name.removeprefix(alias): alias in body["aliases"] for name, body in found.items()}


def load_with(client: OpenSearch, alias: str, path: Path, progress: Any = lambda *_: None,
              encoder: Any = None) -> Loaded:
    with RefusedRows(path.with_name(path.name + ".refused.jsonl")) as rows:
        return CatalogueLoader(client, alias, path, rows, encoder).load(progress)


def test_rows_are_served_as_given_under_their_item_ids(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    rows = items(3, created_at="2017-01-01T00:00:00+00:00", vectors={"text": [0.5, 1.0]})
    assert load(write(tmp_path / "c.jsonl", rows)) == 0
    assert capsys.readouterr().out == f"{alias}-v1\n"
    assert client.get(index=alias, id="2")["_source"] == rows[2]
    assert client.count(index=alias)["count"] == 3


def test_catalogue_of_which_opensearch_takes_nothing_leaves_the_alias_as_it_was(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    assert load(write(tmp_path / "c.jsonl", items(3))) == 0
    assert load(write(tmp_path / "d.jsonl", items(2, rating=1e300))) == 1
    assert "holds no row that opensearch takes, the first because" in capsys.readouterr().err
    assert client.count(index=alias)["count"] == 3
    assert versions(client, alias) == {"-v1": True}


def test_columns_that_json_has_no_form_for_are_served_as_text_or_null(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    pq.write_table(pa.table({
        "item_id": ["a"], "title": ["cup"], "photo": [b"\xff\x00"], "opens": [dt.time(9, 30)],
        "lasts": [dt.timedelta(hours=1)], "seen": [[dt.date(2020, 1, 2)]],
        "facts": [{"width": float("nan"), "height": 2.0}], "limits": [[1.0, float("inf")]]}),
        tmp_path / "c.parquet")
    assert load(tmp_path / "c.parquet") == 0
    assert client.get(index=alias, id="a")["_source"] == {
        "item_id": "a", "title": "cup", "brand": None, "categories": [], "photo": "/wA=",
        "opens": "09:30:00", "lasts": 3600.0, "seen": ["2020-01-02"],
        "facts": {"width": None, "height": 2.0}, "limits": [1.0, None]}


@pytest.mark.usefixtures("small_batches")
def test_each_pass_has_one_progress_bar(
        load: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load(write(tmp_path / "c.jsonl", items(350)))
    said = capsys.readouterr().err
    for stage in ("checking", "loading"):
        assert said.count(f"{stage}:   0%") == 1
        assert f"{stage}: 100%" in said


def test_indices_of_states_and_events_are_made(
        client: OpenSearch, index_prefix: str, load: Callable[..., int], tmp_path: Path) -> None:
    load(write(tmp_path / "c.jsonl", items(1)))
    for name in ("states", "events", "queries"):
        assert client.indices.exists(index=f"{index_prefix}{name}")


def test_alias_stays_where_another_index_cannot_be_made(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    load(write(tmp_path / "c.jsonl", items(1)))
    monkeypatch.setenv("SIDECAR_STATES_INDEX", "long" * 100)
    assert load(write(tmp_path / "d.jsonl", items(2))) == 1
    assert versions(client, alias) == {"-v1": True}


def test_alias_stays_where_refused_rows_cannot_be_written(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    load_with(client, alias, write(tmp_path / "c.jsonl", items(1)))
    path = write(tmp_path / "d.jsonl", [*items(2), "{"])
    kept = tmp_path / "d.jsonl.refused.jsonl"
    rows = RefusedRows(kept)
    kept.symlink_to("/dev/full")
    with pytest.raises(FileError, match=r"d\.jsonl\.refused\.jsonl: .*No space left"), rows:
        CatalogueLoader(client, alias, path, rows).load(lambda *_: None)
    found = client.indices.get_alias(name=alias)
    assert list(found) == [f"{alias}-v1"]


def test_same_file_again_changes_nothing(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "c.jsonl", items(3))
    load(path)
    client.update(index=alias, id="1", body={"doc": {"price": 99.0}})
    assert load(path) == 0
    assert "already served 3 items" in capsys.readouterr().err
    assert client.get(index=alias, id="1")["_source"]["price"] == 99.0
    assert versions(client, alias) == {"-v1": True}


def test_new_file_is_a_new_version_and_one_older_stays(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    load(write(tmp_path / "c.jsonl", items(3)))
    load(write(tmp_path / "c.jsonl", items(2)))
    assert versions(client, alias) == {"-v1": False, "-v2": True}
    assert client.count(index=alias)["count"] == 2
    load(write(tmp_path / "c.jsonl", items(3)))
    assert versions(client, alias) == {"-v2": False, "-v3": True}


def test_version_that_was_rolled_back_is_not_served_again(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    """It was changed while it was searched."""
    load(write(tmp_path / "c.jsonl", items(2)))
    path = write(tmp_path / "d.jsonl", items(3))
    load(path)
    client.update(index=alias, id="1", body={"doc": {"title": "damaged"}})
    client.indices.update_aliases(body={"actions": [
        {"remove": {"index": f"{alias}-v2", "alias": alias}},
        {"add": {"index": f"{alias}-v1", "alias": alias}}]})
    assert load(path) == 0
    assert versions(client, alias) == {"-v1": False, "-v3": True}
    assert client.get(index=alias, id="1")["_source"]["title"] == "item 1"


def test_alias_keeps_its_filter_and_routing(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    load(write(tmp_path / "c.jsonl", items(2)))
    options = {"filter": {"range": {"price": {"gte": 1}}}, "search_routing": "r",
               "index_routing": "r"}
    client.indices.put_alias(index=f"{alias}-v1", name=alias, body=options)
    assert load(write(tmp_path / "d.jsonl", items(5))) == 0
    assert client.indices.get_alias(name=alias)[f"{alias}-v2"]["aliases"] == {alias: options}
    assert client.count(index=alias)["count"] == 4


def test_next_version_keeps_the_default_search_pipeline(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    load(write(tmp_path / "c.jsonl", items(2)))
    setting = {"index.search.default_pipeline": "_none"}
    client.indices.put_settings(index=alias, body=setting)
    assert load(write(tmp_path / "d.jsonl", items(5))) == 0
    found = client.indices.get_settings(index=alias, flat_settings=True)
    assert found[f"{alias}-v2"]["settings"].items() >= setting.items()


def test_default_search_pipeline_that_a_template_gives_stays(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    setting = {"index.search.default_pipeline": "_none"}
    client.indices.put_index_template(name=alias, body={
        "index_patterns": [f"{alias}-v*"], "template": {"settings": setting}})
    try:
        assert load(write(tmp_path / "c.jsonl", items(2))) == 0
    finally:
        client.indices.delete_index_template(name=alias)
    found = client.indices.get_settings(index=alias, flat_settings=True)
    assert found[f"{alias}-v1"]["settings"].items() >= setting.items()


def test_alias_with_two_filters_is_left_as_it_is(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    load(write(tmp_path / "c.jsonl", items(2)))
    client.indices.create(index=f"{alias}-old")
    client.indices.put_alias(index=f"{alias}-old", name=alias,
                             body={"filter": {"term": {"brand": "x"}}})
    assert load(write(tmp_path / "d.jsonl", items(5))) == 1
    assert f"{alias} has another filter or routing for each of" in capsys.readouterr().err
    assert set(client.indices.get_alias(name=alias)) == {f"{alias}-v1", f"{alias}-old"}


def test_closed_version_is_left_alone_and_its_number_passed_over(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    load(write(tmp_path / "c.jsonl", items(1)))
    client.indices.create(index=f"{alias}-v2")
    client.indices.close(index=f"{alias}-v2")
    assert load(write(tmp_path / "d.jsonl", items(2))) == 0
    assert versions(client, alias) == {"-v1": False, "-v2": False, "-v3": True}


def test_version_is_tuned_for_searches_when_it_is_served(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    load(write(tmp_path / "c.jsonl", items(1)))
    [settings] = client.indices.get_settings(index=alias).values()
    assert "refresh_interval" not in settings["settings"]["index"]
    assert settings["settings"]["index"]["auto_expand_replicas"] == "0-1"


def test_refused_rows_are_written_with_line_reason_and_row(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    long = {"item_id": "long", "title": "x", "currency": "x" * 40_000}  # Lucene's term limit
    path = write(tmp_path / "c.jsonl", [*items(2), {"item_id": "b"}, "{", long])
    assert load(path) == 0
    entries = refused(path)
    assert [(entry["line"], entry["reason"][:20]) for entry in entries[:2]] == [
        (3, "title is None, must "), (4, "line must be one JSO")]
    assert entries[0]["row"] == '{"item_id": "b"}'
    assert entries[2]["line"] == 5
    assert "immense term" in entries[2]["reason"]
    assert entries[2]["row"]["item_id"] == "long"
    assert "3 rows were refused" in capsys.readouterr().err
    assert client.count(index=alias)["count"] == 2
    load(path)
    assert sorted(entry["line"] for entry in refused(path)) == [3, 4, 5]


def test_broken_export_leaves_the_alias_and_no_version_behind(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    assert load(write(tmp_path / "c.jsonl", items(500))) == 0
    path = write(tmp_path / "d.jsonl", [*items(1), *[{"item_id": f"b{n}"} for n in range(499)]])
    assert load(path) == 1
    said = capsys.readouterr().err
    for words in ("499 of 500 rows", f"listed with their reasons in {path}.refused.jsonl",
                  f"{alias} still serves {alias}-v1", "--most-refused SHARE"):
        assert words in said
    assert len(refused(path)) == 499
    assert client.count(index=alias)["count"] == 500
    assert versions(client, alias) == {"-v1": True}
    assert load(write(path, items(400))) == 0
    assert versions(client, alias) == {"-v1": False, "-v2": True}
    assert client.count(index=alias)["count"] == 400


def test_rows_that_opensearch_refuses_count_towards_the_share(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    """One that the reader refuses and one that OpenSearch does: 2 of 12."""
    load(write(tmp_path / "c.jsonl", items(5)))
    long = {"item_id": "long", "title": "x", "currency": "x" * 40_000}
    path = write(tmp_path / "d.jsonl", [*items(10), "{", long])
    assert load(path) == 1
    assert "2 of 12 rows" in capsys.readouterr().err
    assert sorted(entry["line"] for entry in refused(path)) == [11, 12]
    assert versions(client, alias) == {"-v1": True}
    assert load(path, "--most-refused", "0.2") == 0
    assert versions(client, alias) == {"-v1": False, "-v2": True}
    assert load(path) == 0, "what is served already is served on"


def test_a_tenth_refused_is_not_too_much_and_a_first_load_replaces_nothing(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    good, bad = items(9), [{"item_id": f"b{n}"} for n in range(2)]
    assert load(write(tmp_path / "c.jsonl", [*good[:1], *bad])) == 0
    path = write(tmp_path / "d.jsonl", [*good, *bad])
    assert load(path) == 1
    assert versions(client, alias) == {"-v1": True}
    assert load(write(path, [*good, *bad[:1]])) == 0
    assert client.count(index=alias)["count"] == 9


@pytest.mark.parametrize("share", ["-0.1", "1.1", "nan", "half"])
def test_share_that_is_none_is_misuse(
        load: Callable[..., int], tmp_path: Path, share: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        load(write(tmp_path / "c.jsonl", items(1)), f"--most-refused={share}")


def test_file_without_a_good_row_leaves_the_alias_alone(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str]) -> None:
    load(write(tmp_path / "c.jsonl", items(3)))
    assert load(write(tmp_path / "c.jsonl", [{"title": "x"}])) == 1
    assert "no row that can be taken" in capsys.readouterr().err
    assert versions(client, alias) == {"-v1": True}


def test_other_columns_are_kept_typed_and_guarded(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    rows = items(2, colour="red", size=38, in_stock=True, tags=["a", "b"],
                 spec={"a": [1, {"b": 2}]})
    rows[1] |= {"size": "38½", "spec": "none"}
    load(write(tmp_path / "c.jsonl", rows))
    assert [client.get(index=alias, id=str(n))["_source"] for n in range(2)] == rows
    for field, value in (("colour", "red"), ("size", "38"), ("in_stock", True), ("tags", "b")):
        query = {"query": {"term": {field: value}}}
        assert client.count(index=alias, body=query)["count"] >= 1, field
    with pytest.raises(RequestError, match="strict_dynamic"):
        client.update(index=alias, id="0", body={"doc": {"color": "blue"}})


@pytest.mark.parametrize(("columns", "said"), [
    ({"_id": "7"}, "column '_id' has the name of a field of opensearch's own"),
    ({"": "7"}, "column '' is no name"),
    ({"size..eu": "7"}, "column 'size..eu' is no name"),
    ({"size.eu": 38, "size": 7}, "column 'size.eu' stands beside column 'size'"),
    ({"price.eu": 38}, "column 'price.eu' stands beside column 'price'"),
])
def test_column_that_opensearch_cannot_hold_is_named_with_its_line(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        capsys: pytest.CaptureFixture[str], columns: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "c.jsonl", [*items(1), {"item_id": "b", "title": "cup"} | columns])
    assert load(path) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "load_catalog: " in line]
    assert f"{path}:2: {said}" in line
    assert line.endswith("; rename or drop it")
    assert not client.indices.exists(index=f"{alias}-v1")


def test_columns_whose_names_have_parts_are_searched(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    assert load(write(tmp_path / "c.jsonl", items(1, **{"size.eu": 38, "size.us": 7}))) == 0
    assert client.count(index=alias, body={"query": {"term": {"size.us": 7}}})["count"] == 1


def test_csv_columns_of_numbers_alone_are_numbers(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("item_id,title,stock,weight,code,size,ean,sizes\n"
                    "a,cup,9,-.5,007,38,90071992547409931,\"[1, 2]\"\n"
                    "b,jug,10,,12,38½,12,3\nc,mug,1e3,2.50,13,,,[]\n")
    assert load(path) == 0
    assert [client.get(index=alias, id=name)["_source"] for name in "abc"] == [
        {"item_id": "a", "title": "cup", "brand": None, "categories": [], "stock": 9.0,
         "weight": -0.5, "code": "007", "size": "38", "ean": "90071992547409931",
         "sizes": [1, 2]},
        {"item_id": "b", "title": "jug", "brand": None, "categories": [], "stock": 10.0,
         "code": "12", "size": "38½", "ean": "12", "sizes": 3.0},
        {"item_id": "c", "title": "mug", "brand": None, "categories": [], "stock": 1000.0,
         "weight": 2.5, "code": "13", "sizes": []}]
    query = {"query": {"range": {"stock": {"gt": 9}}}}
    assert client.count(index=alias, body=query)["count"] == 2


@pytest.mark.parametrize("empty", [[], [None], [[], [None]]])
def test_empty_list_leaves_a_column_its_type(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        empty: list[Any]) -> None:
    rows = items(3, sizes=[9, 10], never=empty)
    rows[0]["sizes"] = rows[2]["sizes"] = empty
    assert load(write(tmp_path / "c.jsonl", rows)) == 0
    [found] = client.indices.get_mapping(index=alias).values()
    assert found["mappings"]["properties"]["sizes"] == {"type": "double"}
    assert [client.get(index=alias, id=str(n))["_source"] for n in range(3)] == rows


@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_csv_and_parquet_are_loaded(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path,
        name: str) -> None:
    path = tmp_path / name
    if name.endswith("csv"):
        path.write_text("item_id,title,categories,price\n1,Tea,a|b,2.5\n2,Milk,,\n")
    else:
        pq.write_table(pa.table({"item_id": [1, 2], "title": ["Tea", "Milk"], "price": [2.5, None],
                                 "categories": [["a", "b"], None]}), path)
    assert load(path) == 0
    assert client.get(index=alias, id="1")["_source"] == {
        "item_id": "1", "title": "Tea", "brand": None, "categories": ["a", "b"], "price": 2.5}
    assert client.get(index=alias, id="2")["_source"]["categories"] == []


def test_alias_that_is_an_index_is_an_error(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    client.indices.create(index=alias)
    with pytest.raises(InputError, match="is an index, must be an alias"):
        load_with(client, alias, write(tmp_path / "c.jsonl", items(1)))


def test_setting_that_is_wrong_is_misuse(
        load: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDECAR_WINDOW", "none")
    assert load(write(tmp_path / "c.jsonl", items(1))) == 2


@pytest.mark.parametrize("name", ["", "rev-*", "a,b", "Shop"])
def test_alias_that_is_no_single_name_is_misuse(
        load: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str],
        name: str) -> None:
    assert load(write(tmp_path / "c.jsonl", items(1)), "--index", name) == 2
    assert f"the catalogue's alias is {name!r}, must be" in capsys.readouterr().err


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_name_their_setting(
        tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

    path = write(tmp_path / "c.jsonl", items(1))
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert main(["--opensearch", f"http://127.0.0.1:{server.server_port}",
                     "--catalogue", str(path)]) == 1
        server.shutdown()
    said = capsys.readouterr().err
    assert f"opensearch answered {status}" in said
    assert "set SIDECAR_OPENSEARCH_AUTHORIZATION" in said


def test_retry_tells_its_reason() -> None:
    record = logging.makeLogRecord({"msg": "trying again", "reason": "disk is full"})
    assert WithReason().format(record) == "trying again: disk is full"
    assert WithReason().format(logging.makeLogRecord({"msg": "hello"})) == "hello"


def test_node_that_is_away_is_one_line(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "c.jsonl", items(1))
    assert main(["--opensearch", "http://127.0.0.1:9", "--catalogue", str(path)]) == 1
    assert "opensearch does not answer at http://127.0.0.1:9" in capsys.readouterr().err


def test_killed_load_goes_on_after_its_last_checkpoint(
        client: OpenSearch, opensearch: str, alias: str, load: Callable[..., int],
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "c.jsonl", [*items(40_000), {"item_id": "bad"}])
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.load_catalog", "--opensearch", opensearch,
         "--index", alias, "--catalogue", str(path)], cwd=ROOT, env=os.environ,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not _lines_done(client, alias):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not client.indices.exists(index=alias)
    assert load(path) == 0
    said = capsys.readouterr().err
    assert "resumed after line" in said
    assert "resumed after line 0" not in said
    assert versions(client, alias) == {"-v1": True}
    assert client.count(index=alias)["count"] == 40_000
    assert [entry["line"] for entry in refused(path)] == [40_001]


def _lines_done(client: OpenSearch, alias: str) -> int:
    found = client.indices.get_mapping(index=f"{alias}-v*", ignore_unavailable=True)
    loads = [body["mappings"].get("_meta", {}).get("load", {}) for body in found.values()]
    return max((load.get("lines", 0) for load in loads), default=0)


def test_load_of_another_file_does_not_take_up_a_killed_one(
        client: OpenSearch, alias: str, small_batches: None, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_with(client, alias, write(tmp_path / "a.jsonl", items(300)), _interrupt)
    load_with(client, alias, write(tmp_path / "b.jsonl", items(200)))
    assert versions(client, alias) == {"-v2": True}
    assert client.count(index=alias)["count"] == 200


@pytest.mark.usefixtures("small_batches")
def test_slower_of_two_loads_fails_and_leaves_the_faster_ones_version_searched(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    fast = write(tmp_path / "fast.jsonl", items(3))

    def overtake(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("loading", 100):
            load_with(client, alias, fast)

    with pytest.raises(UpstreamError, match=r"-v1 was deleted or published while it was filled"):
        load_with(client, alias, write(tmp_path / "slow.jsonl", items(150)), overtake)
    assert versions(client, alias) == {"-v2": True}
    assert client.count(index=alias)["count"] == 3


def test_alias_does_not_move_back_to_an_older_version(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    load_with(client, alias, write(tmp_path / "c.jsonl", items(1)))

    def overtake(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("loading", 2):
            client.indices.create(index=f"{alias}-v9")
            client.indices.put_alias(index=f"{alias}-v9", name=alias)

    with pytest.raises(UpstreamError, match=r"-v9 meanwhile, which is newer than .*-v2"):
        load_with(client, alias, write(tmp_path / "d.jsonl", items(2)), overtake)
    assert versions(client, alias) == {"-v1": True, "-v9": True}


def _interrupt(stage: str, done: int, total: int) -> None:
    if stage == "loading":
        raise KeyboardInterrupt


@pytest.mark.usefixtures("small_batches")
def test_rejections_for_overload_are_tried_again(
        client: OpenSearch, alias: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A node that runs out of disk answers 429 too, and can be made to."""
    def block(is_on: bool) -> None:
        client.indices.put_settings(index=f"{alias}-v1", body={
            "index.blocks.read_only_allow_delete": True if is_on else None})

    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("loading", 100):
            block(True)
            threading.Timer(1.5, block, [False]).start()

    load_with(client, alias, write(tmp_path / "c.jsonl", items(250)), progress)
    assert "trying again" in caplog.text
    assert client.count(index=alias)["count"] == 250


@pytest.fixture
def unsteady(opensearch: str) -> Iterator[tuple[str, threading.Event]]:
    """A relay to the node that drops every connection while its event is set."""
    host, _, port = opensearch.removeprefix("http://").partition(":")
    broken, server = threading.Event(), socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and not broken.is_set():
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def accept() -> None:
        while True:
            try:
                near, _ = server.accept()
            except OSError:
                return
            far = socket.create_connection((host, int(port)))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pump, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}", broken
    server.shutdown(socket.SHUT_RDWR)
    server.close()


@pytest.mark.usefixtures("small_batches")
def test_dropped_connections_are_made_again(
        client: OpenSearch, alias: str, unsteady: tuple[str, threading.Event], tmp_path: Path,
        caplog: pytest.LogCaptureFixture) -> None:
    url, broken = unsteady

    def progress(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("loading", 100):
            broken.set()
            threading.Timer(1.5, broken.clear).start()

    through = administration_client(Settings(opensearch_url=url))
    load_with(through, alias, write(tmp_path / "c.jsonl", items(250)), progress)
    through.close()
    assert "trying again" in caplog.text
    assert client.count(index=alias)["count"] == 250


def test_file_that_is_written_to_while_it_is_loaded_is_not_served(
        client: OpenSearch, alias: str, load: Callable[..., int], tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", items(20))
    assert load(path) == 0
    write(path, items(30))

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "loading" and not done:
            write(path, [row | {"price": 1.0} for row in items(30)])

    with pytest.raises(FileError, match=r"was written to while it was loaded.*load the file again"):
        load_with(client, alias, path, progress)
    assert versions(client, alias) == {"-v1": True}


@pytest.mark.usefixtures("small_batches")
def test_version_that_does_not_hold_what_it_must_is_not_served(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    load_with(client, alias, write(tmp_path / "c.jsonl", items(3)))

    def intrude(stage: str, done: int, total: int) -> None:
        if stage == "loading":
            client.index(index=f"{alias}-v2", id="stranger", body={"title": "x"})

    with pytest.raises(UpstreamError, match="holds 151 documents, must hold 150"):
        load_with(client, alias, write(tmp_path / "c.jsonl", items(150)), intrude)
    assert versions(client, alias) == {"-v1": True}


@pytest.mark.usefixtures("small_batches")
def test_load_of_which_opensearch_refuses_too_much_is_given_up(
        client: OpenSearch, alias: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_loader, "REFUSED_ROWS", 3)
    long = [{"item_id": f"long{n}", "title": "x", "currency": "x" * 40_000} for n in range(4)]
    load_with(client, alias, write(tmp_path / "c.jsonl", [*items(100), *long[:3]]))
    assert client.count(index=alias)["count"] == 100
    with pytest.raises(UpstreamError, match="refused 4 rows up to line 104"):
        load_with(client, alias, write(tmp_path / "c.jsonl", [*items(100), *long]))
    assert versions(client, alias) == {"-v1": True}


class Model:
    """Knows the even items; a vector is the price and one."""

    version = "m1"

    def knows(self, item_id: str) -> bool:
        return int(item_id) % 2 == 0

    def encode(self, rows: Any) -> Any:
        return np.array([[row["price"], 1.0] for row in rows], np.float32)


def test_item_vectors_of_a_model_are_stored(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", items(5))
    load_with(client, alias, path)
    loaded = load_with(client, alias, path, encoder=Model())
    assert (loaded.is_new, loaded.known_to_model) == (True, 3)
    stored = client.get(index=alias, id="3")["_source"]["item_vector"]
    assert stored["model_version"] == "m1"
    assert np.frombuffer(base64.b64decode(stored["values"]), "<f4").tolist() == [3.0, 1.0]


def test_model_of_another_catalogue_is_refused(
        client: OpenSearch, alias: str, tmp_path: Path) -> None:
    path = write(tmp_path / "c.jsonl", [{"item_id": "1", "title": "x", "price": 1}])
    with pytest.raises(ModelError, match="knows none of the 1 items"):
        load_with(client, alias, path, encoder=Model())
    assert not client.indices.exists(index=f"{alias}-v1")
