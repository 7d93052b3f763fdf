"""Preference pairs: one prompt and two completions, of which the first is preferred.

Enters: JSON lines {"prompt", "chosen", "rejected"}, each side written in any of the ways below. Leaves: `Pair`s of ids
and a `SkipLog`.
The one decision worth knowing: speech alone and text alone carry no modality markers and mixed pairs carry one in front
of every span, which is how the rows of training are made; so tuning never teaches a form that training did not show.

A side is: readable text ("<speech> <Un3> <Un49> <text> the cat"); a list of ids; slamkit's {"units": [...]} or
{"audio_repr": "<Un3><Un49>"}; or a list of spans [{"speech": [units]} | {"text": "the cat"}]. Text and ids are taken as
written; markers of the other two follow from their modality.

Source: the format and the repetition filter of slamkit (github.com/slp-rl/slamkit); Slam: Maimon et al. 2025 (arXiv
2502.15814).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int

from speechscale.errors import DataError
from speechscale.skips import SkipLog
from speechscale.tokens.layout import MODALITY_SPEECH, MODALITY_TEXT
from speechscale.tokens.ragged import Ragged
from speechscale.tokens.repetition import auto_bleu, split_words
from speechscale.tokens.vocabulary import Vocabulary

As = Literal["given", "text"]
SIDES = ("prompt", "chosen", "rejected")
FRAME = 2
"""The `<eos>` in front of a document and the one behind it."""
HOW = 'write readable text, a list of ids, {"units": [...]} or [{"speech": [...]}, {"text": "..."}]'


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """A prompt and two completions of it, ids without the framing `<eos>`; the prompt may be empty."""

    id: str
    prompt: Int[np.ndarray, " prompt"]
    chosen: Int[np.ndarray, " chosen"]
    rejected: Int[np.ndarray, " rejected"]

    @property
    def longest(self) -> int:
        """Tokens of the longer of its two documents, `<eos>` included."""
        return FRAME + len(self.prompt) + max(len(self.chosen), len(self.rejected))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairRules:
    """How lines become pairs, and which are left out.

    Args:
        context: longest document, prompt and completion and two `<eos>`; longer pairs are skipped.
        prompt_as, completion_as: "text" takes the field "prompt_text", or "chosen_text" and "rejected_text", instead,
            which makes mixed pairs out of speech ones.
        max_auto_bleu: skip pairs whose prompt and chosen completion repeat themselves more (Slam: 0.3); None: keep all.
        auto_bleu_of: what repeats itself: the words of "prompt_text" and "chosen_text", or the tokens.
        auto_bleu_n: length of the n-grams.

    Raises:
        DataError: a value out of range.
    """

    context: int
    prompt_as: As = "given"
    completion_as: As = "given"
    max_auto_bleu: float | None = None
    auto_bleu_of: Literal["text", "tokens"] = "text"
    auto_bleu_n: int = 2

    def __post_init__(self) -> None:
        if self.max_auto_bleu is not None and not 0 <= self.max_auto_bleu <= 1:
            raise DataError(f"preference: max_auto_bleu = {self.max_auto_bleu}; it must lie in 0..1")
        if self.auto_bleu_n < 1 or self.context < FRAME + 1:
            raise DataError(
                f"preference: auto_bleu_n = {self.auto_bleu_n}, context = {self.context}; give at least 1 and at least "
                f"{FRAME + 1}"
            )
        for name, allowed in (("prompt_as", As), ("completion_as", As), ("auto_bleu_of", Literal["text", "tokens"])):
            values: tuple[str, ...] = allowed.__args__  # type: ignore[attr-defined]
            if getattr(self, name) not in values:
                raise DataError(f"preference: {name} = '{getattr(self, name)}'; allowed: {', '.join(values)}")


class ReadPairs(NamedTuple):
    """What a file held: read = pairs + skips."""

    pairs: list[Pair]
    skips: SkipLog
    read: int


class _Unusable(Exception):
    """One line cannot be used: reason and remedy."""


class _Piece(NamedTuple):
    """Ids of one modality whose marker is still to be decided, or ids as written (modality None)."""

    modality: int | None
    ids: Int[np.ndarray, " ids"]
    words: str = ""


def read_pairs(
    path: Path | str, vocabulary: Vocabulary, rules: PairRules, *, skips_to: Path | None = None
) -> ReadPairs:
    """Read pairs from JSON lines; a line that cannot be used is skipped with its reason.

    Args:
        skips_to: where to write the reasons, `skips.jsonl`; also when no pair is left.

    Raises:
        DataError: no such file, or not one usable pair.

    Example: {"prompt": "<Un3> <Un49>", "chosen": "<Un7>", "rejected": "<Un8>"}
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"preference: {path} is missing; give a file of JSON lines with {', '.join(SIDES)}")
    pairs, skips, read = [], SkipLog(), 0
    for number, line in _lines(path):
        read += 1
        name = f"{path.name}:{number}"
        try:
            sample = _sample(line)
            name = str(sample.get("id", name))
            pairs.append(_pair(name, sample, vocabulary, rules))
        except _Unusable as problem:
            skips.add(name, *problem.args)
        except DataError as problem:  # the vocabulary does not know a unit, an id or text
            skips.add(name, str(problem), "give the vocabulary that these pairs were written with")
    skips.check(read=read, kept=len(pairs))
    if skips_to is not None:
        skips.write(skips_to)
    if not pairs:
        raise DataError(f"preference: {path}: no pairs are left of {read} lines ({skips.first()})")
    return ReadPairs(pairs, skips, read)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield number, line


def _sample(line: bytes) -> dict[str, Any]:
    remedy = 'write {"prompt": ..., "chosen": ..., "rejected": ...} on one line'
    try:
        sample = json.loads(line)
    except ValueError as error:
        raise _Unusable(f"not JSON ({error})", remedy) from None
    if not isinstance(sample, dict):
        raise _Unusable(f"a JSON {type(sample).__name__}, not an object", remedy)
    return sample


def _pair(name: str, sample: dict[str, Any], vocabulary: Vocabulary, rules: PairRules) -> Pair:
    sides = [_side(side, sample, vocabulary, rules) for side in SIDES]
    kinds = {kind for pieces in sides for piece in pieces for kind in _kinds(piece, vocabulary)}
    mixed = {MODALITY_TEXT, MODALITY_SPEECH} <= kinds and vocabulary.SPEECH is not None
    prompt, last = _join(sides[0], vocabulary, mixed, None)
    chosen, rejected = (_join(pieces, vocabulary, mixed, last, begins=not len(prompt))[0] for pieces in sides[1:])
    # The marker that opens both is no choice: it belongs to what is given.
    if len(chosen) and len(rejected) and chosen[0] == rejected[0] and chosen[0] in (vocabulary.SPEECH, vocabulary.TEXT):
        prompt, chosen, rejected = np.append(prompt, chosen[:1]), chosen[1:], rejected[1:]
    pair = Pair(name, prompt, chosen, rejected)
    _require_usable(pair, vocabulary, rules, mixed)
    _require_variety(pair, sample, rules)
    return pair


def _side(side: str, sample: dict[str, Any], vocabulary: Vocabulary, rules: PairRules) -> list[_Piece]:
    """What one side of a line says."""
    if (rules.prompt_as if side == "prompt" else rules.completion_as) == "text":
        return [_text(_transcript(side, sample), vocabulary)]
    value = sample.get(side)
    if isinstance(value, dict) and "audio_repr" in value:
        value = value["audio_repr"]
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str):
        return [_Piece(None, vocabulary.parse(value))]
    if isinstance(value, dict):
        return [_speech(side, value.get("units"), vocabulary)]
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return [_span(side, entry, vocabulary) for entry in value]
    ids = _whole_numbers(side, value)
    wrong = ids[(ids < 0) | (ids >= vocabulary.size)]
    if len(wrong):
        raise _Unusable(f"its {side} has the id {wrong[0]}, allowed 0..{vocabulary.size - 1}", "wrong vocabulary?")
    return [_Piece(None, ids.astype(np.int32))]


def _span(side: str, span: dict[str, Any], vocabulary: Vocabulary) -> _Piece:
    if set(span) == {"speech"}:
        return _speech(side, span["speech"], vocabulary)
    if set(span) == {"text"} and isinstance(span["text"], str):
        return _text(span["text"], vocabulary)
    raise _Unusable(f"its {side} has the span {json.dumps(span)[:60]}", HOW)


def _speech(side: str, units: object, vocabulary: Vocabulary) -> _Piece:
    numbers = _whole_numbers(side, units)
    return _Piece(MODALITY_SPEECH, vocabulary.speech_ids(Ragged(numbers, np.array([0, len(numbers)]))).flat)


def _text(words: str, vocabulary: Vocabulary) -> _Piece:
    return _Piece(MODALITY_TEXT, vocabulary.encode_words(words.split()).flat, words)


def _whole_numbers(side: str, value: object) -> Int[np.ndarray, " numbers"]:
    if not isinstance(value, list) or not all(type(entry) is int for entry in value):
        raise _Unusable(f"its {side} is {json.dumps(value)[:60]}", HOW)
    try:
        return np.array(value, np.int64)
    except OverflowError:
        raise _Unusable(f"its {side} has numbers beyond 64 bits", HOW) from None


def _transcript(side: str, sample: dict[str, Any]) -> str:
    text = sample.get(f"{side}_text", "" if side == "prompt" and not sample.get(side) else None)
    if not isinstance(text, str):
        raise _Unusable(f"its {side}_text is {json.dumps(text)[:60]}", f"give {side}_text, the words that are said")
    return text


def _kinds(piece: _Piece, vocabulary: Vocabulary) -> set[int]:
    if piece.modality is not None:
        return {piece.modality} if len(piece.ids) else set()
    return set(vocabulary.modality_table()[piece.ids].tolist())


def _join(
    pieces: Sequence[_Piece], vocabulary: Vocabulary, mixed: bool, last: int | None, *, begins: bool = True
) -> tuple[Int[np.ndarray, " ids"], int | None]:
    """Ids of one side and the modality it ends in.

    Args:
        last: modality of what stands in front, None if nothing does. begins: nothing stands in front.
    """
    parts = [np.zeros(0, np.int32)]
    for piece in pieces:
        ids = piece.ids
        if not len(ids):
            continue
        if piece.modality is None:
            last = _ending(ids, vocabulary)
        else:
            if mixed and piece.modality != last:
                marker = vocabulary.SPEECH if piece.modality == MODALITY_SPEECH else vocabulary.TEXT
                parts.append(np.array([marker], np.int32))
            elif piece.modality == MODALITY_TEXT and not mixed and begins and len(parts) == 1:
                # A text alone begins as the documents of the text stream do, without a blank in front.
                ids = vocabulary.encode_text([" ".join(piece.words.split())]).flat
            last = piece.modality
        parts.append(ids)
    return np.concatenate(parts), last


def _ending(ids: Int[np.ndarray, " ids"], vocabulary: Vocabulary) -> int | None:
    opened = {vocabulary.SPEECH: MODALITY_SPEECH, vocabulary.TEXT: MODALITY_TEXT}
    final = int(ids[-1])
    return opened[final] if final in opened else int(vocabulary.modality_table()[final])


def _require_usable(pair: Pair, vocabulary: Vocabulary, rules: PairRules, mixed: bool) -> None:
    for side in SIDES:
        ids = getattr(pair, side)
        if not len(ids) and side != "prompt":
            raise _Unusable(f"its {side} completion is empty", "leave the pair out, or write what is preferred")
        if (ids == vocabulary.eos_id).any():
            raise _Unusable(f"its {side} holds an end of document", "leave <eos> out, it is added around documents")
    if np.array_equal(pair.chosen, pair.rejected):
        raise _Unusable("chosen and rejected are equal", "leave the pair out, it prefers nothing")
    if mixed and not all(
        _is_marked(np.concatenate([pair.prompt, completion]), vocabulary) for completion in (pair.chosen, pair.rejected)
    ):
        remedy = "put <speech> or <text> in front of every span of a mixed pair, or give spans"
        raise _Unusable("text and speech meet without the marker of what begins", remedy)
    if pair.longest > rules.context:
        raise _Unusable(f"{pair.longest} tokens, the context is {rules.context}", "shorten it, or raise context")


def _is_marked(ids: Int[np.ndarray, " ids"], vocabulary: Vocabulary) -> bool:
    """Whether each run of text or speech stands behind its own marker."""
    kinds = vocabulary.modality_table()[ids]
    before = np.concatenate([[-1], kinds[:-1]])
    opens = np.isin(kinds, (MODALITY_TEXT, MODALITY_SPEECH)) & (before != kinds)
    marker = np.concatenate([[-1], ids[:-1]])[opens]
    own = {MODALITY_SPEECH: vocabulary.SPEECH, MODALITY_TEXT: vocabulary.TEXT}
    return all(own[kind] == before for kind, before in zip(kinds[opens].tolist(), marker.tolist(), strict=True))


def _require_variety(pair: Pair, sample: dict[str, Any], rules: PairRules) -> None:
    if rules.max_auto_bleu is None:
        return
    if rules.auto_bleu_of == "text":
        words = " ".join(_transcript(side, sample) for side in SIDES[:2])
        sequence: list[Any] = split_words(words)
    else:
        sequence = np.concatenate([pair.prompt, pair.chosen]).tolist()
    found = auto_bleu(sequence, rules.auto_bleu_n)
    if found > rules.max_auto_bleu:
        raise _Unusable(f"it repeats itself, auto-BLEU {found:.2f}", f"max_auto_bleu is {rules.max_auto_bleu}")
