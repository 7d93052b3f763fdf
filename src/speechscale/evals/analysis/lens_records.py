"""What a logit lens looked at and saw, and its table on disk.

Enters: nothing. Leaves: `LensConfig`, `Lens`, and lens.parquet, one row per word and layer. Needs no torch.
The one decision worth knowing: a word keeps its own numbers in every layer, beside what its token got while other
words sounded, so that any other summary can be made of the table later.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float, Int

from speechscale.files import complete_file

TOP = 10
RANKS = 100
"""Ranks beyond this one are not told apart; their reciprocal counts 0."""
METRICS = ("hit1", "hit5", "hit10", "reciprocal_rank", "logprob", "ever10")
"""Per word, over its time: its token among the top 1, 5, 10; 1 / rank; nats; whether ever among the top 10."""
MAIN = "hit10"
SIDES = ("start", "end")


@dataclass(frozen=True, slots=True, kw_only=True)
class LensConfig:
    """How a lens looks.

    Args:
        opening: "plain", `<eos>` and units, as speech documents are in training; "speech" has the marker `<speech>`.
        around: speech tokens before and behind a word. bins: equal parts of its time.
        reach_s: seconds before and after a word's start and end that the lag is looked for in.
        batch_tokens: upper bound of utterances x padded length of a forward pass; changes no result.
    """

    opening: Literal["plain", "speech"] = "plain"
    around: int = 8
    bins: int = 10
    reach_s: float = 1.0
    batch_tokens: int = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class LensWords:
    """The words that were asked for, in order of utterances.

    Args:
        utterance: which of the lens' utterances. word: number in the utterance. token: id of its first text token.
        first: no earlier word of the utterance begins with this token.
        heard: the token begins a word of the training speech; None where that is not known.
    """

    utterance: Int[np.ndarray, " words"]
    id: list[str]
    word: Int[np.ndarray, " words"]
    text: list[str]
    token: Int[np.ndarray, " words"]
    first: Bool[np.ndarray, " words"]
    heard: Bool[np.ndarray, " words"] | None
    start_frame: Int[np.ndarray, " words"]
    end_frame: Int[np.ndarray, " words"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Sums of hits along an axis and how many there were; see `Lens`."""

    sums: Float[np.ndarray, "... bins"]
    count: Float[np.ndarray, "... bins"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """What was read in each layer while each word was heard; layer 0 is the embedding.

    Args:
        rows: of the unit table, one per utterance.
        own: METRICS of each word's own token while it sounds. chance: of the same token, mean over the times of all
            other words. local: over those of the other words of its utterance; NaN where it has none.
        around: hits in the top 10, mean over the tokens before and behind each word; NaN where there are none.
        picture: sums (3, layers, bins) of own, chance and local hits in the top 10 along `around | word | around`;
            chance and local here of the tokens of the other words at this time.
        lags: sums (utterances, layers, lags) of own minus chance by frames from the word's "start" or "end".
        counts: words taken and left out, by reason. frequencies: shares of first tokens, most frequent first.
    """

    config: LensConfig
    frame_rate_hz: float
    rows: list[int]
    words: LensWords
    own: Float[np.ndarray, "layers words metrics"]
    chance: Float[np.ndarray, "layers words metrics"]
    local: Float[np.ndarray, "layers words metrics"]
    around: Float[np.ndarray, "layers words 2"]
    picture: Axis
    lags: dict[str, Axis]
    counts: dict[str, int]
    frequencies: Float[np.ndarray, " tokens"]


def write_words(path: Path, lens: Lens) -> int:
    """Write lens.parquet, one row per word and layer, complete or not at all; return its rows."""
    words, layers = lens.words, len(lens.own)
    total = len(words.text)
    fixed: dict[str, Any] = {
        "id": pa.array(words.id),
        "word": pa.array(words.word, pa.int32()),
        "text": pa.array(words.text),
        "token": pa.array(words.token, pa.int32()),
        "first_mention": pa.array(words.first),
        "heard": pa.array([None] * total if words.heard is None else words.heard, pa.bool_()),
        "start_frame": pa.array(words.start_frame, pa.int32()),
        "end_frame": pa.array(words.end_frame, pa.int32()),
    }
    names = [f"{kind}{name}" for kind in ("", "chance_", "local_") for name in METRICS]
    fields = [pa.field(name, column.type) for name, column in fixed.items()]
    fields += [pa.field("layer", pa.int16())]
    fields += [pa.field(name, pa.float32()) for name in [*names, "before10", "behind10"]]
    schema = pa.schema(fields, metadata={b"speechscale.kind": b"lens-1"})
    with complete_file(Path(path)) as draft, pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for layer in range(layers):
            kinds = [kind[layer].T for kind in (lens.own, lens.chance, lens.local, lens.around)]
            values = [pa.array(column, pa.float32(), from_pandas=True) for kind in kinds for column in kind]
            numbers = pa.array(np.full(total, layer), pa.int16())
            writer.write_table(pa.Table.from_arrays([*fixed.values(), numbers, *values], schema=schema))
    return total * layers
