"""The encoder's cells against numbers worked out by hand and plain numpy transcripts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sidecar.ranking.encoder import CELLS, ArticleCell, ChoCell, Encoder, EncoderConfig, ItemTower
from sidecar.ranking.vocabulary import TEXT_WIDTH


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def parameters(module):
    return {name: value.detach().numpy().astype(np.float64)
            for name, value in module.named_parameters()}


def cho_step(p, x, h, prefix=""):
    both = np.concatenate([h, x])
    z = sigmoid(p[prefix + "update.weight"] @ both + p[prefix + "update.bias"])
    r = sigmoid(p[prefix + "reset.weight"] @ both + p[prefix + "reset.bias"])
    candidate = np.tanh(p[prefix + "candidate.weight"] @ np.concatenate([r * h, x])
                        + p[prefix + "candidate.bias"])
    return (1 - z) * h + z * candidate


def article_step(p, x, h, prefix=""):
    r = sigmoid(p[prefix + "reset.weight"] @ np.concatenate([h, x]) + p[prefix + "reset.bias"])
    candidate = np.tanh(p[prefix + "candidate.weight"] @ np.concatenate([r * h, x])
                        + p[prefix + "candidate.bias"])
    write = sigmoid(p[prefix + "write.weight"] @ np.concatenate([h, candidate])
                    + p[prefix + "write.bias"])
    return (1 - write) * h + write * candidate


def torch_step(p, x, h, layer):
    """torch.nn.GRU's documented form: the reset gate after the matrix product."""
    from_x = p[f"weight_ih_l{layer}"] @ x + p[f"bias_ih_l{layer}"]
    from_h = p[f"weight_hh_l{layer}"] @ h + p[f"bias_hh_l{layer}"]
    r_x, z_x, n_x = np.split(from_x, 3)
    r_h, z_h, n_h = np.split(from_h, 3)
    r, z = sigmoid(r_x + r_h), sigmoid(z_x + z_h)
    return (1 - z) * np.tanh(n_x + r * n_h) + z * h


STEPS = {"cho": lambda p, x, h, layer: cho_step(p, x, h, f"steps.{layer}."),
         "article": lambda p, x, h, layer: article_step(p, x, h, f"steps.{layer}."),
         "torch": torch_step}


def filled(cell, **values):
    with torch.no_grad():
        for name, value in cell.named_parameters():
            value.fill_(values.get(name, 0.0))
    return cell


def test_article_step_by_hand():
    """W = D = 1, h = 0.5, x = 1: r = σ(0.2·0.5+0.2·1) = 0.574443, h̃ = tanh(0.4·(r·0.5+1)+0.1)
    = 0.547559, H = σ(0.3·(0.5+h̃)) = 0.577927, h' = (1−H)·0.5 + H·h̃ = 0.527486."""
    cell = filled(ArticleCell(1, 1), **{"reset.weight": 0.2, "candidate.weight": 0.4,
                                        "candidate.bias": 0.1, "write.weight": 0.3})
    stepped = cell(torch.tensor([[1.0]]), torch.tensor([[0.5]])).item()
    assert stepped == pytest.approx(0.527486, abs=1e-6)


def test_cho_step_by_hand():
    """With z = σ(0) = ½, r = σ(0) = ½: h' = ½·0.5 + ½·tanh(½·0.5 + 1)."""
    cell = filled(ChoCell(1, 1), **{"candidate.weight": 1.0})
    stepped = cell(torch.tensor([[1.0]]), torch.tensor([[0.5]])).item()
    assert stepped == pytest.approx(0.25 + 0.5 * math.tanh(1.25), abs=1e-6)


def test_article_cell_writes_all_or_nothing_at_the_ends_of_its_gate():
    cell = filled(ArticleCell(2, 3), **{"candidate.weight": 0.7})
    x, h = torch.tensor([[1.0, -0.2]]), torch.tensor([[0.1, 0.9, -0.4]])
    with torch.no_grad():
        cell.write.bias.fill_(-100.0)
        torch.testing.assert_close(cell(x, h), h)
        cell.write.bias.fill_(100.0)
        joined = 0.7 * (0.5 * h.sum() + x.sum())
        torch.testing.assert_close(cell(x, h), torch.tanh(joined).expand(1, 3))


@pytest.mark.parametrize("name", CELLS)
def test_cell_agrees_with_numpy_transcript(name):
    """Two layers, seven steps, from a given hidden state."""
    torch.manual_seed(1)
    config = EncoderConfig(items=3, brands=1, categories=1, width=4, hidden=5, layers=2, cell=name)
    encoder = Encoder(config).eval()
    p = parameters(encoder.cells)
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(7, 4))
    hidden = rng.normal(size=(2, 5)) * 0.3
    with torch.no_grad():
        states, last = encoder(torch.tensor(inputs, dtype=torch.float32)[None],
                               torch.tensor(hidden, dtype=torch.float32)[:, None])
    expected = []
    for x in inputs:
        hidden[0] = STEPS[name](p, x, hidden[0], 0)
        hidden[1] = STEPS[name](p, hidden[0], hidden[1], 1)
        expected.append(hidden[1].copy())
    np.testing.assert_allclose(states[0].numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(last[:, 0].numpy(), hidden, atol=1e-5)


@pytest.mark.parametrize("name", CELLS)
def test_users_of_a_batch_do_not_touch_each_other(name):
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(3, 1, 1, width=4, hidden=5, cell=name)).eval()
    inputs = torch.randn(3, 6, 4)
    with torch.no_grad():
        together, _ = encoder(inputs)
        inputs[0] = 99.0
        other, _ = encoder(inputs)
    torch.testing.assert_close(together[1:], other[1:])


@pytest.mark.parametrize("name", ["cho", "article"])
def test_no_events_leave_the_hidden_state(name):
    encoder = Encoder(EncoderConfig(3, 1, 1, width=4, hidden=5, cell=name)).eval()
    hidden = torch.randn(2, 1, 5)
    states, last = encoder(torch.zeros(1, 0, 4), hidden)
    assert states.shape == (1, 0, 5)
    torch.testing.assert_close(last, hidden)


def test_unknown_cell_is_refused():
    with pytest.raises(ValueError, match="cell is 'lstm', must be one of torch, cho, article"):
        Encoder(EncoderConfig(3, 1, 1, cell="lstm"))


def test_articles_worked_example_is_its_sum_not_its_printed_result():
    """σ(0.2·0.1 + 0.3·0.2 + 0.5·0.7 + 0.1) = σ(0.53) = 0.629; the article prints 0.932."""
    vector, state = torch.tensor([0.2, 0.3, 0.5]), torch.tensor([0.1, 0.2, 0.7])
    logit = vector @ state + 0.1
    assert logit.item() == pytest.approx(0.53)
    assert torch.sigmoid(logit).item() == pytest.approx(0.629, abs=5e-4)


def tower_inputs(count):
    return (torch.arange(count), torch.ones(count, dtype=torch.long),
            torch.ones(count, 3, dtype=torch.long), torch.zeros(count, TEXT_WIDTH),
            torch.zeros(count, 8))


def test_ids_drop_out_in_training_only():
    torch.manual_seed(0)
    tower = ItemTower(EncoderConfig(200, 1, 1, width=4, id_dropout=0.5))
    rows, *content = tower_inputs(200)
    bare = tower(torch.full((200,), -1), *content)  # no id: content only
    with torch.no_grad():
        dropped = (tower(rows, *content) == bare).all(dim=1).float().mean()
        assert 0.3 < dropped < 0.7
        tower.eval()
        assert not (tower(rows, *content) == bare).all(dim=1).any()
        torch.testing.assert_close(tower(rows, *content), tower(rows, *content))


def test_item_beyond_the_trained_ids_is_its_content():
    tower = ItemTower(EncoderConfig(2, 1, 1, width=4)).eval()
    _, *content = tower_inputs(1)
    torch.testing.assert_close(tower(torch.tensor([2]), *content),
                               tower(torch.tensor([-1]), *content))


def test_unknown_numbers_stand_at_the_mean():
    tower = ItemTower(EncoderConfig(2, 1, 1, width=4)).eval()
    numbers = torch.tensor([[1.0] * 8, [3.0] * 8, [float("nan")] * 8])
    tower.fit_scale(numbers)
    row, brand, categories, text, _ = tower_inputs(1)
    mean = torch.expm1(tower.number_mean)[None]
    torch.testing.assert_close(tower(row, brand, categories, text, numbers[2:]),
                               tower(row, brand, categories, text, mean))
