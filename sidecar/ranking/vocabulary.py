"""Which words, brands and categories does a model know, and what do they stand for?

Fitted on the training catalogue, saved with the model as plain lists and arrays. Code 0 always
means "none or unknown", so a new brand is as good as none until the next training.
"""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from sys import intern
from typing import Any

import numpy as np
from scipy import sparse

from sidecar.ranking.embeddings import EMBEDDING_WIDTH, Embeddings
from sidecar.ranking.imputation import DEFAULT_RULES, Imputation
from sidecar.ranking.ratings import mean_rating, smoothed
from sidecar.ranking.truncated_svd import truncated_svd
from sidecar.records import FloatArray

# Hiragana and the blocks of CJK ideographs, which are written without spaces: a character is a
# word, as it is to OpenSearch's standard tokenizer.
_UNSPACED = "\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
# What stands inside words and is no letter to a regular expression: vowel signs, accents, points,
# and the joiners of Persian and Indian scripts. Not what picks an emoji's look (FE00 to FE0F).
_MARKS = "\u200c\u200d" + "".join(
    chr(code) for code in range(0x300, 0x1F000)
    if unicodedata.category(chr(code)) in ("Mn", "Mc") and not 0xFE00 <= code <= 0xFE0F)
WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:[{_MARKS}]+[^\W{_UNSPACED}]*)*")
ASCII_WORD = re.compile(r"\w+", re.ASCII)  # the same words, six times as fast
FIRST_DENSE = "\u2e80"  # from here on a character is a syllable or a word: kana, Han, Hangul
MAX_WORDS = 60_000
TEXT_WIDTH = 48


def words_of(text: str) -> list[str]:
    """Return the words of a text, case folded, with a plural's s taken off; of Chinese and
    Japanese, the characters. An accent is a part of its letter, however the two were written."""
    folded = text.casefold()
    if folded.isascii():
        words = ASCII_WORD.findall(folded)
    else:  # İ folds to an i with one more dot
        words = WORD.findall(unicodedata.normalize("NFC", folded.replace("i\u0307", "i")))
    return [w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w
            for w in words]


def item_words(row: Mapping[str, Any]) -> list[str]:
    """Return the words that describe a catalogue row: title, brand and categories.

    A word is one object however many rows have it: a million rows' words take 0.3 GB, not 0.9.
    """
    parts = [str(row.get("title") or ""), str(row.get("brand") or ""), *categories_of(row)]
    return [intern(word) for word in words_of(" ".join(parts))]


def categories_of(row: Mapping[str, Any]) -> Sequence[str]:
    """Return a row's categories; an index's document may hold null, or one name without a list."""
    names = row.get("categories") or ()
    return (names,) if isinstance(names, str) else names


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The known words (V), brands and categories, each with codes from 1.

    ``idf`` (V+1), ``word_vectors`` (V+1, TEXT_WIDTH; row 0 is zero) come from a truncated SVD of
    the TF-IDF matrix of the catalogue. ``category_counts`` tells narrow categories from wide ones.
    ``embeddings`` reduces vectors that were made elsewhere; where there are any, words leave them
    the last ``EMBEDDING_WIDTH`` of their numbers. ``rating_mean`` draws ratings of few reviews to
    it (``ratings``); None: ratings are taken as they are.
    """

    words: dict[str, int]
    brands: dict[str, int]
    categories: dict[str, int]
    category_counts: list[int]
    idf: FloatArray
    word_vectors: FloatArray
    imputations: dict[str, Imputation]
    embeddings: Embeddings = field(default_factory=Embeddings.none)
    rating_mean: float | None = None

    @classmethod
    def fit(cls, rows: Sequence[Mapping[str, Any]], rules: Mapping[str, str] | None = None,
            seed: int = 0, observed: Mapping[str, Mapping[str, float]] | None = None) -> Vocabulary:
        """Fit on catalogue rows; ``rules`` overrides imputation rules by column, ``observed``: by
        column, what the rule ``interpolate`` may use (see ``Imputation``)."""
        documents = [item_words(row) for row in rows]
        frequency = Counter(word for doc in documents for word in dict.fromkeys(doc))
        words = _codes(word for word, _ in frequency.most_common(MAX_WORDS))
        brands = _codes(row["brand"] for row in rows if row.get("brand"))
        counts = Counter(c for row in rows for c in dict.fromkeys(categories_of(row)))
        categories = _codes(name for name, _ in counts.most_common())
        idf = np.zeros(len(words) + 1, np.float32)
        for word, code in words.items():
            idf[code] = np.log((1 + len(rows)) / (1 + frequency[word])) + 1e-3
        reduction = Embeddings.fit(rows, seed)
        vectors = _word_vectors(documents, words, idf, seed,
                                TEXT_WIDTH - (EMBEDDING_WIDTH if reduction.widths else 0))
        chosen = {**DEFAULT_RULES, **(rules or {})}
        columns = {name: Imputation.fit(rule, column_values(rows, name),
                                        (observed or {}).get(name))
                   for name, rule in chosen.items()}
        mean = mean_rating(column_values(rows, "rating"), column_values(rows, "review_count"))
        return cls(words, brands, categories, [0, *(counts[c] for c in categories)],
                   idf, vectors, columns, reduction, mean)

    def word_codes(self, words: Iterable[str]) -> list[int]:
        """Return the codes of the known words among ``words``, each once, in order."""
        return list(dict.fromkeys(c for w in words if (c := self.words.get(w))))

    def narrow_first(self, categories: Iterable[str]) -> list[int]:
        """Return the codes of the known categories, the rarest (narrowest) first."""
        codes = {code for name in categories if (code := self.categories.get(name))}
        return sorted(codes, key=lambda code: (self.category_counts[code], code))

    def text_vector(self, codes: Sequence[int]) -> FloatArray:
        """Return the unit vector (TEXT_WIDTH) of some words; zero if none is known."""
        vector: FloatArray = self.word_vectors[list(codes)].sum(axis=0)
        norm = float(np.linalg.norm(vector))
        return vector / norm if norm > 0 else vector

    def content_vector(self, codes: Sequence[int], row: Mapping[str, Any]) -> FloatArray:
        """Return the unit vector (TEXT_WIDTH) of a catalogue row: of its words, whose codes are
        given, and in equal parts of its vectors, if it has any; zero if neither is known."""
        vector = self.text_vector(codes)
        if not self.embeddings.widths:
            return vector
        vector[-EMBEDDING_WIDTH:] = self.embeddings.reduced(row)
        norm = float(np.linalg.norm(vector))
        return vector / norm if norm > 0 else vector

    def numbers(self, rows: Sequence[Mapping[str, Any]], item_ids: Sequence[str]) -> FloatArray:
        """Return the numeric columns (m, one for each of DEFAULT_RULES) of catalogue rows. Each
        rule fills what is absent (an absent count of reviews is none by default), and a rating
        counts as far as its reviews bear it out."""
        values = {name: column_values(rows, name) for name in DEFAULT_RULES}
        if self.rating_mean is not None:
            counts = self.imputations["review_count"].fill(values["review_count"], item_ids)
            values["rating"] = smoothed(values["rating"], counts, self.rating_mean)
        return np.stack([self.imputations[name].fill(column, item_ids)
                         for name, column in values.items()], axis=1)


def column_values(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray[Any, Any]:
    """Return a numeric column of catalogue rows (m) with NaN where it is absent."""
    return np.array([_number(row.get(name)) for row in rows], np.float64)


def _number(value: Any) -> float:
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str):  # created_at, as ISO 8601
        try:
            moment = datetime.fromisoformat(value)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except ValueError:
            return float("nan")
    return float("nan")


def _codes(names: Iterable[str]) -> dict[str, int]:
    return {name: code for code, name in enumerate(dict.fromkeys(names), start=1)}


def _word_vectors(documents: Sequence[Sequence[str]], words: Mapping[str, int],
                  idf: FloatArray, seed: int, width: int) -> FloatArray:
    """Return (V+1, TEXT_WIDTH): each word's share of an item's text vector, idf included, in its
    first ``width`` numbers."""
    vectors = np.zeros((len(words) + 1, TEXT_WIDTH), np.float32)
    columns, offsets = array("i"), array("q", [0])  # a set of pairs took 2 GB at a million items
    for doc in documents:
        columns.extend(sorted({code for w in doc if (code := words.get(w))}))
        offsets.append(len(columns))
    if not columns:
        return vectors
    index = np.array(columns, np.int32)
    matrix = sparse.csr_matrix((idf[index], index, np.array(offsets)),
                               shape=(len(documents), len(words) + 1), dtype=np.float32)
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
    matrix = sparse.diags(1 / np.maximum(norms, 1e-6)) @ matrix
    rank = min(width, min(matrix.shape) - 1)
    if rank < 1:
        return vectors
    _, right = truncated_svd(matrix, rank, seed)
    vectors[:, :rank] = right.T * idf[:, None]
    return vectors
