"""What a bulk line's outcome says of the document, and what of its reason may be logged."""

from __future__ import annotations

import pytest

from sidecar.stores.documents import BulkItem, ErrorCause, without_values


@pytest.mark.parametrize(("kind", "reason", "is_documents"), [
    ("mapper_parsing_exception", "failed to parse field [message]", True),
    ("mapper_parsing_exception", "failed to parse field [message] of type [text] in document with "
     "id '1'. Preview of field's value: '{x=pipeline with id [}'", True),
    ("illegal_argument_exception", "pipeline with id [p] does not exist", False),
    ("illegal_argument_exception", "no write index is defined for alias [a]", False),
    ("index_closed_exception", "closed", False)])
def test_no_document_can_pass_for_a_fault_of_its_index(kind, reason, is_documents):
    assert BulkItem(400, error=ErrorCause(kind, reason)).is_documents_fault is is_documents


@pytest.mark.parametrize(("reason", "told"), [
    ("opensearch answered 503: No shard available for [get [states][jane@example.com]: routing",
     "opensearch answered 503: No shard available for […]"),
    ("failed to parse field [user_id] of type [long] in document with id 'jane'. Preview of "
     "field's value: 'jane': For input string: \"jane\"",
     "failed to parse field [user_id] of type [long]"),
    ("failed to parse field [a [jane]]", "failed to parse field […]"),
    ("index [states] blocked by: [FORBIDDEN/12/index read-only];",
     "index […] blocked by: [FORBIDDEN/12/index read-only];"),
    ("http://127.0.0.1:9 took no connection: refused",
     "http://127.0.0.1:9 took no connection: refused")])
def test_log_says_what_failed_and_not_for_whom(reason, told):
    assert without_values(reason) == told
