"""From a catalogue and a log to a ranker: the order of the steps, each in a room of its own.

1. vocabulary and item table from the catalogue;
2. on the log's first part: associations, factors, rhythms and the encoder;
3. on lists from its last part, each with the knowledge of part one and the history and popularity
   of its own moment: the blend;
4. for serving: associations, factors and rhythms of the whole log; the encoder goes on through the
   last part once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from sidecar.errors import FileError
from sidecar.ranking.blend import Blend
from sidecar.ranking.encoder import Encoder, EncoderConfig
from sidecar.ranking.imputation import rules_named
from sidecar.ranking.items import ItemTable
from sidecar.ranking.ranker import Ranker, RankerConfig
from sidecar.ranking.signals import HYBRID, Knowledge, signals_named
from sidecar.ranking.statistics import ItemStatistics
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import Case, FloatArray
from sidecar.training.amounts import Amounts
from sidecar.training.associations import fit_associations, fit_factors, fit_rhythm
from sidecar.training.blend_training import train_blend
from sidecar.training.encoder_training import TableTensors, train_encoder
from sidecar.training.event_table import EventTable
from sidecar.training.evidence import measure_gains
from sidecar.training.examples import FEWEST_CANDIDATES, Example, examples_of_cases, make_examples
from sidecar.training.inputs import prices_paid, tell_of_catalogue, tell_of_events
from sidecar.training.lists import ListMaker, Lists
from sidecar.training.retrieval import Retrieval
from sidecar.training.segments import fit_segments_on_factors
from sidecar.training.walk import Walk

LEAST_SHARE = 0.05  # of the log: a list needs the whole of its visit
Progress = Callable[[str], Callable[[int, float], None]]
Attributes = Mapping[str, Mapping[str, Any]]  # user id → {column: value}


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The options of a training run; the dev windows chose the defaults."""

    seed: int = 0
    cell: str = "torch"
    width: int = 64
    hidden: int = 128
    layers: int = 2
    epochs: int | None = None
    kept: int = 500
    list_share: float = 0.5  # last share of the log that the blend's lists come from
    blocks: int = 4  # that share's parts; each is read with what was known when it began
    most_lists: int = 48_000
    lists_per_visit: int = 6  # more in a shop of few visits; see ``amounts``
    most_candidates: int = 40  # of a list that is learnt from
    foreign_share: float = 0.1  # lists with another user's history
    empty_share: float = 0.15  # lists of a step that are read as if by a stranger
    blend_epochs: int = 12  # half to twice as many in a shop of few shoppers; see ``amounts``
    reads_per_shopper: int = 480  # what few shoppers do is soon known by heart
    signals: str = HYBRID  # those switched on, comma-separated
    imputation: str = ""  # COLUMN=RULE, comma-separated, in place of the default rules
    evidence_share: float = 0.15  # latest lists, on which the personal gain must show; more if few
    device: str = "cpu"
    # The products of a step are small: a second thread gains little on a quiet machine, and on a
    # busy one each waits for the other at every product, which took ten times as long.
    threads: int = 1


def train_ranker(rows: Sequence[Mapping[str, Any]], events: EventTable, config: TrainConfig,
                 progress: Progress, cases: Sequence[Case] = (),
                 attributes: Attributes | None = None) -> tuple[Ranker, dict[str, Any]]:
    """Train on every event of the log.

    Args:
        rows: the catalogue.
        events: the log, with rows of that catalogue.
        config: sizes, seed, device.
        progress: makes a progress callback for a named step.
        cases: lists made elsewhere, in the log's time; they join those made of the log.
        attributes: what is known of users besides events; it places those without history.

    Returns:
        the ranker, and the evidence of its worth: the gain over the same model without its
        personal part, and that one's over the engine's order, on the latest lists, by a blend that
        did not see them.

    Raises:
        FileError: the log has no event that could be a target, or no list could be made.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    prices = prices_paid(rows, events)
    table = ItemTable(Vocabulary.fit(rows, rules_named(config.imputation), config.seed,
                                     {"price": prices}))
    table.upsert(rows)
    tell_of_catalogue(rows, prices, table)
    tell_of_events(events, has_cases=bool(cases))
    encoder = _new_encoder(table, config)
    lists = make_lists(events, rows, table, config, progress, encoder, cases)
    epochs = _amounts(events, config).epochs_of(len(lists))
    told = progress("blend, on all but the latest lists")
    evidence = measure_gains(
        lists, share=config.evidence_share, epochs=epochs, progress=told,
        train=lambda part, reads: _train_blend(part, config, reads, told))
    blend = _train_blend(lists, config, epochs, progress("blend"))
    learned = _learn(events, table, config, encoder, attributes)
    strong = events.target_kinds()
    walk = Walk(events, len(table), kept=config.kept, strong_kinds=strong)
    clock = float(events.ts[-1]) + 1.0
    walk.advance(clock)
    knowledge = replace(learned, statistics=walk.statistics, memory=walk.memory(clock))
    ranker_config = RankerConfig(tuple(events.kinds), strong, config.kept,
                                 is_personal=evidence["is_personal"],
                                 beats_engine=evidence["beats_engine"])
    ranker = Ranker("untagged", ranker_config, knowledge, encoder, blend, config.device)
    return ranker, evidence


def make_lists(events: EventTable, rows: Sequence[Mapping[str, Any]], table: ItemTable,
               config: TrainConfig, progress: Progress, encoder: Encoder | None = None,
               cases: Sequence[Case] = ()) -> Lists:
    """Make the blend's lists block by block, each with what was known when its block began, and
    with the history and the popularity of its own moment, which serving follows too.

    An encoder learns the log's first part thoroughly, then each block once its lists are made;
    without one, interest and segments stay silent.

    Raises:
        FileError: no event could be a target, or no list could be made.
    """
    strong = events.target_kinds()
    if not strong:
        raise FileError("events hold no purchase, click or other positive event on a known item")
    starts = _block_starts(events, config)
    amounts = _amounts(events, config)
    examples = make_examples(events, rows, Retrieval(rows), since=float(events.ts[starts[0]]),
                             most=amounts.lists, per_visit=amounts.per_visit, seed=config.seed)
    examples = sorted([*examples, *examples_of_cases(cases, events, table,
                                                     float(events.ts[starts[0]]))],
                      key=lambda e: e.ts)
    if not examples:
        raise FileError(f"no list could be made of the events: no query finds {FEWEST_CANDIDATES} "
                        "items or more of which the shopper took one, and not all")
    users = _whose_history(examples, len(events.users), config)
    walk = Walk(events, len(table), kept=config.kept, strong_kinds=strong)
    maker = ListMaker(events, examples, users, walk, dtype=np.float16,
                      most=config.most_candidates, seed=config.seed)
    final = _final_counts(events, len(table))
    if encoder:
        train_encoder(encoder, events.slice(0, starts[0]) if starts[0] else events, table,
                      seed=config.seed, epochs=config.epochs, progress=progress("encoder"))
    for k, start in enumerate(starts):
        stop = starts[k + 1] if k + 1 < len(starts) else len(events)
        learned = _learn(events.slice(0, start) if start else events, table, config, encoder)
        walk.remember_until(float(events.ts[start]))
        until = float(events.ts[stop]) if stop < len(events) else np.inf
        maker.fill(replace(learned, final_counts=final), encoder, until,
                   progress(f"lists, block {k + 1} of {len(starts)}"))
        if encoder:
            train_encoder(encoder, events.slice(start, stop), table, seed=config.seed + k,
                          epochs=1, progress=progress(f"encoder, block {k + 1} of {len(starts)}"))
    return maker.lists


def _block_starts(events: EventTable, config: TrainConfig) -> list[int]:
    """Return the first event of each block, at instants of their own."""
    share = np.linspace(1 - max(config.list_share, LEAST_SHARE), 1, config.blocks, endpoint=False)
    first = np.minimum((share * len(events)).astype(int), len(events) - 1)
    at = np.searchsorted(events.ts, events.ts[first], side="left")
    return list(np.unique(at).tolist())


def _amounts(events: EventTable, config: TrainConfig) -> Amounts:
    """Return how much the blend learns from that part of a log which lists are made of."""
    is_target = events.is_target()
    is_target[:_block_starts(events, config)[0]] = False
    return Amounts.of(len(np.unique(events.user[is_target])),
                      len(np.unique(events.visit[is_target])), most_lists=config.most_lists,
                      per_visit=config.lists_per_visit, epochs=config.blend_epochs,
                      reads_per_shopper=config.reads_per_shopper)


def _train_blend(lists: Lists, config: TrainConfig, epochs: int,
                 progress: Callable[[int, float], None]) -> Blend:
    torch.manual_seed(config.seed)
    blend = Blend(signals=signals_named(config.signals)).to(config.device)
    train_blend(blend, lists, seed=config.seed, epochs=epochs, empty_share=config.empty_share,
                progress=progress)
    return blend


def _final_counts(events: EventTable, items: int) -> FloatArray:
    """Return (n) strong events of the whole log; see ``Knowledge``."""
    return np.bincount(events.item[events.is_target()], minlength=items).astype(np.float32)


def _whose_history(examples: Sequence[Example], users: int,
                   config: TrainConfig) -> npt.NDArray[np.int64]:
    """Return each list's user: mostly its own, sometimes another."""
    rng = np.random.default_rng(config.seed)
    own = np.array([e.user for e in examples], np.int64)
    draw = rng.random(len(own))
    foreign = draw < config.foreign_share
    own[foreign] = rng.integers(0, users, foreign.sum())
    return own


def _new_encoder(table: ItemTable, config: TrainConfig) -> Encoder:
    known = table.vocabulary
    return Encoder(EncoderConfig(
        items=len(table), brands=len(known.brands), categories=len(known.categories),
        width=config.width, hidden=config.hidden, layers=config.layers, cell=config.cell,
    )).to(config.device)


def _learn(events: EventTable, table: ItemTable, config: TrainConfig, encoder: Encoder | None,
           attributes: Attributes | None = None) -> Knowledge:
    """Work out what a log tells besides the encoder's weights, and encode every item. Statistics
    stay empty: those of a moment come from a ``Walk``."""
    if encoder:
        table.vectors = _encode_all(encoder, table, config.device)
    factors = fit_factors(events, len(table), config.seed)
    return Knowledge(
        table, ItemStatistics(len(table)),
        associations=fit_associations(events, len(table)),
        factors=factors,
        segments=fit_segments_on_factors(events, factors, seed=config.seed,
                                         attributes=attributes).segments,
        rhythm=fit_rhythm(events, table))


def _encode_all(encoder: Encoder, table: ItemTable, device: str) -> FloatArray:
    tensors = TableTensors(table, torch.device(device))
    with torch.inference_mode():
        vectors: FloatArray = tensors.vectors(encoder.eval(), tensors.row).cpu().numpy()
    return vectors
