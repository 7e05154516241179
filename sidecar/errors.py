"""Every error that one package raises and another handles, in one tree::

    SidecarError
    ├── SettingsError          a setting is missing or out of range; says which and the remedy
    ├── InputError             somebody's input is not as documented; says what and where
    │   ├── ControlError       a header, parameter or ext value that controls personalization
    │   ├── UnreadableError    a request or answer that is no JSON the sidecar can take apart
    │   ├── BodyTooLarge       a request's body beyond the operator's limit
    │   ├── BadRequest         what came is no HTTP request, or does not come in time
    │   ├── EventError         one event; the rest of its batch is taken
    │   ├── RowError           one row of a catalogue, events or cases file (path, line, reason)
    │   └── FileError          a whole file: absent, unreadable, without a good row, too many bad
    ├── ModelError             a model directory that does not fit: what was found and expected
    ├── UpstreamError          OpenSearch could not be asked
    │   ├── UpstreamUnavailable    no node took the connection
    │   │   └── NothingReceived    closed before the answer (``stores.node_connection``)
    │   └── UpstreamTimeout        a node did not answer in time
    ├── ClientGone             the client that waited for an answer has hung up
    ├── VersionConflict        another writer wrote the state first; read again and retry
    ├── LaunchError            a program cannot start what it needs; says what is missing
    └── Skip                   ranking steps aside; carries the SkipReason that callers are told
"""

from __future__ import annotations

from sidecar.records import SkipReason


class SidecarError(Exception):
    """Root of the tree above."""


class SettingsError(SidecarError):
    """A setting is missing, malformed or out of range."""


class InputError(SidecarError):
    """Input that is not as documented."""


class ControlError(InputError):
    """A personalization control with a value that it cannot have."""


class UnreadableError(InputError):
    """A body that cannot be taken apart; it passes through as it is."""


class BodyTooLarge(InputError):
    """A request body with more bytes than the operator takes."""


class BadRequest(InputError):
    """What came is no request that may be answered; ``status`` is what to say instead."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class EventError(InputError):
    """An event that cannot be taken."""


class RowError(InputError):
    """A row that cannot be taken; ``line`` counts from 1."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class FileError(InputError):
    """A file that cannot be used at all."""


class ModelError(SidecarError):
    """A model directory that does not fit this program or this catalogue."""


class UpstreamError(SidecarError):
    """OpenSearch could not be asked, or broke off."""


class UpstreamUnavailable(UpstreamError):
    """No node accepted the connection."""


class UpstreamTimeout(UpstreamError):
    """A node accepted the request and did not answer in time."""


class ClientGone(SidecarError):
    """The client hung up; its upstream request was cancelled."""


class VersionConflict(SidecarError):
    """The state was written by somebody else since it was read."""


class LaunchError(SidecarError):
    """A program cannot start what it needs; one line says what is missing and what to do."""


class Skip(SidecarError):
    """Ranking steps aside: the engine's order is served, and the caller learns why."""

    def __init__(self, reason: SkipReason, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail
