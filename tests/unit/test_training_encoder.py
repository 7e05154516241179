"""The known mistakes of GRU4Rec's copies, each tested against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sidecar.ranking.encoder import Encoder, EncoderConfig
from sidecar.ranking.items import ItemTable
from sidecar.ranking.vocabulary import Vocabulary
from sidecar.records import Event
from sidecar.training import encoder_training as training
from sidecar.training import sequences as walking
from sidecar.training.event_table import EventTable
from sidecar.training.sequences import Sequences, chunks_of
from tests.shops import make_events, make_rows

ROWS = make_rows(items=30)
EVENTS = make_events(ROWS, users=6, visits=8)


@pytest.fixture
def table():
    made = ItemTable(Vocabulary.fit(ROWS))
    made.upsert(ROWS)
    return made


def log_of(events, table):
    return EventTable.from_events(events, table.row_of)


def encoder_of(table, **changes):
    torch.manual_seed(0)
    known = table.vocabulary
    shape = {"width": 6, "hidden": 8, "layers": 1} | changes
    return Encoder(EncoderConfig(len(table), len(known.brands), len(known.categories), **shape))


def states_before(encoder, log, table, user, instant):
    return training.states_at(encoder, log, table, np.array([log.users.index(user)]),
                              np.array([instant]))[0]


def test_states_do_not_leak_between_users(table):
    """A user's state is the same alone and beside others, in whatever batch and chunk."""
    encoder = encoder_of(table)
    together = log_of(EVENTS, table)
    for user in ("u0", "u5"):
        alone = log_of([event for event in EVENTS if event.user_id == user], table)
        # kinds get their codes in order of first appearance, which is a view either way
        np.testing.assert_allclose(states_before(encoder, together, table, user, 1e10),
                                   states_before(encoder, alone, table, user, 1e10), atol=1e-5)


def test_states_are_carried_over_chunks_and_stop_before_the_instant(table, monkeypatch):
    encoder, log = encoder_of(table), log_of(EVENTS, table)
    instant = [event.ts for event in EVENTS if event.user_id == "u2"][20]
    whole = states_before(encoder, log, table, "u2", instant)
    cut = log_of([event for event in EVENTS if event.ts < instant], table)
    np.testing.assert_allclose(states_before(encoder, cut, table, "u2", 1e10), whole, atol=1e-6)
    monkeypatch.setattr(walking, "CHUNK_STEPS", 7)
    np.testing.assert_allclose(states_before(encoder, log, table, "u2", instant), whole, atol=1e-6)


def test_short_histories_are_walked_without_padding_and_end_in_the_same_states(table, monkeypatch):
    log = log_of([e for k, e in enumerate(EVENTS) if k % 5 == 0][:30], table)
    encoder = encoder_of(table).eval()
    users, instants = np.arange(len(log.users)), np.full(len(log.users), EVENTS[-1].ts + 1.0)
    sequences = Sequences.of(log, table)
    longest = int(np.diff(sequences.offsets).max())
    widths = []
    for least in (10**6, 0):
        monkeypatch.setattr(walking, "LEAST_LONG", least)
        widths.append([chunk.at.shape[1] for chunk in chunks_of(users, sequences, None)])
        found = training.states_at(encoder, log, table, users, instants)
        if least:
            trimmed = found
    assert widths == [[longest], [walking.CHUNK_STEPS]]
    np.testing.assert_allclose(trimmed, found, atol=1e-6)


def test_crawler_walks_on_alone_once_the_others_have_ended(table):
    """Else each of its thousand steps would be taken for 64 shoppers, most of whom have ended."""
    crawled = [Event("bot", "view", f"i{k % 30}", EVENTS[0].ts + k) for k in range(700)]
    together, alone = log_of([*EVENTS, *crawled], table), log_of(crawled, table)
    encoder = encoder_of(table)
    chunks = list(chunks_of(np.arange(len(together.users)), Sequences.of(together, table), None))
    assert [len(chunk.at) for chunk in chunks] == [7, *[1] * 10]
    for user, log in (("bot", alone), ("u3", log_of(EVENTS, table))):
        np.testing.assert_allclose(states_before(encoder, together, table, user, 1e10),
                                   states_before(encoder, log, table, user, 1e10), atol=1e-5)
    instants = np.full(len(together.users), 1e10)
    found = training.states_at(encoder, together, table, np.arange(len(instants)), instants)
    for code, user in enumerate(together.users):
        np.testing.assert_allclose(found[code],
                                   states_before(encoder, together, table, user, 1e10), atol=1e-5)


def test_crawler_teaches_its_latest_events_alone(table, monkeypatch):
    monkeypatch.setattr(walking, "MOST_TAUGHT", 100)
    crawled = [Event("bot", "view", f"i{k % 30}", float(k)) for k in range(700)]
    sequences = Sequences.of(log_of(crawled, table), table)
    taught = [chunk.at for chunk in chunks_of(np.array([0]), sequences, np.random.default_rng(0))]
    assert [int(at[0, 0]) for at in taught] == [600, 664]
    assert max(int(at.max()) for at in taught) == 699
    assert len(list(chunks_of(np.array([0]), sequences, None))) == 11


def test_stranger_and_user_without_earlier_events_have_a_zero_state(table):
    encoder, log = encoder_of(table), log_of(EVENTS, table)
    found = training.states_at(encoder, log, table, np.array([-1, 0]), np.array([1e10, 0.0]))
    assert not found.any()


def test_targets_are_later_items_of_the_same_user(table):
    log = log_of(EVENTS, table)
    sequences = Sequences.of(log, table)
    users = np.arange(len(log.users))
    chunks = list(chunks_of(users, sequences, np.random.default_rng(0)))
    owner = np.repeat(users, np.diff(sequences.offsets))
    for chunk in chunks:
        for at, target in zip(chunk.at.ravel(), chunk.target.ravel(), strict=True):
            if at < 0:
                assert target == -1
                continue
            stop = sequences.offsets[owner[at] + 1]
            if at == stop - 1:
                assert target == -1
            else:
                assert target in sequences.item[at + 1:stop]


def test_gaps_start_anew_with_each_user(table):
    sequences = Sequences.of(log_of(EVENTS, table), table)
    assert not sequences.gap_s[sequences.offsets[:-1]].any()
    assert (sequences.gap_s >= 0).all()


def test_negatives_equal_to_the_target_are_masked(table, monkeypatch):
    """Where every draw is the target, nothing competes with it and the loss is zero."""
    encoder = encoder_of(table)
    log = log_of([Event("u", "purchase", "i3", float(k)) for k in range(9)], table)
    sequences, tensors = Sequences.of(log, table), training.TableTensors(
        table, torch.device("cpu"))
    sampler = training.NegativeSampler(log, len(table), seed=0)
    monkeypatch.setattr(sampler, "draw", lambda count: np.full(count, 3))
    [chunk] = chunks_of(np.array([0]), sequences, sampler.rng)
    loss, _ = training.chunk_loss(encoder, tensors, sequences, sampler, chunk, None)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_loss_is_the_log_q_corrected_softmax_over_logits(table, monkeypatch):
    """Against a numpy transcript: −log(e^(s₊−log q₊) / Σ e^(s−log q)), averaged over steps."""
    encoder, log = encoder_of(table, id_dropout=0.0), log_of(EVENTS, table)
    sequences, tensors = Sequences.of(log, table), training.TableTensors(
        table, torch.device("cpu"))
    sampler = training.NegativeSampler(log, len(table), seed=0)
    negative = np.array([0, 1, 2, 5, 5, 9])
    monkeypatch.setattr(sampler, "draw", lambda count: negative)
    chunk = next(chunks_of(np.array([0, 1]), sequences, sampler.rng))
    loss, hidden = training.chunk_loss(encoder, tensors, sequences, sampler, chunk, None)
    assert not hidden.requires_grad
    with torch.no_grad():
        states, _ = training.chunk_states(encoder, tensors, sequences, chunk.at, None)
        interest = encoder.interest(states).numpy()
        vectors = tensors.vectors(encoder, tensors.row).numpy()
    expected = np.log(sampler.expected.numpy())
    losses = []
    for z, target in zip(interest.reshape(-1, interest.shape[-1]), chunk.target.ravel(),
                         strict=True):
        if target >= 0:
            others = negative[negative != target]
            logits = np.concatenate([[z @ vectors[target] - expected[target]],
                                     vectors[others] @ z - expected[others]])
            losses.append(np.log(np.exp(logits).sum()) - logits[0])
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-4)


def test_expected_counts_are_those_of_the_draws(table):
    log = log_of(EVENTS, table)
    sampler = training.NegativeSampler(log, len(table), seed=0)
    draws = np.concatenate([sampler.draw(training.NEGATIVES) for _ in range(200)])
    counted = np.bincount(draws, minlength=len(table)) / 200
    np.testing.assert_allclose(counted, sampler.expected.numpy(), rtol=0.2)
    assert sampler.expected.sum().item() == pytest.approx(training.NEGATIVES, rel=1e-4)


def test_training_lowers_the_loss_and_ends_in_evaluation_mode(table):
    encoder, losses = encoder_of(table), []
    training.train_encoder(encoder, log_of(EVENTS, table), table, seed=0, epochs=12,
                           progress=lambda done, loss: losses.append(loss))
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    assert not encoder.training


@pytest.mark.parametrize("events", [
    [], [Event("u", "purchase", "i1", 1.0)],
    [Event(f"u{k}", "purchase", "i1", float(k)) for k in range(5)],
    [Event("u", "purchase", "gone", float(k)) for k in range(5)],
    [Event("u", "search", None, float(k), "cup") for k in range(5)]])
def test_log_without_a_target_trains_nothing(table, events):
    encoder = encoder_of(table)
    done = []
    training.train_encoder(encoder, log_of(events, table), table, seed=0, epochs=1,
                           progress=lambda share, loss: done.append(share))
    assert all(torch.isfinite(value).all() for value in encoder.parameters())
    assert not encoder.training


def test_unseen_event_word_adds_nothing_of_its_own(table):
    """Code 0 stands for words that training never met: no training, so no noise either."""
    assert not encoder_of(table).kind.weight[0].any()


def test_ids_that_are_moved_row_by_row_end_where_the_whole_table_would(table, monkeypatch):
    ends = []
    for rows in (training.DENSE_ROWS, 0):
        monkeypatch.setattr(training, "DENSE_ROWS", rows)
        encoder = encoder_of(table)
        training.train_encoder(encoder, log_of(EVENTS, table), table, seed=0, epochs=6,
                               progress=lambda done, loss: None)
        ends.append(encoder.state_dict())
    for name, whole in ends[0].items():
        torch.testing.assert_close(ends[1][name], whole, atol=2e-3, rtol=0)
    assert not encoder.tower.ident.sparse
