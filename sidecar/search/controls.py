"""What a request says about its own personalization: header over parameter over ext over default.

README.md has the table; every control has the three forms. Invalid values are refused, never
guessed at. Pure; no I/O.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from sidecar.errors import ControlError
from sidecar.records import LONGEST_ID_BYTES, NEVER_WRITTEN, Headers
from sidecar.search.targets import Target
from sidecar.settings import SWITCH, Settings

MOST_ATTRIBUTES = 50


class Form(NamedTuple):
    """The three names of one control."""

    header: str
    parameter: str
    ext: str


ENABLED = Form("x-personalize", "personalize", "enabled")
USER = Form("x-personalize-user", "personalize_user", "user_id")
SESSION = Form("x-personalize-session", "personalize_session", "session_id")
WINDOW = Form("x-personalize-window", "personalize_window", "window_size")
WEIGHT = Form("x-personalize-weight", "personalize_weight", "weight")
ATTRIBUTES = Form("x-personalize-attributes", "personalize_attributes", "attributes")
DIVERSITY = Form("x-personalize-diversity", "personalize_diversity", "diversity")
EXPLAIN = Form("x-personalize-explain", "personalize_explain", "explain")
STATE = Form("x-personalize-state", "personalize_state", "state")
FORMS = (ENABLED, USER, ATTRIBUTES, SESSION, WINDOW, WEIGHT, DIVERSITY, EXPLAIN, STATE)
# Beside Authorization, in which a client may have to name itself to OpenSearch.
SECRET_HEADER = "x-personalize-authorization"
HEADERS = frozenset((*(form.header for form in FORMS), SECRET_HEADER))
PARAMETERS = frozenset(form.parameter for form in FORMS)
_EXT_KEYS = frozenset(form.ext for form in FORMS)
OWN_EXT = ("personalize", "personalize_request_parameters")  # sections that OpenSearch never sees


_OWN_EXT_AND_UBI = (*OWN_EXT, "ubi")


def own_sections(settings: Settings) -> tuple[str, ...]:
    """Return the ext sections that OpenSearch is not to see."""
    return _OWN_EXT_AND_UBI if settings.ubi == "take" else OWN_EXT


@dataclass(frozen=True, slots=True)
class Controls:
    """One request's controls, with the defaults filled in.

    ``may_read_history``: an explanation may tell what the shopper did; not where a secret guards
    states and the request does not bring it.
    """

    enabled: bool
    user_id: str | None
    session_id: str | None
    window: int
    weight: float
    explain: bool
    min_state: int | None
    diversity: float = 0.0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    may_read_history: bool = True


Value = TypeVar("Value")


# How own headers begin, in any case: no others are put into lower case and decoded.
_OWN_INITIALS = frozenset({"X-P", "x-p", "X-p", "x-P"})


class _Source:
    """Looks a control up in the three places, and words the error if it is wrong."""

    def __init__(self, headers: Headers, target: Target, ext: Mapping[str, Any]) -> None:
        self._headers = {name.lower(): _as_utf8(text) for name, text in headers
                         if name[:3] in _OWN_INITIALS}
        self._target = target
        block = ext.get("personalize")
        if block is not None and not isinstance(block, Mapping):
            raise ControlError("ext.personalize is no object; name controls in one or leave it out")
        self._ext: Mapping[str, Any] = block or {}
        unknown = self._ext.keys() - _EXT_KEYS
        if unknown:
            raise ControlError(f"ext.personalize has {min(unknown)!r}, which is no control; "
                               f"it takes {', '.join(form.ext for form in FORMS)}")

    def read(self, form: Form, parse: Callable[[Any], Value], wanted: str) -> Value | None:
        """Return the first of header, parameter and ext that is given; None if none is."""
        for place, given in enumerate((self._headers.get(form.header),
                                       self._target.get(form.parameter),
                                       self._ext.get(form.ext))):
            if given is None or given == "":
                continue
            try:
                return parse(given)
            except (ValueError, TypeError, KeyError, OverflowError):
                name = (form.header, form.parameter, f"ext.personalize.{form.ext}")[place]
                raise ControlError(f"{name} is {str(given)[:80]!r}, must be {wanted}") from None
        return None


def read_controls(headers: Headers, target: Target, ext: Mapping[str, Any],
                  settings: Settings) -> Controls:
    """Read a request's controls.

    Args:
        headers: the request's, as they came.
        target: its path and parameters.
        ext: the body's ``ext`` object, decoded; empty if there is none.
        settings: the defaults, and the largest window.

    Raises:
        ControlError: a value that a control cannot have, with its place and the remedy.
    """
    source = _Source(headers, target, ext)
    enabled = source.read(ENABLED, _switch, "on or off")
    user_id = source.read(USER, _identifier, f"text of at most {LONGEST_ID_BYTES} bytes")
    window = source.read(WINDOW, lambda v: _within(_whole(v), 1, settings.max_window),
                         f"1-{settings.max_window}")
    weight = source.read(WEIGHT, lambda v: _within(_number(v), 0.0, 1.0), "0-1")
    return Controls(
        enabled=settings.personalize if enabled is None else enabled,
        user_id=user_id or _user_of_others(ext),
        session_id=source.read(SESSION, _identifier, f"text of at most {LONGEST_ID_BYTES} bytes"),
        window=min(settings.window, settings.max_window) if window is None else window,
        weight=settings.weight if weight is None else weight,
        explain=bool(source.read(EXPLAIN, _switch, "true or false")),
        min_state=source.read(STATE, lambda v: _within(_whole(v), NEVER_WRITTEN, 2**63),
                              "a state's version"),
        attributes=source.read(ATTRIBUTES, _attributes, "pairs as age=35-44&region=north, in ext "
                               "an object of texts and numbers") or {},
        diversity=source.read(DIVERSITY, lambda v: _within(_number(v), 0.0, 1.0), "0-1") or 0.0,
        may_read_history=not settings.admin_authorization
        or _has_secret(headers, settings.admin_authorization),
    )


def _has_secret(headers: Headers, secret: str) -> bool:
    return any(hmac.compare_digest(text.encode(), secret.encode()) for name, text in headers
               if name.lower() in ("authorization", SECRET_HEADER))


def _user_of_others(ext: Mapping[str, Any]) -> str | None:
    """Return the user that UBI's or Amazon's ext section names; theirs are not refused."""
    for section, key in (("ubi", "client_id"), ("personalize_request_parameters", "user_id")):
        block = ext.get(section)
        given = block.get(key) if isinstance(block, Mapping) else None
        try:
            if given is not None and given != "":
                return _identifier(given)
        except ValueError:
            continue
    return None


def _switch(given: Any) -> bool:
    return given if isinstance(given, bool) else SWITCH[str(given).strip().lower()]


def _identifier(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, str | int):
        raise ValueError(given)
    text = str(given)  # spaces and all, as events have it
    if not text.strip() or len(text.encode("utf-8", "surrogatepass")) > LONGEST_ID_BYTES:
        raise ValueError(given)
    return text


def _attributes(given: Any) -> dict[str, Any]:
    """Return the user's attributes, column → value."""
    if isinstance(given, str):
        given = dict(parse_qsl(given, strict_parsing=True))
    if not isinstance(given, Mapping) or len(given) > MOST_ATTRIBUTES or any(
            not isinstance(value, str | int | float | bool) for value in given.values()):
        raise ValueError(given)
    return dict(given)


def _as_utf8(text: str) -> str:
    """Read a header as UTF-8, which most clients mean; its bytes arrive as latin-1."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _whole(given: Any) -> int:
    if isinstance(given, bool) or (isinstance(given, float) and not given.is_integer()):
        raise ValueError(given)
    return int(given)


def _number(given: Any) -> float:
    if isinstance(given, bool):
        raise ValueError(given)
    return float(given)


Number = TypeVar("Number", int, float)


def _within(number: Number, low: Number, high: Number) -> Number:
    if not low <= number <= high:
        raise ValueError(number)
    return number
