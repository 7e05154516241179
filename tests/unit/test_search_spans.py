"""Objects taken apart by bytes: every slice is what was written, and nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import UnreadableError
from sidecar.search import spans

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(), lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.text(), inner, max_size=4), max_leaves=12)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=6)
STYLES = st.sampled_from([{}, {"separators": (",", ":")}, {"indent": 2}, {"ensure_ascii": False}])


def written(value: Any, style: dict[str, Any]) -> bytes:
    return json.dumps(value, **style).encode("utf-8", "surrogatepass")


@given(OBJECTS, STYLES)
def test_each_value_is_the_slice_that_was_written(value, style):
    data = written(value, style)
    try:
        found = spans.values(data)
    except UnreadableError:  # a lone surrogate, which is no UTF-8
        assert any("\ud800" <= char <= "\udfff" for char in json.dumps(value, ensure_ascii=False))
        return
    assert {name: json.loads(raw) for name, raw in found.items()} == value
    assert list(found) == list(value)


@given(OBJECTS, STYLES, st.data())
def test_cut_leaves_the_other_members_as_they_were(value, style, data):
    text = written(value, style)
    try:
        found = spans.members(text)
    except UnreadableError:
        return
    gone = data.draw(st.sets(st.sampled_from(sorted(value)))) if value else set()
    left = spans.cut(text, found, gone)
    assert json.loads(left) == {name: kept for name, kept in value.items() if name not in gone}
    for name, raw in spans.values(left).items():
        assert raw == spans.value(text, found[name])


@pytest.mark.parametrize("text", [
    b'{"a":1,"a":1}', b'{"a":1,"b":2,"a":3}', b'{"a":{"x":1},"\\u0061":{"x":1}}', b"[]", b"1", b"",
    b"null", b'{"a":1', b'{"a":1}x', b"{'a':1}", b'{/*c*/"a":1}', b'{"a":' + b"[" * 100_000,
    b"\xff", b'{"a":01}', b'{"a":"\xff"}x'])
def test_what_is_no_plain_object_is_unreadable(text):
    with pytest.raises(UnreadableError):
        spans.members(text)


@given(st.binary(max_size=60))
def test_any_bytes_are_members_or_unreadable(text):
    try:
        spans.members(text)
        spans.decode(text)
    except UnreadableError:
        pass


def test_put_changes_one_value_alone():
    data = b'{ "a" : 1.50 , "b":"\\u00e9" }'
    assert spans.put(data, spans.members(data)["a"], b"[2]") == b'{ "a" : [2] , "b":"\\u00e9" }'
