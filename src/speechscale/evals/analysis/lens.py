"""The logit lens of an interleaved SLM: does a layer carry the word's text token while the model hears the word?

Enters: a model, its vocabulary, units with word times. Leaves: a `Lens`, how well each layer names each word at each
time, beside what its token gets while other words sound.
The one decision worth knowing: every control is worked out in full, not drawn: the chance of a word is what its token
gets while all other words sound, so it keeps how frequent a token is and has no noise of its own.

Source: arXiv 2606.22473 (interleaved SLMs pass through an implicit transcription); nostalgebraist 2020 (logit lens).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.evals.analysis.lens_places import Spoken
from speechscale.evals.analysis.lens_reader import Read, batches, run
from speechscale.evals.analysis.lens_records import RANKS, Lens, LensConfig
from speechscale.evals.analysis.lens_tally import Material, Tally
from speechscale.model.anatomy import blocks_of, context_limit
from speechscale.progress import Progress, Watch
from speechscale.records import NO_TIME, UnitTable
from speechscale.skips import SkipLog
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.vocabulary import Vocabulary


def lay_out(
    table: UnitTable, vocabulary: Vocabulary, config: LensConfig, skips: SkipLog, *, context: int | None = None
) -> Material:
    """Lay utterances out as speech and find their words on the tokens.

    A word is asked for if it has a time of a frame or more and its text begins with a known token. An utterance
    without such a word, or longer than `context`, is left out.

    Raises:
        DataError: a vocabulary without text or of other units, or fewer than two words.
    """
    if not vocabulary.has_text or not vocabulary.num_units:
        raise DataError(
            "the lens reads text tokens out of a model that hears units; give an SLM with both, not textless"
        )
    if vocabulary.num_units != table.num_units:
        raise DataError(
            f"the lens got {table.num_units} units, the model's vocabulary has {vocabulary.num_units}; "
            "encode the speech with the tokenizer of the model"
        )
    speech = vocabulary.speech_ids(Ragged(table.units, table.unit_offsets))
    text = vocabulary.encode_words(table.words)
    firsts = np.full(len(table.words), -1)
    firsts[text.lengths > 0] = text.flat[text.offsets[:-1][text.lengths > 0]]
    if vocabulary.unk_id is not None:
        firsts[firsts == vocabulary.unk_id] = -1
    starts, ends = table.word_start_frames, table.word_end_frames
    reasons = np.where(firsts < 0, "no text token", "taken").astype(object)
    reasons[ends <= starts] = "shorter than a frame"
    reasons[(starts == NO_TIME) | (ends == NO_TIME)] = "no time"
    opening = [vocabulary.eos_id]
    if config.opening == "speech":
        assert vocabulary.SPEECH is not None
        opening.append(vocabulary.SPEECH)
    rows, kept = speech.rows(), []
    for row in range(len(table)):
        part = slice(table.word_offsets[row], table.word_offsets[row + 1])
        words = np.flatnonzero(reasons[part] == "taken")
        ids = np.concatenate([opening, rows[row]]).astype(np.int64)
        if context is not None and len(ids) > context:
            skips.add(table.ids[row], f"{len(ids)} tokens, the model's context holds {context}", "cut the recording")
        elif not len(words):
            skips.add(table.ids[row], "no word with a time and a text token", "align it")
        else:
            kept.append((row, ids, words))
            continue
        reasons[part][words] = "in an utterance left out"
    skips.check(read=len(table), kept=len(kept))
    if int((reasons == "taken").sum()) < 2:
        raise DataError(
            f"the lens needs two words with a time and a text token; got {dict(Counter(reasons.tolist()))} "
            f"({skips.first()})"
        )
    asked, counts = np.unique(firsts[reasons == "taken"], return_counts=True)
    per_id, spoken = vocabulary.units_per_id(), []
    for row, ids, words in kept:
        flat = table.word_offsets[row] + words
        spoken.append(
            Spoken(
                row=row,
                ids=ids,
                opening=len(opening),
                token_of_frame=_token_of_frame(per_id[rows[row]], table.row_durations(row)),
                words=words,
                codes=np.searchsorted(asked, firsts[flat]),
                starts=starts[flat].astype(np.int64),
                ends=ends[flat].astype(np.int64),
            )
        )
    return Material(spoken=tuple(spoken), asked=asked, counts=counts, words=Counter(reasons.tolist()))


def look(
    model: Any,
    vocabulary: Vocabulary,
    table: UnitTable,
    *,
    config: LensConfig | None = None,
    heard: Iterable[str] | None = None,
    skips: SkipLog | None = None,
    watch: Watch | None = None,
) -> Lens:
    """Run utterances through the model once each and read every layer as text while words sound.

    Args:
        heard: words of the speech the model was trained on; the others are only read. None: not known.

    Raises:
        DataError: as `lay_out`; a family outside `anatomy.FAMILIES`; numbers that are not finite.

    Example: found = look(load_model(folder), Vocabulary.load(folder), read_units(path).split("test"))
    """
    config, skips = config or LensConfig(), SkipLog() if skips is None else skips
    limit = context_limit(model)
    material = lay_out(table, vocabulary, config, skips, context=limit.tokens)
    layers = len(blocks_of(model)) + 1
    reach = round(config.reach_s * table.frame_rate_hz)
    tally = Tally(material, layers, config, reach)
    began, done = time.monotonic(), 0
    for batch in batches(material.spoken, config.batch_tokens):

        def keep(layer: int, at: int, read: Read, batch: list[int] = batch) -> None:
            tally.add(layer, batch[at], read)

        run(model, vocabulary, material.asked, [material.spoken[i] for i in batch], keep)
        done += len(batch)
        if watch is not None:
            watch(Progress(items_done=done, items_total=len(material.spoken), wall_s=time.monotonic() - began))
    known = None if heard is None else _first_tokens(vocabulary, heard)
    return tally.result(table, known)


def top_tokens(
    model: Any, vocabulary: Vocabulary, table: UnitTable, row: int, config: LensConfig, *, count: int = 5
) -> dict[str, Any]:
    """One utterance to read: for every layer and word, the top tokens when the last of the word has been heard.

    Returns plain values: words with seconds, and per layer one entry per word with its top texts and its own rank
    (None beyond RANKS).
    """
    one = table.take([row])
    material = lay_out(one, vocabulary, config, SkipLog())
    spoken = material.spoken[0]
    last = spoken.token_of_frame[spoken.ends - 1]
    layers: list[list[dict[str, Any]]] = []

    def keep(_: int, __: int, read: Read) -> None:
        layers.append(
            [
                {
                    "top": [_spell(vocabulary, int(token)) for token in read.best[at]],
                    "rank": int(rank) if (rank := read.ranks[at, code]) <= RANKS else None,
                }
                for at, code in zip(last, spoken.codes, strict=True)
            ]
        )

    run(model, vocabulary, material.asked, [spoken], keep, best=count)
    rate = one.frame_rate_hz
    words = [
        {
            "text": one.words[w],
            "token": _spell(vocabulary, int(material.asked[c])),
            "start_s": s / rate,
            "end_s": e / rate,
        }
        for w, c, s, e in zip(
            spoken.words.tolist(), spoken.codes, spoken.starts.tolist(), spoken.ends.tolist(), strict=True
        )
    ]
    return {"id": one.ids[0], "text": one.texts[0], "words": words, "layers": layers}


def _spell(vocabulary: Vocabulary, token: int) -> str:
    return vocabulary.text_tokenizer.decode([token]).strip() or str(vocabulary.text_tokenizer.id_to_token(token))


def _first_tokens(vocabulary: Vocabulary, words: Iterable[str]) -> set[int]:
    rows = vocabulary.encode_words(sorted(set(words)))
    return set(rows.flat[rows.offsets[:-1][rows.lengths > 0]].tolist())


def _token_of_frame(units: Int[np.ndarray, " tokens"], durations: Int[np.ndarray, " units"]) -> np.ndarray:
    """Speech token at each frame; `units` is how many units each token spells."""
    return np.repeat(np.repeat(np.arange(len(units)), units), durations)
