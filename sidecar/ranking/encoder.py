"""From what a shopper did to an interest vector: item tower, recurrent cell, projection.

Legend: B users, T steps, D width of item and interest vectors, W width of the hidden state,
L layers, v_i item vector, h_t hidden state after event t, z_t interest vector = P·h_t, b_w bias.
The interest of item i is its logit v_i · z_t + b_w. The article's weight w_i = σ(v_i · z_t + b_w)
orders items alike; the blend reads the logit, which does not saturate.

Cells: ``torch`` is ``torch.nn.GRU``; ``cho`` resets before the matrix product (Cho et al. 2014,
arXiv:1406.1078, first form); ``article`` is the cell of the article that this system implements:
h_t = (1 − H_t) ⊙ h_{t−1} + H_t ⊙ h̃_t with H_t = σ(W_o[h_{t−1}, h̃_t] + b_o), and h̃_t as Cho's.
The article also computes Z_t; nothing reads it, so it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sidecar.ranking.imputation import DEFAULT_RULES
from sidecar.ranking.kinds import meaning
from sidecar.ranking.statistics import DAY_S
from sidecar.ranking.vocabulary import TEXT_WIDTH

CELLS = ("torch", "cho", "article")
NUMBERS = len(DEFAULT_RULES)  # numeric columns of the item table
MAX_KINDS = 32  # event words told apart; code 0 stands for any other


class KindCodes(dict[str, int]):
    """Event word → code, from 1; words beyond the last code share it.

    A word that training never met has the code of the first known word that means the same
    (``Purchase``, ``transaction``), or 0.
    """

    def __init__(self, kinds: Sequence[str]) -> None:
        super().__init__((word, min(code, MAX_KINDS - 1)) for code, word in enumerate(kinds, 1))
        self._by_meaning: dict[str | None, int] = {}
        for word, code in self.items():
            self._by_meaning.setdefault(meaning(word), code)
        self._by_meaning[None] = 0

    def __missing__(self, word: str) -> int:
        return self._by_meaning.get(meaning(word), 0)


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Shapes of an encoder; ``items`` counts ids with an embedding of their own."""

    items: int
    brands: int
    categories: int
    width: int = 64  # D
    hidden: int = 128  # W
    layers: int = 2  # L
    cell: str = "torch"
    id_dropout: float = 0.2


def _embedding(count: int, width: int, *, padding_idx: int | None = None) -> nn.Embedding:
    """Return an embedding (count, width), initialised unless it is on the device ``meta``, whose
    values are still to come: there torch would import its compiler to initialise it, which takes
    3 s of a core, and memory that each worker would have for itself."""
    blank = torch.empty(count, width)
    return nn.Embedding(count, width, padding_idx, _weight=blank if blank.is_meta else None)


class ItemTower(nn.Module):
    """Item features → v_i. Content and id add up, and ids drop out in training, so that an item
    without an id embedding (a new one) is scored sensibly on its content."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.brand = _embedding(config.brands + 1, config.width, padding_idx=0)
        self.category = _embedding(config.categories + 1, config.width, padding_idx=0)
        self.text = nn.Linear(TEXT_WIDTH, config.width)
        self.numbers = nn.Linear(NUMBERS, config.width, bias=False)
        self.ident = _embedding(config.items + 1, config.width, padding_idx=0)
        self.number_mean = nn.Buffer(torch.zeros(NUMBERS))
        self.number_scale = nn.Buffer(torch.ones(NUMBERS))
        for table in (self.brand, self.category, self.ident):
            if not table.weight.is_meta:
                nn.init.normal_(table.weight, std=0.05)
            with torch.no_grad():
                table.weight[0].zero_()

    def forward(self, row: Tensor, brand: Tensor, categories: Tensor, text: Tensor,
                numbers: Tensor) -> Tensor:
        """Return v (m, D) for ``row`` (m), brand (m), categories (m, 3), text, numbers."""
        scaled = torch.nan_to_num((_squash(numbers) - self.number_mean) / self.number_scale)
        content = (self.brand(brand) + self.category(categories).sum(dim=1) + self.text(text)
                   + self.numbers(scaled.clamp(-4, 4)))  # (m, D)
        code = torch.where((row >= 0) & (row < self.config.items), row + 1, 0)
        if self.training and self.config.id_dropout:
            keep = torch.rand(len(row), device=row.device) >= self.config.id_dropout
            code = code * keep
        vectors: Tensor = content + self.ident(code)  # (m, D)
        return vectors

    @torch.no_grad()
    def fit_scale(self, numbers: Tensor) -> None:
        """Standardise the numeric columns by a catalogue's (n, NUMBERS)."""
        squashed = _squash(numbers)
        known = torch.isfinite(squashed)
        count = known.sum(dim=0).clamp(min=1)
        mean = torch.nan_to_num(squashed).sum(dim=0) / count
        spread = torch.where(known, squashed - mean, 0).square().sum(dim=0) / count
        self.number_mean.copy_(mean)
        self.number_scale.copy_(spread.sqrt().clamp(min=1e-3))


def _squash(numbers: Tensor) -> Tensor:
    return torch.sign(numbers) * torch.log1p(numbers.abs())


class Encoder(nn.Module):
    """Events → hidden states → interest vectors."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        if config.cell not in CELLS:
            raise ValueError(f"cell is {config.cell!r}, must be one of {', '.join(CELLS)}")
        self.config = config
        self.tower = ItemTower(config)
        self.kind = _embedding(MAX_KINDS, config.width)
        with torch.no_grad():
            self.kind.weight[0].zero_()  # words that training never met say nothing
        self.gap = nn.Linear(2, config.width)
        self.query = nn.Linear(TEXT_WIDTH, config.width, bias=False)
        self.cells: nn.Module = (
            nn.GRU(config.width, config.hidden, config.layers, batch_first=True)
            if config.cell == "torch" else
            StepCells(config.width, config.hidden, config.layers, config.cell))
        self.project = nn.Linear(config.hidden, config.width)
        self.bias = nn.Parameter(torch.zeros(()))

    def events(self, vectors: Tensor, kinds: Tensor, gaps_s: Tensor, query_text: Tensor) -> Tensor:
        """Return the cell's inputs x (B, T, D).

        ``vectors`` (B, T, D) item vectors, zero for a search; ``kinds`` (B, T) codes; ``gaps_s``
        (B, T) seconds since the event before, 0 for the first; ``query_text`` (B, T, TEXT_WIDTH).
        """
        days = gaps_s.clamp(min=0) / DAY_S
        gap = torch.stack([torch.log1p(days), (days > 0.25).float()], dim=-1)  # (B, T, 2)
        inputs: Tensor = vectors + self.kind(kinds) + self.gap(gap) + self.query(query_text)
        return inputs

    def forward(self, inputs: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return top states (B, T, W) and the last hidden state (L, B, W)."""
        states, last = self.cells(inputs, hidden)
        return states, last

    def interest(self, states: Tensor) -> Tensor:
        """Return z (…, D) for top states (…, W)."""
        projected: Tensor = self.project(states)
        return projected

    @property
    def hidden_shape(self) -> tuple[int, int]:
        """(L, W), the shape of one user's hidden state."""
        return self.config.layers, self.config.hidden


class StepCells(nn.Module):
    """Layers of a cell that torch has no kernel for, stepped in Python; call as ``nn.GRU``."""

    def __init__(self, inputs: int, hidden: int, layers: int, cell: str) -> None:
        super().__init__()
        kind = {"cho": ChoCell, "article": ArticleCell}[cell]
        self.hidden = hidden
        self.steps = nn.ModuleList(
            kind(inputs if k == 0 else hidden, hidden) for k in range(layers))

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, T, D) → (B, T, W), (L, B, W)."""
        if hidden is None:
            hidden = x.new_zeros(len(self.steps), len(x), self.hidden)
        last = []
        for cell, h in zip(self.steps, hidden, strict=True):
            outputs = []
            for t in range(x.shape[1]):
                h = cell(x[:, t], h)  # (B, W)
                outputs.append(h)
            x = torch.stack(outputs, dim=1) if outputs else x.new_zeros(len(x), 0, self.hidden)
            last.append(h)
        return x, torch.stack(last)


class ChoCell(nn.Module):
    """z = σ(W_z[h, x]), r = σ(W_r[h, x]), h̃ = tanh(W[r ⊙ h, x]), h' = (1−z) ⊙ h + z ⊙ h̃."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.update = nn.Linear(hidden + inputs, hidden)
        self.reset = nn.Linear(hidden + inputs, hidden)
        self.candidate = nn.Linear(hidden + inputs, hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x (B, D), h (B, W) → (B, W)."""
        joined = torch.cat([h, x], dim=-1)
        z = torch.sigmoid(self.update(joined))
        r = torch.sigmoid(self.reset(joined))
        candidate = torch.tanh(self.candidate(torch.cat([r * h, x], dim=-1)))
        return (1 - z) * h + z * candidate


class ArticleCell(nn.Module):
    """r = σ(W_r[h, x]), h̃ = tanh(W[r ⊙ h, x]), H = σ(W_o[h, h̃]), h' = (1−H) ⊙ h + H ⊙ h̃."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.reset = nn.Linear(hidden + inputs, hidden)
        self.candidate = nn.Linear(hidden + inputs, hidden)
        self.write = nn.Linear(2 * hidden, hidden)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """x (B, D), h (B, W) → (B, W)."""
        r = torch.sigmoid(self.reset(torch.cat([h, x], dim=-1)))
        candidate = torch.tanh(self.candidate(torch.cat([r * h, x], dim=-1)))
        write = torch.sigmoid(self.write(torch.cat([h, candidate], dim=-1)))
        return (1 - write) * h + write * candidate
