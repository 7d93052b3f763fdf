"""Prompts to go on from: recordings cut after some seconds, or texts.

Enters: a folder of audio, a corpus, or texts as JSON lines. Leaves: `Prompt`s in a fixed order, drawn with a seed.
The one decision worth knowing: a recording that ends before the cut has nothing to go on to and is no prompt; it is
dropped with a reason, never taken whole, so that every sample has the same amount of speech to start from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from speechscale.corpus.imported import open_corpus
from speechscale.corpus.loaders import FileLoader
from speechscale.corpus.readers import AUDIO_SUFFIXES
from speechscale.errors import DataError
from speechscale.files import canonical_sha256
from speechscale.records import NO_TIME, Utterance
from speechscale.speech.audio import samples_sha256
from speechscale.voices.spoken import Spoken

Cut = Literal["seconds", "word"]
WORD_SLACK_S = 0.05
"""A word that ends this much behind the cut still counts as said: times are rounded to frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSource:
    """What prompts are made of.

    Args:
        kind: "audio" (a folder), "corpus" or "texts". utterances: the drawn ones, in order of their ids.
        loader: reads their recordings; None for texts. read: how many there were to draw from.
        texts: of all that it was drawn from, where they are known.
        audio_sha256: of what their recordings hold, in order; "" for texts.
    """

    kind: Literal["audio", "corpus", "texts"]
    utterances: tuple[Utterance, ...]
    loader: FileLoader | None
    read: int
    texts: tuple[str, ...] = ()
    audio_sha256: str = ""

    @property
    def sha256(self) -> str:
        """Checksum of what was drawn: ids, files, times and texts, and the sound."""
        utterances = [asdict(utterance) for utterance in self.utterances]
        return canonical_sha256({"utterances": utterances, "audio": self.audio_sha256})


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What a model is to go on from.

    Args:
        audio: the recording up to the cut; empty for a text. whole: all of it. rate_hz: of both.
        cut_s: where it was cut. text: the words of the prompt; "" where they are not known. whole_text: of the whole.
    """

    id: str
    audio: Float[np.ndarray, " samples"]
    whole: Float[np.ndarray, " samples"]
    rate_hz: int
    cut_s: float
    text: str
    whole_text: str


def open_prompts(path: Path, *, count: int | None = None, seed: int = 0, split: str | None = None) -> PromptSource:
    """Open a source of prompts and draw from it.

    Args:
        path: a corpus folder, any other folder (all audio files below it), or JSON lines {"id", "text"}.
        count: draw as many without repetition; None: all. seed: of the draw.
        split: of a corpus; None: all.

    Raises:
        DataError: nothing usable there.
    """
    kind: Literal["audio", "corpus", "texts"]
    loader: FileLoader | None = None
    if (path / "corpus.json").is_file():
        corpus = open_corpus(path)
        kind, loader, found = "corpus", corpus.loader(), list(corpus.utterances(split=split))
    elif path.is_dir():
        kind, loader, found = "audio", FileLoader(root=path), _audio_files(path)
    else:
        kind, found = "texts", _texts(path)
    if not found:
        raise DataError(f"prompts {path}: nothing there{f' in split {split}' if split else ''}; give another source")
    found.sort(key=lambda utterance: utterance.id)
    if count is not None and count < len(found):
        chosen = np.random.default_rng(seed).choice(len(found), count, replace=False)
        drawn = [found[i] for i in sorted(chosen)]
    else:
        drawn = found
    return PromptSource(
        kind=kind,
        utterances=tuple(drawn),
        loader=loader,
        read=len(found),
        texts=tuple(utterance.text for utterance in found if utterance.text),
        audio_sha256="" if loader is None else _audio_sha256(drawn, loader),
    )


def _audio_sha256(utterances: Sequence[Utterance], loader: FileLoader) -> str:
    """Checksum of all waveforms; a file that cannot be read counts as such, and is dropped later with its reason."""
    sums: list[str] = []
    for utterance in utterances:
        try:
            sums.append(samples_sha256(loader.load(utterance).audio))
        except DataError:
            sums.append("unreadable")
    return canonical_sha256({"waveforms": sums})


def _audio_files(folder: Path) -> list[Utterance]:
    home = folder.resolve()
    files = [
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix.lower() in AUDIO_SUFFIXES and file.is_file() and file.resolve().is_relative_to(home)
    ]
    return [Utterance(id=name, text="", speaker="", split="", audio=name) for name in files]


def _texts(path: Path) -> list[Utterance]:
    how = 'write {"id": ..., "text": ...} on each line'
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # a text may hold U+2028, which ends no line of JSON
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"prompts {path}: neither a folder nor a text file ({error}); {how}") from error
    found: dict[str, Utterance] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            id, text = str(entry.get("id", number)), entry["text"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(f"prompts {path}, line {number}: no text in it ({error}); {how}") from error
        if not isinstance(text, str) or not text.strip() or id in found:
            raise DataError(f"prompts {path}, line {number}: '{id}' has no text or came before; {how}")
        found[id] = Utterance(id=id, text=" ".join(text.split()), speaker="", split="")
    return list(found.values())


def cut_prompt(source: PromptSource, utterance: Utterance, *, prompt_s: float, cut: Cut, rate_hz: int) -> Prompt:
    """Read one prompt and cut it.

    Args:
        cut: "seconds" cuts at `prompt_s`; "word" at the end of the word that is nearest to it, where the corpus has
            word times, so that no word is cut in two (Align-SLM, SIMS' judge).
        rate_hz: of the audio.

    Raises:
        DataError: not readable, shorter than the cut, or (word) without word times.
    """
    if source.loader is None:
        empty = np.zeros(0, np.float32)
        return Prompt(
            id=utterance.id, audio=empty, whole=empty, rate_hz=rate_hz, cut_s=0.0, text=utterance.text, whole_text=""
        )
    spoken = FileLoader(root=source.loader.root, sample_rate_hz=rate_hz).load(utterance)
    ends = [(end / rate_hz, index) for index, end in _word_ends(spoken)]
    at_s = prompt_s
    if cut == "word":
        if not ends:
            raise DataError(f"{utterance.id}: has no word times; align the corpus, or cut at seconds")
        at_s, index = min(ends, key=lambda end: (abs(end[0] - prompt_s), end[0]))
        if index == ends[-1][1]:
            raise DataError(f"{utterance.id}: its last word is the one nearest to {prompt_s:g} s; use shorter prompts")
    samples = round(at_s * rate_hz)
    if max(samples, round(prompt_s * rate_hz)) >= len(spoken.audio):
        raise DataError(
            f"{utterance.id}: {len(spoken.audio) / rate_hz:.2f} s long, nothing is left behind a prompt of "
            f"{prompt_s:g} s; use longer recordings or shorter prompts"
        )
    said = [index for end_s, index in ends if end_s <= at_s + WORD_SLACK_S]
    words = [text for text, _, _ in spoken.words]
    return Prompt(
        id=utterance.id,
        audio=spoken.audio[:samples],
        whole=spoken.audio,
        rate_hz=rate_hz,
        cut_s=samples / rate_hz,
        text=" ".join(words[: max(said) + 1]) if said else "",
        whole_text=utterance.text,
    )


def _word_ends(spoken: Spoken) -> Iterator[tuple[int, int]]:
    for index, (_, _, end) in enumerate(spoken.words):
        if end != NO_TIME:
            yield index, end
