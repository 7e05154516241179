"""``GET`` and ``DELETE /_personalize/users/ID`` show what is kept of a user, and delete it.

``?hidden=true`` adds the encoder's hidden state; ``DELETE …?events=true`` also deletes the user's
raw events and searches from the logs.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from flask import Blueprint, Response, request
from flask.blueprints import BlueprintSetupState
from werkzeug.routing import BaseConverter

from sidecar.errors import InputError
from sidecar.records import UserState
from sidecar.settings import SWITCH
from sidecar.stores.protocols import Logs, StateStore
from sidecar.stores.ubi import timestamp

_encode = msgspec.json.Encoder().encode
_OF_EVERY_PATH = ("pretty", "human", "error_trace")  # clients of OpenSearch add them out of habit


def create_blueprint(states: StateStore, logs: Logs) -> Blueprint:
    """Return the paths of one user; ids may hold slashes."""
    blueprint = Blueprint("users", __name__, url_prefix="/_personalize/users")

    @blueprint.record_once
    def know_ids(setup: BlueprintSetupState) -> None:
        setup.app.url_map.converters["id"] = _Id

    @blueprint.get("/<id:user_id>", merge_slashes=False)
    def show(user_id: str) -> Response:
        is_hidden_shown = _flag("hidden")
        state = states.get_many([user_id])[0]
        if state is None:
            return _respond({"user_id": user_id, "found": False}, 404)
        return _respond(_readable(state, is_hidden_shown), 200)

    @blueprint.delete("/<id:user_id>", merge_slashes=False)
    def forget(user_id: str) -> Response:
        # The log goes first: were it to fail, the state still shows that there is work left.
        deleted = logs.forget(user_id) if _flag("events") else None
        is_known = states.delete(user_id)
        document = {"user_id": user_id, "deleted": is_known}
        if deleted is not None:
            document["log_entries_deleted"] = deleted
        return _respond(document, 200 if is_known or deleted else 404)

    return blueprint


class _Id(BaseConverter):
    """Any text: slashes at its beginning, too, and line breaks."""

    regex = r"[\s\S]+"
    part_isolating = False


def _readable(state: UserState, is_hidden_shown: bool) -> dict[str, Any]:
    """Return a state for a reader: events newest first, times as ISO 8601."""
    kept = state.history
    rows = zip(kept.ts, kept.events, kept.item_ids, kept.queries, kept.event_ids, strict=True)
    document: dict[str, Any] = {
        "user_id": state.user_id,
        "found": True,
        "version": state.version,
        "model_version": state.model_version,
        "event_count": state.event_count,
        "kept": len(kept),
        "counts": dict(Counter(kept.events).most_common()),
        "events": [{"ts": timestamp(ts), "event": event, "item_id": item_id, "query": query,
                    "event_id": event_id}
                   for ts, event, item_id, query, event_id in rows][::-1],
    }
    if is_hidden_shown:
        document["hidden"] = None if state.hidden is None else state.hidden.tolist()
    return document


def _flag(name: str) -> bool:
    """Return whether the path's one parameter is on.

    Any other is refused: a misspelt one would leave a log undeleted.
    """
    unknown = sorted(request.args.keys() - {name, *_OF_EVERY_PATH})
    if unknown:
        raise InputError(f"{unknown[0]!r} is no parameter of this path; it takes {name}")
    given = request.args.get(name, "false").lower() or "true"
    if given not in SWITCH:
        raise InputError(f"{name} is {given!r}, must be true or false")
    return SWITCH[given]


def _respond(document: dict[str, Any], status: int) -> Response:
    return Response(_encode(document), status, content_type="application/json")
