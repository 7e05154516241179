"""From a catalogue and a log to a ranker: the order of the steps, each in a room of its own.

1. vocabulary and item table from the catalogue;
2. on the log's first part: associations, factors, rhythms and the encoder;
3. on lists from its last part, each with the knowledge of part one and the history and popularity
   of its own moment: the blend;
4. for serving: associations, factors and rhythms of the whole log; the encoder goes on through the
   last part once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sidecar.errors import FileError
from sidecar.ranking.blend import Blend, Layout
from sidecar.ranking.encoder import Encoder, EncoderConfig
from sidecar.ranking.history import Trail
from sidecar.ranking.items import ItemTable
from sidecar.ranking.ranker import Ranker, RankerConfig
from sidecar.ranking.signals import Knowledge, Situation, columns, empty_scratch
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import Case, FloatArray
from sidecar.training.associations import fit_associations, fit_factors, fit_rhythm
from sidecar.training.blend_training import Lists, part_lists, train_blend
from sidecar.training.encoder_training import TableTensors, states_at, train_encoder
from sidecar.training.examples import Example, Walk, examples_of_cases, make_examples
from sidecar.training.log import EventLog
from sidecar.training.metrics import compare, reciprocal_ranks
from sidecar.training.retrieval import Retrieval

log = logging.getLogger(__name__)
FEWEST_LISTS = 100
Progress = Callable[[str], Callable[[int, float], None]]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What a training run may be told; defaults are what the dev windows chose."""

    seed: int = 0
    cell: str = "torch"
    width: int = 64
    hidden: int = 128
    layers: int = 2
    epochs: int | None = None
    kept: int = 500
    list_share: float = 0.3  # last share of the log that the blend's lists come from
    most_lists: int = 24_000
    lists_per_visit: int = 6
    foreign_share: float = 0.1  # lists with another user's history
    empty_share: float = 0.15  # lists with none
    blend_epochs: int = 5
    evidence_share: float = 0.15  # latest lists, on which the personal gain must show
    device: str = "cpu"
    # The products of a step are small: a second thread gains little on a quiet machine, and on a
    # busy one each waits for the other at every product, which took ten times as long.
    threads: int = 1


@dataclass(frozen=True, slots=True)
class _Learned:
    knowledge: Knowledge
    encoder: Encoder


def train_ranker(rows: Sequence[Mapping[str, Any]], events: EventLog, config: TrainConfig,
                 progress: Progress, cases: Sequence[Case] = ()) -> tuple[Ranker, dict[str, Any]]:
    """Train on every event of the log.

    Args:
        rows: the catalogue.
        events: the log, with rows of that catalogue.
        config: sizes, seed, device.
        progress: makes a progress callback for a named step.
        cases: lists made elsewhere, in the log's time; they join those made of the log.

    Returns:
        the ranker, and the evidence of its personal part: the gain over the same model without
        it, on the latest lists, by a blend that did not see them.

    Raises:
        FileError: the log has no event that could be a target, or no list could be made.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    table = ItemTable(Vocabulary.fit(rows, seed=config.seed))
    table.upsert(rows)
    _tell_what_is_missing(rows, events)
    strong = events.target_kinds()
    if not strong:
        raise FileError("events hold no purchase, click or other positive event on a known item")
    cut = float(events.ts[int(len(events) * (1 - config.list_share))])
    encoder = _new_encoder(table, config)
    early = events.until(cut)
    early = early if len(early) else events
    train_encoder(encoder, early, table, seed=config.seed, epochs=config.epochs,
                  progress=progress("encoder"))
    learned = _learn(early, table, config, encoder)
    examples = make_examples(events, rows, Retrieval(rows), since=cut, most=config.most_lists,
                             per_visit=config.lists_per_visit, seed=config.seed)
    examples = sorted([*examples, *examples_of_cases(cases, events, table, cut)],
                      key=lambda e: e.ts)
    if not examples:
        raise FileError("no list could be made of the events: no title or category finds an item")
    lists = make_lists(events, examples, learned.knowledge, learned.encoder, config, strong,
                       progress("lists"))
    evidence = _evidence(lists, config, progress("blend, on all but the latest lists"))
    blend = _train_blend(lists, config, config.blend_epochs, progress("blend"))
    train_encoder(encoder, events.slice(len(early), len(events)), table, seed=config.seed,
                  epochs=1, progress=progress("encoder, latest events"))
    learned = _learn(events, table, config, encoder)
    walk = Walk(events, len(table), kept=config.kept, strong_kinds=strong)
    walk.advance(float(events.ts[-1]) + 1.0)
    knowledge = replace(learned.knowledge, statistics=walk.statistics)
    ranker_config = RankerConfig(tuple(events.kinds), strong, config.kept,
                                 is_personal=evidence["is_personal"])
    ranker = Ranker("untagged", ranker_config, knowledge, encoder, blend, config.device)
    return ranker, evidence


def _train_blend(lists: Lists, config: TrainConfig, epochs: int,
                 progress: Callable[[int, float], None]) -> Blend:
    torch.manual_seed(config.seed)
    blend = Blend(lists.layout).to(config.device)
    train_blend(blend, lists, seed=config.seed, epochs=epochs, progress=progress)
    return blend


def _evidence(lists: Lists, config: TrainConfig,
              progress: Callable[[int, float], None]) -> dict[str, Any]:
    """Measure the personal gain on the latest lists, with a blend trained on the others.

    The personal part ships switched on only if the gain's 95 % interval lies above zero.
    """
    held = max(1, int(len(lists) * config.evidence_share))
    early = len(lists) - held
    late = np.arange(early, len(lists))
    late = late[lists.has_history[late]]
    if early < FEWEST_LISTS or len(late) < FEWEST_LISTS:
        progress(1000, 0.0)
        log.warning("too few lists (%d) to show a personal gain: the model ships with "
                    "personalization off", len(lists))
        return {"lists": len(late), "is_personal": False}
    blend = _train_blend(lists.take(slice(early)), config, max(1, config.blend_epochs // 2),
                         progress)
    dev = lists.take(late)
    alone = replace(dev, has_history=np.zeros(len(dev), bool))
    personal, plain = (reciprocal_ranks(part_lists(blend, which).sum(axis=-1),
                                        which.target, which.valid)
                       for which in (dev, alone))
    gain = compare(personal, plain)
    evidence = {"lists": len(late), "mrr": float(personal.mean()),
                "mrr_unpersonalised": float(plain.mean()), "gain": gain["difference"],
                "low": gain["low"], "high": gain["high"], "is_personal": gain["low"] > 0}
    log.info("personal gain in MRR on the latest %d lists: %+.4f [%+.4f, %+.4f]: personalization "
             "ships %s", len(late), gain["difference"], gain["low"], gain["high"],
             "on" if evidence["is_personal"] else "off")
    return evidence


def make_lists(events: EventLog, examples: Sequence[Example], knowledge: Knowledge,
               encoder: Encoder, config: TrainConfig, strong: frozenset[str],
               progress: Callable[[int, float], None]) -> Lists:
    """Work out the blend's lists, some with another's history or none."""
    users = _whose_history(examples, len(events.users), config,
                           np.random.default_rng(config.seed))
    size = len(knowledge.items)
    walk = Walk(events, size, kept=config.kept, strong_kinds=strong)
    is_strong = np.array([k in strong for k in events.kinds], bool)[events.kind]
    final = np.bincount(events.item[is_strong & (events.item >= 0)], minlength=size)
    knowledge = replace(knowledge, final_counts=final.astype(np.float32))
    return list_features(events, examples, users, knowledge, walk, encoder, progress,
                         dtype=np.float16)


def list_features(events: EventLog, examples: Sequence[Example], users: npt.NDArray[np.int64],
                  knowledge: Knowledge, walk: Walk, encoder: Encoder,
                  progress: Callable[[int, float], None], layout: Layout | None = None,
                  kinds: Sequence[str] | None = None,
                  dtype: npt.DTypeLike = np.float32) -> Lists:
    """Walk through the log and work out each list's features at its own moment.

    ``users`` (N) says whose history each list gets, -1 for nobody's; ``examples`` ascend in time.
    ``layout`` and ``kinds`` are a trained model's, where there is one: a log's own event words may
    come in another order.
    """
    states = states_at(encoder, events, knowledge.items, users,
                       np.array([e.ts for e in examples]), kinds)
    device = next(encoder.parameters()).device
    with torch.inference_mode():
        interests = encoder.interest(torch.from_numpy(states).to(device)).cpu().numpy()
        bias = float(encoder.bias)
    knowledge = replace(knowledge, statistics=walk.statistics,
                        scratch=empty_scratch(len(knowledge.items)))
    nobody = Trail(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.float32), np.zeros(0, bool))
    features, context, has_history = [], [], []
    for k, example in enumerate(examples):
        walk.advance(example.ts)
        user = int(users[k])
        trail = walk.trail(user, example.ts) if user >= 0 else nobody
        known = bool((trail.rows >= 0).any())
        logits = knowledge.items.vectors[np.maximum(example.rows, 0)] @ interests[k] + bias
        interest = (logits * (example.rows >= 0) * known).astype(np.float32)
        found = columns(knowledge, Situation(example.rows, example.scores, trail, example.ts,
                                             example.query, interest))
        layout = layout or Layout.of(found)
        facts, around = layout.matrix(found)
        features.append(facts)
        context.append(around)
        has_history.append(known)
        progress(int(1000 * (k + 1) / len(examples)), 0.0)
    assert layout is not None
    return Lists.of(layout, features, context, [e.target for e in examples], has_history,
                    dtype)


def _whose_history(examples: Sequence[Example], users: int, config: TrainConfig,
                   rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return each list's user: mostly its own, sometimes another, sometimes nobody (-1)."""
    own = np.array([e.user for e in examples], np.int64)
    draw = rng.random(len(own))
    foreign = draw < config.foreign_share
    own[foreign] = rng.integers(0, users, foreign.sum())
    own[(draw >= config.foreign_share)
        & (draw < config.foreign_share + config.empty_share)] = -1
    return own


def _new_encoder(table: ItemTable, config: TrainConfig) -> Encoder:
    known = table.vocabulary
    return Encoder(EncoderConfig(
        items=len(table), brands=len(known.brands), categories=len(known.categories),
        width=config.width, hidden=config.hidden, layers=config.layers, cell=config.cell,
    )).to(config.device)


def _learn(events: EventLog, table: ItemTable, config: TrainConfig, encoder: Encoder) -> _Learned:
    """Work out what a log tells besides the encoder's weights, and encode every item."""
    table.vectors = _encode_all(encoder, table, config.device)
    knowledge = Knowledge(
        table, statistics=Walk(events, len(table), kept=config.kept,
                               strong_kinds=frozenset()).statistics,
        associations=fit_associations(events, len(table)),
        factors=fit_factors(events, len(table), config.seed),
        rhythm=fit_rhythm(events, table))
    return _Learned(knowledge, encoder)


def _encode_all(encoder: Encoder, table: ItemTable, device: str) -> FloatArray:
    tensors = TableTensors(table, torch.device(device))
    with torch.inference_mode():
        vectors: FloatArray = tensors.vectors(encoder.eval(), tensors.row).cpu().numpy()
    return vectors


def _tell_what_is_missing(rows: Sequence[Mapping[str, Any]], events: EventLog) -> None:
    """Log which columns are absent, so that nobody wonders why a signal is silent."""
    for name in ("brand", "categories", "price"):
        if all(row.get(name) in (None, "", []) for row in rows):
            log.warning("catalogue has no %s: signals that read it are silent", name)
    if not events.has_times:
        log.warning("events have no times: file order counts, and rhythms mean nothing")
    if events.unknown_items:
        log.warning("%d events name items that the catalogue lacks", events.unknown_items)
