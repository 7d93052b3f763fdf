"""Look at one document of a store: what of it is speech, what text, and which token is what.

Enters: an opened store, a stream, the number or id of a document, how it is interleaved. Leaves: `Seen`, plain records
with words, units, spans and times. The one decision worth knowing: the document is drawn by the same plan that training
reads, and its ids are that plan's, so what is shown is what a model gets.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import groupby
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.records import NO_TIME, offsets
from speechscale.tokens.interleave import InterleaveConfig, draw_segments, plan_interleave
from speechscale.tokens.look_records import Modality, Part, Seen, SeenSpan, SeenUnit, SeenWord, plural
from speechscale.tokens.look_words import NOBODY, Sound, Words, WordTime, read_words
from speechscale.tokens.store import STREAMS, TokenStore

IDS_SEARCHED = 200_000
"""Utterance ids that are compared with one that does not exist."""


def find_document(store: TokenStore, stream: str, name: str, interleave: InterleaveConfig | None = None) -> int:
    """The number that `look` wants, of an utterance's id or of a number in words.

    Raises:
        DataError: no such document (with the nearest ids), or no such stream here.
    """
    _check_stream(store, stream, interleave)
    texts = stream == "text"
    total = store.documents("text" if texts else "speech")
    if not texts:
        try:
            return store.find(name)
        except DataError:
            pass
    if name.isdecimal() and int(name) < total:
        return int(name)
    if texts:
        raise DataError(f"{store.folder}: texts have numbers, 0..{total - 1}, not '{name}'; give one of them")
    near = ", ".join(f"'{id}'" for id in nearest_ids(store, name))
    like = f"nearest are {near}" if near else "no id is like it"
    raise DataError(f"{store.folder}: no utterance '{name}' ({like}); give an id or a number from 0 to {total - 1}")


def first_documents(
    store: TokenStore, stream: str, count: int, interleave: InterleaveConfig | None = None
) -> list[int]:
    """Numbers of the first documents of a stream. Raises DataError: the stream has none."""
    _check_stream(store, stream, interleave)
    documents = np.arange(min(count, store.documents(stream, interleave)))
    return [int(row) for row in store.speech_rows(stream, documents, interleave)]


def nearest_ids(store: TokenStore, name: str, count: int = 3) -> list[str]:
    """Ids of the store that are most like a name, among the first `IDS_SEARCHED`."""

    def common(one: str, other: str) -> int:
        return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))

    def alike(id: str) -> int:
        return common(id, name) + common(id[::-1], name[::-1])

    rows = min(store.documents("speech"), IDS_SEARCHED)
    candidates = heapq.nlargest(200, map(store.utterance_id, range(rows)), key=alike)
    return get_close_matches(name, candidates, count, cutoff=0.5)


def look(
    store: TokenStore,
    stream: str,
    number: int,
    *,
    interleave: InterleaveConfig | None = None,
    epoch: int = 0,
    seed: int = 0,
    times: Sequence[WordTime] | None = None,
) -> Seen:
    """Take one document apart.

    Args:
        number: of the utterance (streams "speech" and "interleaved") or of the text; see `find_document`.
        times: the words as the corpus has them; without them times are known only to the unit.

    Raises:
        DataError: no such stream here, or an utterance that the interleaved stream does not have.
    """
    config = interleave or InterleaveConfig()
    _check_stream(store, stream, config)
    if stream == "text":
        return _text(store, number)
    sound = Sound.of(store, number)
    words = read_words(store, number, sound, times)
    notes = _notes(sound, words, times)
    if stream == "speech":
        everything = _Run("speech", 0, len(words.texts), 0, len(sound.units))
        ids = store.read("speech", np.array([number])).flat
        return _seen(store, stream, number, "", sound, words, [everything], [ids], notes, frozenset())
    untimed = not np.any(words.first != NO_TIME)
    if not words.texts or (untimed and config.level != "utterance"):
        raise DataError(
            f"utterance {store.utterance_id(number)}: no word {'with a time' if words.texts else 'is known'}, so it is "
            "not in the interleaved stream; look at it with --stream speech"
        )
    plan = plan_interleave(store.source, np.array([number]), epoch, config, seed)
    base = int(store.arrays["word_offsets"][number])
    segments = plan.segments
    runs = [
        _Run("speech" if heard else "text", first - base, last + 1 - base, start, stop)
        for heard, first, last, start, stop in zip(
            segments.is_speech.tolist(),
            segments.first.tolist(),
            segments.last.tolist(),
            segments.unit_start.tolist(),
            segments.unit_stop.tolist(),
            strict=True,
        )
    ]
    ids = plan.ids().flat
    ends = np.cumsum(plan.segment_tokens + int(plan.markers))
    pieces = [ids[end - count : end] for end, count in zip(ends, plan.segment_tokens, strict=True)]
    demoted = _demoted(store, number, runs, config, epoch, seed) if plan.demoted_words else frozenset()
    assert len(demoted) == plan.demoted_words, f"{len(demoted)} demoted words, the plan has {plan.demoted_words}"
    drawn = describe(config, epoch, seed)
    return _seen(store, stream, number, drawn, sound, words, runs, pieces, notes, demoted, plan.markers)


def describe(config: InterleaveConfig, epoch: int, seed: int) -> str:
    """How documents are drawn, in one line: what matters most, and every setting that is not the usual one."""
    usual = InterleaveConfig()
    if config.level == "utterance":
        told = ["level utterance"]
    else:
        law = config.text_span and f", text {config.text_span}"
        share = "" if config.speech_share is None else f", share {config.speech_share:g} ({config.share})"
        told = [f"spans {config.speech_span}{law}{share}"]
    names = ("level", "first", "markers", "gap", "boundary", "redraw_each_epoch")
    changed = [name for name in names if getattr(config, name) != getattr(usual, name)]
    told += [f"{name} {getattr(config, name)}" for name in changed if f"{name} {getattr(config, name)}" not in told]
    return ", ".join([*told, f"epoch {epoch}", f"seed {seed}"])


class _Run(NamedTuple):
    modality: Modality
    first_word: int
    stop_word: int
    first_unit: int
    stop_unit: int


def _check_stream(store: TokenStore, stream: str, interleave: InterleaveConfig | None) -> None:
    if stream in STREAMS and store.documents(stream, interleave):
        return
    here = [name for name in STREAMS if store.documents(name, interleave)]
    why = f": {store.why_none(stream, interleave)}" if stream in STREAMS else ""
    raise DataError(f"{store.folder}: no stream '{stream}'{why}; allowed here: {', '.join(here)}")


def _notes(sound: Sound, words: Words, times: Sequence[WordTime] | None) -> list[str]:
    notes = []
    if sound.borders is None:
        notes.append("The store has no durations: no times, no waveform, units in order only.")
    elif times is not None and len(times) != len(words.texts) and words.texts:
        notes.append(
            f"The corpus has {len(times)} words here, the store {len(words.texts)}: times are those of the store."
        )
    return notes


def _demoted(
    store: TokenStore, row: int, runs: Sequence[_Run], config: InterleaveConfig, epoch: int, seed: int
) -> frozenset[int]:
    """Words that were drawn as speech and are text. With the rule "overlap" no span is ever empty: that is the draw."""
    drawn, _ = draw_segments(
        store.source, np.array([row]), epoch, replace(config, boundary="overlap", gap="drop"), seed
    )
    base = int(store.arrays["word_offsets"][row])
    spans = zip((drawn.first - base).tolist(), (drawn.last - base).tolist(), drawn.is_speech.tolist(), strict=True)
    wanted = {word for first, last, heard in spans if heard for word in range(first, last + 1)}
    return frozenset(wanted - {w for run in runs if run.modality == "speech" for w in range(run[1], run[2])})


def _seen(
    store: TokenStore,
    stream: str,
    row: int,
    drawn: str,
    sound: Sound,
    words: Words,
    runs: Sequence[_Run],
    pieces: Sequence[Int[np.ndarray, " tokens"]],
    notes: Sequence[str],
    demoted: frozenset[int],
    markers: bool = False,
) -> Seen:
    """Put the records together."""
    vocabulary = store.vocabulary
    uses = np.zeros(len(sound.units), np.int64)
    heard, read = np.zeros(len(words.texts), bool), np.zeros(len(words.texts), bool)
    for run in runs:
        (heard if run.modality == "speech" else read)[run.first_word : run.stop_word] = True
        uses[run.first_unit : run.stop_unit] += 1
    ids: list[int] = []
    spans = []
    for run, piece in zip(runs, pieces, strict=True):
        speech = run.modality == "speech"
        marker = (vocabulary.SPEECH if speech else vocabulary.TEXT) if markers else None
        ids += [*([] if marker is None else [marker]), *piece.tolist()]
        spans.append(
            SeenSpan(
                modality=run.modality,
                parts=tuple(_heard(store, run, piece, sound, words) if speech else _read(store, run, words)),
                marker="" if marker is None else vocabulary.decode([marker]),
                marker_id=marker,
                first_unit=run.first_unit,
                stop_unit=run.stop_unit,
                start_frame=sound.frame(run.first_unit) if speech else 0,
                stop_frame=sound.frame(run.stop_unit) if speech else 0,
                doubled=int((uses[run.first_unit : run.stop_unit] > 1).sum()),
            )
        )
    empty = sum(span.modality == "speech" and not span.ids for span in spans)
    unknown = (
        sum(store.vocabulary.unk_id in word.tolist() for word in words.ids) if vocabulary.unk_id is not None else 0
    )
    notes = [*notes, *([f"{empty} speech spans have no unit (boundary slamkit)."] if empty else [])]
    notes += [_unknown(unknown, "word")] if unknown else []
    return Seen(
        id=store.utterance_id(row),
        stream=stream,
        number=row,
        drawn=drawn,
        frame_rate_hz=sound.frame_rate_hz,
        words=tuple(
            SeenWord(
                text=text,
                timed=bool(words.first[number] != NO_TIME),
                start_s=None if span is None else span[0],
                end_s=None if span is None else span[1],
                exact=words.exact[number],
                heard=bool(heard[number]),
                read=bool(read[number]),
                demoted=number in demoted,
                spoken=words.spoken[number] if words.spoken[number] != text else "",
            )
            for number, (text, span) in enumerate(zip(words.texts, words.spans_s, strict=True))
        ),
        units=tuple(
            SeenUnit(
                unit=unit,
                start_frame=sound.frame(number),
                stop_frame=sound.frame(number + 1),
                spans=int(uses[number]),
            )
            for number, unit in enumerate(sound.units.tolist())
        ),
        spans=tuple(spans),
        ids=tuple(ids),
        notes=tuple(notes),
    )


def _read(store: TokenStore, run: _Run, words: Words) -> Iterator[Part]:
    for word in range(run.first_word, run.stop_word):
        ids = tuple(words.ids[word].tolist())
        yield Part(kind="word", word=word, text=words.texts[word], ids=ids, names=_names(store, ids))


def _heard(store: TokenStore, run: _Run, ids: Int[np.ndarray, " tokens"], sound: Sound, words: Words) -> Iterator[Part]:
    """Words and pauses of a speech span, each with its tokens; a token belongs where its first unit does."""
    each = store.vocabulary.units_per_id()[ids]
    begins = run.first_unit + offsets(each)[:-1]
    upcoming = run.first_word
    owners = words.owners(range(run.first_word, run.stop_word), range(run.first_unit, run.stop_unit))
    for owner, group in groupby(range(len(ids)), key=lambda token: int(owners[begins[token] - run.first_unit])):
        tokens = list(group)
        inside = owner != NOBODY
        if inside:
            yield from (_silent(words, word) for word in range(upcoming, owner))
            upcoming = owner + 1
        chosen = ids[tokens[0] : tokens[-1] + 1]
        yield Part(
            kind="word" if inside else "pause" if words.texts else "run",
            word=owner if inside else None,
            text=words.texts[owner] if inside else "",
            ids=tuple(chosen.tolist()),
            names=tuple("+".join(map(str, store.vocabulary.units_of(chosen[i : i + 1]))) for i in range(len(chosen))),
            start_frame=sound.frame(int(begins[tokens[0]])),
            stop_frame=sound.frame(int(begins[tokens[-1]] + each[tokens[-1]])),
        )
    yield from (_silent(words, word) for word in range(upcoming, run.stop_word))


def _silent(words: Words, word: int) -> Part:
    """A word whose sound is in its neighbors' units."""
    return Part(kind="word", word=word, text=words.texts[word], ids=(), names=())


def _names(store: TokenStore, ids: Sequence[int]) -> tuple[str, ...]:
    return tuple(str(store.vocabulary.text_tokenizer.id_to_token(token)) for token in ids)


def _text(store: TokenStore, number: int) -> Seen:
    ids = tuple(store.read("text", np.array([number])).flat.tolist())
    part = Part(kind="run", word=None, text=store.vocabulary.decode(ids), ids=ids, names=_names(store, ids))
    unknown = ids.count(store.vocabulary.unk_id) if store.vocabulary.unk_id is not None else 0
    return Seen(
        id="",
        stream="text",
        number=number,
        drawn="",
        frame_rate_hz=None,
        words=(),
        units=(),
        spans=(SeenSpan(modality="text", parts=(part,)),),
        ids=ids,
        notes=(_unknown(unknown, "token"),) if unknown else (),
    )


def _unknown(count: int, what: str) -> str:
    return f"{plural(count, what)} {'is' if count == 1 else 'are'} unknown to the vocabulary."
