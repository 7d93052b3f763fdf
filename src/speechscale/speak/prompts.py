"""What a model is asked to continue.

Enters: samples of sound, an audio file, a text, JSON lines, a microphone. Leaves: `Prompt`s: a text or a waveform. The
one decision worth knowing: a marker that somebody types (`<speech>`) is text like any other; only we write control ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.speech.audio import TARGET_RATE_HZ, load_audio, resample
from speechscale.speech.encoders.model_files import file_sha256

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a", ".aac")
TEXT_SUFFIXES = (".txt",)
LINES_SUFFIXES = (".jsonl", ".ndjson")
LONGEST_ID = 150
"""Bytes; file systems allow 255 for a name, and ours are longer than the id."""
Source = str | Path | Float[np.ndarray, " samples"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prompt:
    """Something to continue: exactly one of text and audio is given.

    Args:
        id: names it in results. text: what was written. audio: mono in [-1, 1] at `rate_hz`. source: its file, or "".
        notes: what was changed or is strange about it.
    """

    id: str
    text: str | None = None
    audio: Float[np.ndarray, " samples"] | None = None
    rate_hz: int = TARGET_RATE_HZ
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if (self.text is None) == (self.audio is None):
            raise DataError(f"prompt {self.id}: give exactly one of text and audio")

    @property
    def kind(self) -> Literal["speech", "text"]:
        return "speech" if self.audio is not None else "text"

    @property
    def seconds(self) -> float:
        return 0.0 if self.audio is None else len(self.audio) / self.rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A prompt whose sound is read when its turn comes: exactly one of text and path is given."""

    id: str
    text: str | None = None
    path: Path | None = None
    prompt_s: float | None = None

    def read(self) -> Prompt:
        """The prompt. Raises DataError as `prompt_of`."""
        if self.path is None:
            assert self.text is not None
            return prompt_of_text(self.text, self.id)
        return prompt_of(self.path, id=self.id, prompt_s=self.prompt_s)

    def sha256(self) -> str:
        """Checksum of what decides the prompt: the text, or the file's bytes; "" for a file that cannot be read."""
        if self.path is None:
            return hashlib.sha256(str(self.text).encode()).hexdigest()
        try:
            return f"{file_sha256(self.path)} {self.prompt_s}"
        except OSError:
            return ""


def prompt_of(
    source: Source, *, id: str = "p0", rate_hz: int = TARGET_RATE_HZ, prompt_s: float | None = None
) -> Prompt:
    """Make a prompt of anything that can be one.

    Example: prompt_of("once upon a time"); prompt_of(Path("x.mp3"), prompt_s=3); prompt_of(samples, rate_hz=16_000)

    Args:
        source: a Path is an audio file; so is a str that ends like one (".wav", ".mp3" ...); any other str is a text,
            markers in it included. An array is mono sound.
        rate_hz: of an array. prompt_s: keep the first so many seconds of sound; None: all.

    Raises:
        DataError: no such file, unreadable or empty sound, an empty text, samples that are no mono sound.
    """
    if prompt_s is not None and not prompt_s > 0:
        raise DataError(f"prompt_s {prompt_s}: give a positive number of seconds, or none for all of it")
    if isinstance(source, np.ndarray):
        return _sound(id, _mono(id, source), rate_hz, "", (), prompt_s)
    if not isinstance(source, (str, Path)):
        raise DataError(f"prompt {id}: a {type(source).__name__}; give a text, a file or a numpy array of mono samples")
    if isinstance(source, Path) or Path(source).suffix.lower() in AUDIO_SUFFIXES:
        loaded = load_audio(source)
        return _sound(id, loaded.audio, loaded.sample_rate_hz, str(source), loaded.notes, prompt_s)
    return prompt_of_text(source, id)


def read_prompts(
    sources: Sequence[str | Path], texts: Sequence[str] = (), *, prompt_s: float | None = None
) -> list[Waiting]:
    """Prompts of files and texts, in order; ids are p0, p1, ... unless a JSON line has its own. Sound is not read yet.

    Args:
        sources: audio files, .txt (a prompt per line that is not empty), .jsonl (a prompt per line: {"id"?, "text"} or
            {"id"?, "audio"}, audio relative to the file).

    Raises:
        DataError: nothing given, an id twice, a file that is not there or of another kind, a line that says no prompt.
    """
    if prompt_s is not None and not prompt_s > 0:
        raise DataError(f"prompt_s {prompt_s}: give a positive number of seconds, or none for all of it")
    prompts: list[Waiting] = []
    for source in map(Path, sources):
        prompts += _of_file(source, len(prompts), prompt_s)
    prompts += [_waiting(text, f"p{len(prompts) + i}") for i, text in enumerate(texts)]
    if not prompts:
        raise DataError("no prompt: give audio files, .txt or .jsonl files, or --text")
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise DataError(f"prompt id '{prompt.id}' occurs twice; ids must be unique")
        seen.add(prompt.id)
    return prompts


def prompt_of_text(text: str, id: str) -> Prompt:
    """A text as it stands, whatever it looks like. Raises DataError if it is empty or no Unicode text."""
    if not text.strip():
        raise DataError(f"prompt {id}: the text is empty; give words, or a recording")
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        raise DataError(f"prompt {id}: the text holds half of a character (a lone surrogate); write it as UTF-8")
    return Prompt(id=id, text=text)


def _waiting(text: str, id: str) -> Waiting:
    return Waiting(id=id, text=prompt_of_text(text, id).text)


def _of_file(path: Path, first: int, prompt_s: float | None) -> list[Waiting]:
    suffix = path.suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        if not path.is_file():
            raise DataError(f"prompt '{path}': no such file; correct the path")
        return [Waiting(id=f"p{first}", path=path, prompt_s=prompt_s)]
    if suffix not in (*TEXT_SUFFIXES, *LINES_SUFFIXES):
        known = ", ".join((*AUDIO_SUFFIXES, *TEXT_SUFFIXES, *LINES_SUFFIXES))
        raise DataError(f"prompt '{path}': what it holds is not known by its ending; allowed: {known}")
    lines = read_lines(path, "prompt")
    filled = [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if suffix in TEXT_SUFFIXES:
        return [_waiting(line, f"p{first + i}") for i, (_, line) in enumerate(filled)]
    return [_of_line(path, number, line, f"p{first + i}", prompt_s) for i, (number, line) in enumerate(filled)]


def read_lines(path: Path, what: str) -> list[str]:
    """Lines of a text file, as any system ends them. Raises DataError: no such file, or not UTF-8."""
    try:  # no splitlines: a string of JSON may hold U+2028
        return [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except FileNotFoundError:
        raise DataError(f"{what} '{path}': no such file; correct the path") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{what} '{path}': not UTF-8 ({error}); save it as UTF-8") from None


def _of_line(path: Path, number: int, line: str, id: str, prompt_s: float | None) -> Waiting:
    where = f"{path}, line {number}"
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: no JSON ({error}); correct the line") from None
    given = [key for key in ("text", "audio") if isinstance(row, dict) and isinstance(row.get(key), str)]
    if len(given) != 1:
        raise DataError(f'{where}: needs exactly one of "text" and "audio", a string each; correct the line')
    named = row.get("id", id)
    id = named if isinstance(named, str) else str(named) if type(named) is int else ""
    if not id.isprintable() or not 0 < len(id.encode()) <= LONGEST_ID or "/" in id or "\\" in id or id.startswith("."):
        raise DataError(
            f"{where}: id {json.dumps(named)[:60]} cannot be part of a file's name; use letters, digits, '-' and '_', "
            f"at most {LONGEST_ID} bytes"
        )
    if given == ["text"]:
        return _waiting(row["text"], id)
    return Waiting(id=id, path=path.parent / row["audio"], prompt_s=prompt_s)


def _sound(
    id: str, audio: np.ndarray, rate_hz: int, source: str, notes: Iterable[str], prompt_s: float | None
) -> Prompt:
    notes = list(notes)
    if prompt_s is not None and len(audio) > (kept := round(prompt_s * rate_hz)):
        notes.append(f"the first {prompt_s:g} s of {len(audio) / rate_hz:.2f} s")
        audio = audio[:kept]
    return Prompt(id=id, audio=audio, rate_hz=rate_hz, source=source, notes=tuple(notes))


def _mono(id: str, samples: np.ndarray) -> Float[np.ndarray, " samples"]:
    audio = np.asarray(samples)
    with np.errstate(over="ignore"):
        single = audio.astype(np.float32) if audio.dtype.kind == "f" else np.full(1, np.nan)
    if audio.ndim != 1 or not len(audio) or not np.isfinite(single).all():
        raise DataError(
            f"prompt {id}: an array of {audio.dtype} of shape {audio.shape}; give finite mono samples (1-D floats in "
            "[-1, 1])"
        )
    return single


def at_rate(prompt: Prompt, rate_hz: int) -> Float[np.ndarray, " samples"]:
    """The sound of a prompt at the rate a speech tokenizer wants."""
    assert prompt.audio is not None
    return prompt.audio if prompt.rate_hz == rate_hz else resample(prompt.audio, prompt.rate_hz, rate_hz)
