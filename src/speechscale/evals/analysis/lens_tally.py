"""What was read in every layer, summed up by words and by time.

Enters: `Read`s, one per layer and utterance. Leaves: a `Lens`. Needs no torch.
The one decision worth knowing: what a word's token gets while all other words sound is worked out from sums over the
table of asked tokens, so a control costs one product and needs no drawing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from speechscale.evals.analysis.lens_places import Pairs, Spoken, inside, lag_pairs, relative_pairs
from speechscale.evals.analysis.lens_records import METRICS, RANKS, SIDES, TOP, Axis, Lens, LensConfig, LensWords
from speechscale.records import UnitTable

if TYPE_CHECKING:
    from speechscale.evals.analysis.lens_reader import Read


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What the lens looks at: utterances, the text tokens that are asked for, and what was left out.

    Args:
        asked: ids of the distinct first tokens of words. counts: words that begin with each.
        words: how many words were taken, and left out for which reason.
    """

    spoken: tuple[Spoken, ...]
    asked: Int[np.ndarray, " asked"]
    counts: Int[np.ndarray, " asked"]
    words: Counter[str]


class Tally:
    """Sums up what was read, an utterance and a layer at a time."""

    def __init__(self, material: Material, layers: int, config: LensConfig, reach: int) -> None:
        self.material, self.config, self.reach = material, config, reach
        self.total = int(material.counts.sum())
        bounds = np.concatenate([[0], np.cumsum([len(spoken.words) for spoken in material.spoken])])
        self.bounds = bounds
        shape = (layers, self.total, len(METRICS))
        self.own, self.local = (np.full(shape, np.nan, np.float32) for _ in range(2))
        # What each asked token got over the times of all words.
        self.everywhere = np.zeros((layers, len(material.asked), len(METRICS)))
        self.around = np.full((layers, self.total, 2), np.nan, np.float32)
        bins = 2 * config.around + config.bins
        self.picture = np.zeros((3, layers, bins))
        self.picture_count = np.zeros(bins)
        lags, count = 2 * reach + 1, len(material.spoken)
        self.lags = {side: np.zeros((count, layers, lags), np.float32) for side in SIDES}
        self.lag_count = {side: np.zeros((count, lags), np.float32) for side in SIDES}
        self.held: dict[int, tuple[np.ndarray, Pairs, dict[str, Pairs]]] = {}

    def _places(self, at: int) -> tuple[np.ndarray, Pairs, dict[str, Pairs]]:
        """Where the words of an utterance are; kept while its layers are read."""
        if at not in self.held:
            spoken, config = self.material.spoken[at], self.config
            pairs = relative_pairs(spoken, around=config.around, bins=config.bins)
            lags = {side: lag_pairs(spoken, reach=self.reach, end=side == "end") for side in SIDES}
            self.picture_count += pairs.count(len(self.picture_count))
            for side, found in lags.items():
                self.lag_count[side][at] = found.count(2 * self.reach + 1)
            self.held[at] = (inside(spoken), pairs, lags)
        return self.held[at]

    def add(self, layer: int, at: int, read: Read) -> None:
        ranks, logprobs = read.ranks, read.logprobs
        spoken, counts = self.material.spoken[at], self.material.counts
        shares, pairs, lags = self._places(at)
        if layer == len(self.own) - 1:
            del self.held[at]
        words = slice(self.bounds[at], self.bounds[at + 1])
        others, neighbors = self.total - 1, len(spoken.words) - 1
        hits = ranks <= TOP
        time = shares.sum(axis=0)
        tables = [ranks <= k for k in (1, 5)] + [hits, np.where(ranks <= RANKS, 1 / ranks, 0.0), logprobs]
        ever = np.stack([hits[share > 0].any(axis=0) for share in shares])  # (words, asked)
        for m, table in enumerate([*tables, ever]):
            own = table[:, spoken.codes].astype(np.float64)  # (T or words, words)
            last = m == len(tables)
            mine = own.diagonal() if last else np.einsum("wt,tw->w", shares, own)
            here = own.sum(axis=0) if last else time @ own
            self.own[layer, words, m] = mine
            self.everywhere[layer, :, m] += ever.sum(axis=0) if last else time @ table
            if neighbors:
                self.local[layer, words, m] = (here - mine) / neighbors
        own = hits[:, spoken.codes].astype(np.float64)
        chance = ((hits @ counts)[:, None] - own) / others
        local = (own.sum(axis=1, keepdims=True) - own) / neighbors if neighbors else chance
        for part, values in zip(self.picture, (own, chance, local), strict=True):
            part[layer] += pairs.total(values, len(self.picture_count))
        for side, found in lags.items():
            self.lags[side][at, layer] = found.total(own - chance, 2 * self.reach + 1)
        self._around(layer, words, own, pairs)

    def _around(self, layer: int, words: slice, own: np.ndarray, pairs: Pairs) -> None:
        """Mean hits over the tokens before and behind each word."""
        first, behind = self.config.around, self.config.around + self.config.bins
        for side, there in enumerate((pairs.bin < first, pairs.bin >= behind)):
            word = pairs.word[there]
            count = np.bincount(word, minlength=own.shape[1])
            total = np.bincount(word, weights=own[pairs.token[there], word], minlength=own.shape[1])
            with np.errstate(invalid="ignore"):
                self.around[layer, words, side] = total / count

    def result(self, table: UnitTable, heard: set[int] | None) -> Lens:
        assert not self.held
        spoken, asked = self.material.spoken, self.material.asked
        lengths = [len(entry.words) for entry in spoken]
        rows = np.repeat([entry.row for entry in spoken], lengths)
        numbers = np.concatenate([entry.words for entry in spoken])
        codes = np.concatenate([entry.codes for entry in spoken])
        tokens = asked[codes]
        chance = (self.everywhere[:, codes] - self.own) / (self.total - 1)
        words = LensWords(
            utterance=np.repeat(np.arange(len(spoken)), lengths),
            id=[table.ids[row] for row in rows],
            word=numbers,
            text=[table.words[table.word_offsets[row] + number] for row, number in zip(rows, numbers, strict=True)],
            token=tokens,
            first=np.concatenate([entry.first for entry in spoken]),
            heard=None if heard is None else np.array([token in heard for token in tokens.tolist()]),
            start_frame=np.concatenate([entry.starts for entry in spoken]),
            end_frame=np.concatenate([entry.ends for entry in spoken]),
        )
        return Lens(
            config=self.config,
            frame_rate_hz=table.frame_rate_hz,
            rows=[entry.row for entry in spoken],
            words=words,
            own=self.own,
            chance=chance.astype(np.float32),
            local=self.local,
            around=self.around,
            picture=Axis(sums=self.picture, count=self.picture_count),
            lags={side: Axis(sums=self.lags[side], count=self.lag_count[side]) for side in self.lags},
            counts=dict(self.material.words),
            frequencies=np.sort(self.material.counts)[::-1] / self.total,
        )
