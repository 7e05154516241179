"""Model directories: weights, configuration, vocabulary and rules, and never a pickled object.

    model.json              format, version, configuration, vocabulary, imputation rules, evidence
    weights-VERSION.npz     encoder and blend parameters
    knowledge-VERSION.npz   item table, words' and given vectors, statistics, associations, factors,
                            rhythms, segments, query memory

The version is a digest of the arrays and of model.json without the evidence. Models that rank
differently never share a version, and neither do equal arrays of other items. model.json is renamed
into its place last, so that a reader gets the whole old model or the whole new one. The arrays of
the previous model stay until the next is written, for readers that are still reading them.
"""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch

from sidecar.errors import ModelError
from sidecar.ranking.association import Association
from sidecar.ranking.blend import Blend
from sidecar.ranking.embeddings import Embeddings
from sidecar.ranking.encoder import Encoder, EncoderConfig
from sidecar.ranking.imputation import Imputation
from sidecar.ranking.items import TABLE, ItemTable
from sidecar.ranking.kernels import CONTEXT
from sidecar.ranking.query_memory import QueryMemory
from sidecar.ranking.ranker import Ranker, RankerConfig
from sidecar.ranking.segments import Segments
from sidecar.ranking.signals import FEATURES, Knowledge
from sidecar.ranking.statistics import ItemStatistics
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.stores.arrays import load_arrays, save_arrays
from sidecar.stores.disk import deserted

FORMAT = 5
_NOT_LEARNT = ("format", "version", "evidence")
_PARTIAL = ".partial-"  # and the writer's process id
Arrays = dict[str, npt.NDArray[Any]]


def save_ranker(ranker: Ranker, model_dir: Path, evidence: Mapping[str, Any]) -> str:
    """Write a model directory; returns its version, a digest of everything that was learnt.

    Raises:
        ModelError: the directory cannot be written.
    """
    weights = {f"encoder.{k}": v.cpu().numpy() for k, v in ranker.encoder.state_dict().items()}
    weights |= {f"blend.{k}": v.cpu().numpy() for k, v in ranker.blend.state_dict().items()}
    knowledge = _knowledge_arrays(ranker.knowledge)
    learnt = _describe(ranker)
    version = _digest(weights | knowledge, learnt)
    described = {"format": FORMAT, "version": version, **learnt, "evidence": dict(evidence)}
    text = json.dumps(described, ensure_ascii=False, indent=1).encode()
    try:
        model_dir.mkdir(parents=True, exist_ok=True)
        _remove_deserted(model_dir)
        before = _version_there(model_dir)
        for name, arrays in (("weights", weights), ("knowledge", knowledge)):
            with _Replaced(model_dir / f"{name}-{version}.npz") as file:
                save_arrays(file, arrays)
        with _Replaced(model_dir / "model.json") as file:
            file.write(text)
        _remove_arrays(model_dir, kept={version, before})
    except OSError as error:
        raise ModelError(f"{model_dir} cannot be written: {error}") from error
    return version


def load_ranker(model_dir: Path, device: str = "auto") -> Ranker:
    """Load a model.

    Args:
        model_dir: a directory that ``save_ranker`` wrote.
        device: ``auto`` (cuda where there is one), ``cpu`` or ``cuda``.

    Raises:
        ModelError: says which file or entry does not fit, and what was expected.
    """
    described = _read_description(model_dir)
    version = described["version"]
    weights, arrays = (_arrays_of(model_dir, name, version) for name in ("weights", "knowledge"))
    if _digest(weights | arrays, described) != version:
        raise ModelError(f"{model_dir}/model.json does not fit: version {version} is of other "
                         "arrays, or of other entries; train again")
    try:
        config = described["ranker"]
        ranker_config = RankerConfig(
            tuple(config["kinds"]), frozenset(config["strong_kinds"]), config["kept"],
            config["is_personal"], config["beats_engine"])
        knowledge = _knowledge(described, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{model_dir}/model.json does not fit: {error!r}; train again") from error
    encoder, blend = _networks(described, weights, model_dir)
    return Ranker(version, ranker_config, knowledge, encoder, blend,
                  pick_device(device))


def load_networks(model_dir: Path) -> tuple[str, Encoder, Blend]:
    """Load a model's version and networks, without its knowledge of items; on the processor.

    Raises:
        ModelError: says which file or entry does not fit, and what was expected.
    """
    described = _read_description(model_dir)
    version = described["version"]
    weights = _arrays_of(model_dir, "weights", version)
    return version, *_networks(described, weights, model_dir)


def _networks(described: Mapping[str, Any], weights: Arrays,
              model_dir: Path) -> tuple[Encoder, Blend]:
    try:
        with torch.device("meta"):  # its parameters are those on disk: none are made
            encoder = Encoder(EncoderConfig(**described["encoder"]))
        _check_columns(described)
        blend = Blend(**described["blend"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{model_dir}/model.json does not fit: {error!r}; train again") from error
    _load_weights(encoder, "encoder.", weights, model_dir)
    _load_weights(blend, "blend.", weights, model_dir)
    return encoder, blend


def model_version(model_dir: Path) -> str:
    """Return the version of the model in a directory without loading it.

    Raises:
        ModelError: there is no readable model.
    """
    return str(_read_description(model_dir)["version"])


def pick_device(device: str) -> str:
    """Return ``cpu`` or ``cuda``.

    Raises:
        ModelError: cuda is asked for and there is none.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("device is cuda, but torch finds none; use auto or cpu")
    return device


def _describe(ranker: Ranker) -> dict[str, Any]:
    known = ranker.items.vocabulary
    config = ranker.config
    return {
        "ranker": {"kinds": list(config.kinds), "strong_kinds": sorted(config.strong_kinds),
                   "kept": config.kept, "is_personal": config.is_personal,
                   "beats_engine": config.beats_engine},
        "encoder": dataclasses.asdict(ranker.encoder.config),
        "blend": ranker.blend.shape,
        "features": FEATURES,
        "context": CONTEXT,
        "vocabulary": {"words": list(known.words), "brands": list(known.brands),
                       "categories": list(known.categories),
                       "category_counts": known.category_counts,
                       "rating_mean": known.rating_mean,
                       "vector_widths": dict(known.embeddings.widths)},
        "imputation": {name: dataclasses.asdict(rule)
                       for name, rule in known.imputations.items()},
        "associations": sorted(ranker.knowledge.associations),
        "items": ranker.items.ids,
    }


def _knowledge_arrays(knowledge: Knowledge) -> Arrays:
    items, size = knowledge.items, len(knowledge.items)
    arrays: Arrays = {f"items.{name}": getattr(items, name)[:size] for name in TABLE}
    arrays |= {"words.idf": items.vocabulary.idf, "words.vectors": items.vocabulary.word_vectors,
               "factors": knowledge.factors, "rhythm": knowledge.rhythm}
    reduction = items.vocabulary.embeddings
    if reduction.widths:
        arrays |= {"embeddings.mean": reduction.mean, "embeddings.axes": reduction.axes}
    arrays |= {f"statistics.{k}": v for k, v in knowledge.statistics.arrays().items()}
    arrays |= {f"segments.{k}": v for k, v in knowledge.segments.arrays().items()}
    arrays |= {f"memory.{k}": v for k, v in knowledge.memory.arrays().items()}
    for name, table in knowledge.associations.items():
        arrays |= {f"association.{name}.{k}": v for k, v in table.arrays().items()}
    return arrays


def _knowledge(described: Mapping[str, Any], arrays: Arrays) -> Knowledge:
    words = described["vocabulary"]
    codes = [{name: code for code, name in enumerate(words[kind], 1)}
             for kind in ("words", "brands", "categories")]
    widths = words["vector_widths"]
    vocabulary = Vocabulary(
        codes[0], codes[1], codes[2], words["category_counts"],
        arrays["words.idf"], arrays["words.vectors"],
        {name: Imputation(**rule) for name, rule in described["imputation"].items()},
        Embeddings(widths, arrays["embeddings.mean"], arrays["embeddings.axes"]) if widths
        else Embeddings.none(),
        words["rating_mean"])
    items = ItemTable.from_arrays(vocabulary, described["items"],
                                  {name: arrays[f"items.{name}"] for name in TABLE})
    statistics = ItemStatistics.from_arrays(_under("statistics.", arrays))
    return Knowledge(
        items, statistics,
        {name: Association.from_arrays(_under(f"association.{name}.", arrays))
         for name in described["associations"]},
        arrays["factors"], arrays["rhythm"], Segments.from_arrays(_under("segments.", arrays)),
        QueryMemory.from_arrays(_under("memory.", arrays)))


def _check_columns(described: Mapping[str, Any]) -> None:
    for kind, known in (("features", FEATURES), ("context", CONTEXT)):
        found = [tuple(name) if isinstance(name, list) else name for name in described[kind]]
        if found != list(known):
            differs = sorted(set(map(str, found)) ^ set(map(str, known)))
            raise ValueError(f"{kind} are not those that this version reads, first {differs[:1]}")


def _load_weights(module: torch.nn.Module, prefix: str, weights: Arrays, model_dir: Path) -> None:
    state = {k: torch.from_numpy(v) for k, v in _under(prefix, weights).items()}
    try:
        module.load_state_dict(state, assign=True)  # mapped parameters stay mapped
    except RuntimeError as error:
        what = str(error).splitlines()[-1].strip()
        raise ModelError(f"{model_dir}/model.json does not fit its weights: {what}; train again"
                         ) from error


def _under(prefix: str, arrays: Arrays) -> Arrays:
    return {name[len(prefix):]: value for name, value in arrays.items()
            if name.startswith(prefix)}


def _read_description(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "model.json"
    try:
        described = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}; write one with scripts.train"
                         ) from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        found = described.get("format") if isinstance(described, dict) else None
        raise ModelError(f"{path} has format {found}, must be {FORMAT}; train again")
    if not isinstance(described.get("version"), str):
        raise ModelError(f"{path} names no version; train again")
    return described


def _arrays_of(model_dir: Path, name: str, version: str) -> Arrays:
    path = model_dir / f"{name}-{version}.npz"
    try:
        return load_arrays(path)
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path} cannot be read: {error}; train again") from error
    except Exception as error:  # zipfile.BadZipFile and its kin have no common root
        raise ModelError(f"{path} is broken: {error!r}; train again") from error


def _digest(arrays: Arrays, described: Mapping[str, Any]) -> str:
    learnt = {name: entry for name, entry in described.items() if name not in _NOT_LEARNT}
    digest = hashlib.sha256(json.dumps(learnt, sort_keys=True).encode())
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).data if arrays[name].size else b"")
    return digest.hexdigest()[:16]


class _Replaced:
    """Opens a file for writing under another name; it takes its place when all is written.

    It is locked meanwhile, which tells it from one whose writer was killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.name}{_PARTIAL}{os.getpid()}")

    def __enter__(self) -> IO[bytes]:
        self._file = self._partial.open("wb")
        with suppress(OSError):  # a file system without locks: nothing there is ever swept
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return self._file

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            self._file.close()  # writes what is left, which a full disk refuses
            if error is None:
                self._partial.replace(self._path)
        finally:
            self._partial.unlink(missing_ok=True)


def _remove_deserted(model_dir: Path) -> None:
    """Remove what trainings that were killed while they saved have left."""
    for path in deserted(model_dir.glob(f"*{_PARTIAL}*")):
        with suppress(OSError):  # somebody else's
            path.unlink()


def _version_there(model_dir: Path) -> str | None:
    try:
        return model_version(model_dir)
    except ModelError:
        return None


def _remove_arrays(model_dir: Path, kept: set[str | None]) -> None:
    for path in model_dir.glob("*-*.npz"):
        if path.stem.rpartition("-")[2] not in kept:
            path.unlink(missing_ok=True)
