"""A model's two networks for many searches and users at once, on one device.

``parts`` is the blend, ``steps`` the encoder. Jobs that arrive together form one batch, padded to a
power of two so that few shapes occur. On a GPU each shape is captured once as a CUDA graph, which
replays some hundred small kernels at the cost of one. On a processor the same batches run as they
are. Results agree with ``PackedBlend`` and ``Stepper`` to float32 rounding (1e-4 in a part, 1e-5 in
a hidden state); tests check that.

Legend: K candidates, F features, C context, S signals; B users, T events; D, W, L as in
``encoder``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sidecar.ranking.blend import LEAST_SPREAD, Blend
from sidecar.ranking.encoder import Encoder
from sidecar.records import FloatArray

log = logging.getLogger(__name__)

LEAST_ROWS = 64  # of a padded batch of searches
MOST_GRAPHS = 64  # captured: powers of two of searches, rows and users; more shapes run as they are
WARM_UPS = 3  # runs before a capture, for libraries to choose their kernels

Array = npt.NDArray[Any]
Compute = Callable[..., Tensor]


@dataclass(frozen=True, slots=True)
class BlendJob:
    """One search: ``features`` (K, F) raw, NaN where unknown; ``context`` (C) raw; without
    ``has_history`` the personal signals' gates are closed."""

    features: FloatArray
    context: FloatArray
    has_history: bool


@dataclass(frozen=True, slots=True)
class StepJob:
    """B users' next T > 0 events: item ``vectors`` (B, T, D), zero for a search; ``kinds`` (B, T)
    int64; ``gaps_s`` (B, T); ``texts`` (B, T, TEXT_WIDTH) of queries; ``layers`` (L, B, W), the
    states before them. All float32 but the kinds."""

    vectors: FloatArray
    kinds: npt.NDArray[np.int64]
    gaps_s: FloatArray
    texts: FloatArray
    layers: FloatArray


class RemoteNetworks(Protocol):
    """Networks in another process; None is "not now", and the caller computes by itself."""

    def parts(self, version: str, job: BlendJob) -> FloatArray | None:
        """Return each signal's centred part (K, S)."""
        ...

    def steps(self, version: str, job: StepJob) -> FloatArray | None:
        """Return the states (L, B, W) after the events."""
        ...


def step(encoder: Encoder, vectors: Tensor, kinds: Tensor, gaps_s: Tensor, texts: Tensor,
         layers: Tensor) -> Tensor:
    """Return the states (L, B, W) after T events of B users; shapes as in ``StepJob``."""
    _, last = encoder(encoder.events(vectors, kinds, gaps_s, texts), layers)
    after: Tensor = last
    return after


class Networks:
    """Encoder and blend of one model on one device; for one thread."""

    def __init__(self, encoder: Encoder, blend: Blend, device: str) -> None:
        self._device = torch.device(device)
        self._encoder = encoder.to(self._device).eval()
        if isinstance(encoder.cells, torch.nn.GRU):
            encoder.cells.flatten_parameters()
        self._blend = blend.to(self._device).eval()
        self._graphs = _Graphs(self._device)

    def parts(self, jobs: Sequence[BlendJob]) -> list[FloatArray]:
        """Return each search's centred parts (K, S), in order."""
        if not jobs:
            return []
        counts = [len(job.features) for job in jobs]
        searches, rows = _padded(len(jobs) + 1), _padded(max(sum(counts), LEAST_ROWS))
        features = np.zeros((rows, jobs[0].features.shape[1]), np.float32)
        features[:sum(counts)] = np.concatenate([job.features for job in jobs])
        place = np.full(rows, searches - 1)  # the padding is a search of its own
        place[:sum(counts)] = np.repeat(np.arange(len(jobs)), counts)
        context = np.zeros((searches, len(jobs[0].context)), np.float32)
        context[:len(jobs)] = [job.context for job in jobs]
        has_history = np.zeros(searches, np.bool_)
        has_history[:len(jobs)] = [job.has_history for job in jobs]
        found = self._graphs.run("parts", self._blended, features, context, has_history, place)
        return np.split(found[:sum(counts)], np.cumsum(counts)[:-1])

    def steps(self, jobs: Sequence[StepJob]) -> list[FloatArray]:
        """Return each job's states (L, B, W) after its events, in order."""
        found: list[FloatArray] = [np.zeros(0, np.float32)] * len(jobs)
        alike: dict[int, list[int]] = {}
        for k, job in enumerate(jobs):
            alike.setdefault(job.kinds.shape[1], []).append(k)
        for members in alike.values():
            after = self._stepped([jobs[k] for k in members])
            ends = np.cumsum([jobs[k].kinds.shape[0] for k in members])
            for k, states in zip(members, np.split(after, ends, axis=1), strict=False):
                found[k] = states
        return found

    def _stepped(self, jobs: Sequence[StepJob]) -> FloatArray:
        """Step jobs of equally many events as one batch; returns (L, at least ΣB, W)."""
        size = _padded(sum(len(job.kinds) for job in jobs))
        arrays = [_joined([getattr(job, name) for job in jobs], size)
                  for name in ("vectors", "kinds", "gaps_s", "texts")]
        layers = _joined([job.layers.swapaxes(0, 1) for job in jobs], size).swapaxes(0, 1)
        is_short = jobs[0].kinds.shape[1] == 1  # whole histories have too many lengths
        return self._graphs.run("steps" if is_short else None, self._step, *arrays, layers)

    def _step(self, *inputs: Tensor) -> Tensor:
        return step(self._encoder, *inputs)

    def _blended(self, features: Tensor, context: Tensor, has_history: Tensor,
                 place: Tensor) -> Tensor:
        known = torch.where(features.isfinite(), features, 0.0)
        count = _sums(torch.ones_like(known[:, :1]), place, context).clamp(min=1)  # (B, 1)
        away = known - (_sums(known, place, context) / count)[place]
        spread = (_sums(away.square(), place, context) / count).sqrt().clamp(min=LEAST_SPREAD)
        scaled = self._blend.standardise(features, away / spread[place])
        parts: Tensor = self._blend(scaled, context, has_history, place)
        return parts


def _sums(values: Tensor, place: Tensor, context: Tensor) -> Tensor:
    """Return the sums (B, n) of ``values`` (R, n) over each search's rows."""
    empty = values.new_zeros(len(context), values.shape[1])
    return empty.index_add(0, place, values)


def _padded(count: int) -> int:
    """Return the next power of two."""
    return 1 << (count - 1).bit_length()


def _joined(arrays: Sequence[Array], size: int) -> Array:
    """Return arrays end to end, with zeros up to ``size``."""
    joined = np.zeros((size, *arrays[0].shape[1:]), arrays[0].dtype)
    np.concatenate(arrays, out=joined[:sum(map(len, arrays))])
    return joined


class _Graphs:
    """Runs computations of fixed shapes; on a GPU, captures each once and replays it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._captured: dict[tuple[Any, ...], _Captured | None] = {}

    def run(self, name: str | None, compute: Compute, *arrays: Array) -> FloatArray:
        """Return ``compute`` of the arrays; ``name`` None: of shapes that will not come again."""
        inputs = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        with torch.inference_mode():
            if name is None or self._device.type != "cuda":
                found = compute(*(tensor.to(self._device) for tensor in inputs))
            else:
                found = self._replayed(name, compute, inputs)
            result: FloatArray = found.cpu().numpy()
        return result

    def _replayed(self, name: str, compute: Compute, inputs: Sequence[Tensor]) -> Tensor:
        key = (name, *(tuple(tensor.shape) for tensor in inputs))
        if key not in self._captured and len(self._captured) < MOST_GRAPHS:
            self._captured[key] = self._capture(name, compute, inputs)
        captured = self._captured.get(key)
        if captured is None:
            return compute(*(tensor.to(self._device) for tensor in inputs))
        return captured.replay(inputs)

    def _capture(self, name: str, compute: Compute, inputs: Sequence[Tensor]) -> _Captured | None:
        try:
            return _Captured(compute, [tensor.to(self._device) for tensor in inputs])
        except RuntimeError as error:  # a kernel that cannot be captured runs as it is
            log.warning("computation is not captured", extra={"what": name, "error": str(error)})
            return None


class _Captured:
    """One shape's CUDA graph with the memory that it reads and writes."""

    def __init__(self, compute: Compute, inputs: list[Tensor]) -> None:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                compute(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        self._inputs = inputs
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = compute(*inputs)

    def replay(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the output for these inputs; the next replay overwrites it."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return self._output
