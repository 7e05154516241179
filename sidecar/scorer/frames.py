"""What goes over the socket: a length of four bytes, then msgpack, with arrays as their bytes.

Pure. A request names the networks' version and the task; an answer brings arrays, or says why there
are none.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from sidecar.ranking.networks import BlendJob, StepJob
from sidecar.records import FloatArray

MOST_BYTES = 64 * 2**20  # of a frame: two hundred users' whole histories
_LENGTH = struct.Struct(">I")
LENGTH_BYTES = _LENGTH.size

T = TypeVar("T")


class FrameError(ValueError):
    """Bytes that are no frame of this version's."""


class Packed(msgspec.Struct, frozen=True, array_like=True):
    """An array: its dtype's name, its shape, its bytes in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class ScorerRequest(msgspec.Struct, frozen=True, array_like=True):
    """``parts``: features, context, has_history; ``steps``: ``StepJob``'s five arrays."""

    what: Literal["parts", "steps"]
    version: str
    arrays: tuple[Packed, ...]


class ScorerAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One array, or why there is none."""

    array: Packed | None = None
    error: str = ""


_encoder = msgspec.msgpack.Encoder()
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {
    kind: msgspec.msgpack.Decoder(kind) for kind in (ScorerRequest, ScorerAnswer)}


def frame(message: ScorerRequest | ScorerAnswer) -> bytes:
    """Return a message's frame.

    Raises:
        FrameError: it is larger than a frame may be.
    """
    body = _encoder.encode(message)
    if len(body) > MOST_BYTES:
        raise FrameError(f"frame has {len(body)} bytes, must have at most {MOST_BYTES}")
    return _LENGTH.pack(len(body)) + body


def message(body: bytes, kind: type[T]) -> T:
    """Return the message in a frame's body.

    Raises:
        FrameError: it is none of that kind.
    """
    try:
        found: T = _decoders[kind].decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(f"frame is no {kind.__name__}: {error}") from error
    return found


def length(head: bytes) -> int:
    """Return how many bytes follow a frame's first four.

    Raises:
        FrameError: more than a frame may have.
    """
    (size,) = _LENGTH.unpack(head)
    if size > MOST_BYTES:
        raise FrameError(f"frame has {size} bytes, must have at most {MOST_BYTES}")
    return int(size)


def bodies(received: bytearray) -> Iterator[bytes]:
    """Yield the bodies of the whole frames at the beginning, and take them out of the buffer.

    Raises:
        FrameError: the bytes are not a frame.
    """
    while len(received) >= _LENGTH.size:
        end = _LENGTH.size + length(bytes(received[:_LENGTH.size]))
        if len(received) < end:
            return
        body = bytes(received[_LENGTH.size:end])
        del received[:end]
        yield body


def parts_request(version: str, job: BlendJob) -> ScorerRequest:
    """Return the request for a search's parts."""
    return ScorerRequest("parts", version, (packed(job.features), packed(job.context),
                                            packed(np.array(job.has_history))))


def steps_request(version: str, job: StepJob) -> ScorerRequest:
    """Return the request for users' states after their events."""
    return ScorerRequest("steps", version, (
        packed(job.vectors), packed(job.kinds), packed(job.gaps_s), packed(job.texts),
        packed(job.layers)))


def blend_job(request: ScorerRequest) -> BlendJob:
    """Return the job that ``parts_request`` was made of.

    Raises:
        FrameError: its arrays are not those of a search.
    """
    features, context, has_history = _unpacked(request, (2, 1, 0))
    return BlendJob(features, context, bool(has_history))


def step_job(request: ScorerRequest) -> StepJob:
    """Return the job that ``steps_request`` was made of.

    Raises:
        FrameError: its arrays are not those of steps.
    """
    vectors, kinds, gaps_s, texts, layers = _unpacked(request, (3, 2, 2, 3, 3))
    users, events = kinds.shape
    if not events or {vectors.shape[:2], gaps_s.shape, texts.shape[:2]} != {(users, events)} or (
            layers.shape[1] != users):
        raise FrameError("arrays of steps are not of the same users and events")
    return StepJob(vectors, kinds, gaps_s, texts, layers)


def packed(array: npt.NDArray[Any]) -> Packed:
    """Return an array for a frame."""
    return Packed(array.dtype.str, array.shape, np.ascontiguousarray(array).tobytes())


def unpacked(array: Packed) -> npt.NDArray[Any]:
    """Return a frame's array; read-only.

    Raises:
        FrameError: its bytes do not fit its shape.
    """
    try:
        return np.frombuffer(array.data, np.dtype(array.dtype)).reshape(array.shape)
    except (TypeError, ValueError) as error:
        raise FrameError(f"array does not fit its shape {array.shape}: {error}") from error


def floats(answer: ScorerAnswer) -> FloatArray | None:
    """Return an answer's array; None if there is none."""
    return None if answer.array is None else unpacked(answer.array).astype(np.float32, copy=False)


def _unpacked(request: ScorerRequest, dimensions: tuple[int, ...]) -> list[npt.NDArray[Any]]:
    arrays = [unpacked(array) for array in request.arrays]
    if tuple(array.ndim for array in arrays) != dimensions:
        raise FrameError(f"arrays of {request.what} have dimensions "
                         f"{[array.ndim for array in arrays]}, must have {list(dimensions)}")
    return arrays
