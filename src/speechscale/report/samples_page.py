"""Generated samples as one HTML page: what was given, what the model made of it, to be seen, read and heard.

Enters: records of samples (samples.jsonl) and the folder that holds their audio. Leaves: HTML that needs no network and
runs no script but its own. The one decision worth knowing: sound goes into the page as long as there is room; what is
beyond is linked and what is missing is named, so that a page never looks complete when it is not.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import numpy as np
import soundfile
from jaxtyping import Float

from speechscale.errors import DataError
from speechscale.report.html_parts import page
from speechscale.report.samples_records import ShownPrompt, ShownSample, ShownSpan, said_in, shown_samples
from speechscale.report.samples_strip import strip_of, time_range
from speechscale.report.sounds import flac_uri
from speechscale.tokens.look_records import plural

AUDIO_BYTES = 25_000_000
"""Most audio in one page, as it stands in the file."""


def samples_page(
    records: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    audio_bytes: int = AUDIO_BYTES,
) -> str:
    """Show samples, grouped by their prompts, in the order of the records.

    Example: samples_page([json.loads(line) for line in lines], out, title="quick", facts={"model": "0.16M"})

    Args:
        records: lines of samples.jsonl (docs/samples.md). folder: what their audio paths count from.
        facts: label -> value, at the top.
        audio_bytes: sound beyond so much is linked; the links work where the page lies in `folder`.

    Raises:
        DataError: a record of another format, or audio outside `folder`; the message names its line.
    """
    samples = shown_samples(records)
    sounds = _Sounds(Path(folder), audio_bytes)
    assets = resources.files("speechscale.report") / "assets"
    css, js, template = (
        (assets / name).read_text(encoding="utf-8") for name in ("samples.css", "samples.js", "samples.html.j2")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    parts: Any = environment.from_string(template).module
    settings, notes = _shared(samples)
    groups: dict[ShownPrompt, list[tuple[int, ShownSample]]] = {}
    for line, sample in enumerate(samples, start=1):
        groups.setdefault(sample.prompt, []).append((line, sample))
    body = []
    for number, (prompt, group) in enumerate(groups.items()):
        own = [note for note in _shared([sample for _, sample in group])[1] if note not in notes]
        head = {**_prompt(prompt, sounds, group[0][0]), "notes": own}
        body.append(
            parts.group(
                number, head, [_sample(sample, sounds, line, settings, [*notes, *own]) for line, sample in group]
            )
        )
    top = {**facts, "samples": f"{len(samples)} of {len(groups)} prompts", **sounds.facts()}
    if settings:
        top["settings of all"] = "; ".join(f"{name} {_value(value)}" for name, value in settings.items())
    body = [parts.head(top, notes, any(sample.audio for sample in samples)), *body, parts.foot(sounds.left_out())]
    script = "\n" + js
    return page(
        title,
        [*body, f"<script>{script}</script>"],
        style=css,
        script=False,
        policy=_policy(script, links=bool(sounds.linked)),
    )


def _policy(script: str, *, links: bool) -> str:
    """Nothing but this one script runs, and nothing but sound is loaded."""
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    media = "data: 'self' file:" if links else "data:"
    return (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{own}'; media-src {media}; "
        "base-uri 'none'; form-action 'none'"
    )


class _Sounds:
    """Audio files of a page: read, packed into it while there is room, linked or named otherwise."""

    def __init__(self, folder: Path, audio_bytes: int) -> None:
        self.folder, self.room, self.most = folder, audio_bytes, audio_bytes
        self.embedded: list[str] = []
        self.linked: list[str] = []
        self.missing: list[str] = []

    def take(self, name: str, line: int) -> tuple[dict[str, Any], Float[np.ndarray, " samples"] | None, int]:
        """What the template shows of a file, its waveform and rate; no waveform where it cannot be read."""
        shown: dict[str, Any] = {"name": name, "uri": "", "embedded": False, "problem": ""}
        if not name:
            return shown, None, 0
        audio, rate_hz, problem = _read(self._inside(name, line))
        if audio is None:
            self.missing.append(f"{name} {problem}")
            return {**shown, "problem": f"No sound: {name} {problem}."}, None, 0
        uri = flac_uri(audio, rate_hz)
        if len(uri) <= self.room:
            self.room -= len(uri)
            self.embedded.append(name)
            return {**shown, "uri": uri, "embedded": True}, audio, rate_hz
        self.linked.append(name)
        return {**shown, "uri": quote(name)}, audio, rate_hz

    def _inside(self, name: str, line: int) -> Path:
        """The file, which must lie in the folder."""
        try:
            path = (self.folder / name).resolve()
            if not Path(name).is_absolute() and path.is_relative_to(self.folder.resolve()):
                return path
        except (OSError, ValueError):
            pass  # a name that no file can have
        raise DataError(
            f"sample in line {line}: audio {name[:80]!r} lies outside {self.folder}; give a path below that folder"
        )

    def facts(self) -> dict[str, str]:
        counts = {"in this page": self.embedded, "linked": self.linked, "missing": self.missing}
        said = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
        return {"recordings": said} if said else {}

    def left_out(self) -> list[str]:
        lines = []
        if self.linked:
            lines.append(
                f"A page holds {self.most / 1e6:.3g} MB of sound. Linked, and heard only where this page lies in the "
                f"folder of its samples: {_few(self.linked)}."
            )
        if self.missing:
            lines.append(f"Recordings that could not be read: {_few(self.missing)}.")
        return lines


def _read(path: Path) -> tuple[Float[np.ndarray, " samples"] | None, int, str]:
    """Waveform in mono and its rate, or why there is none."""
    if not path.is_file():
        return None, 0, "is missing"
    try:
        audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError):  # libsndfile's errors are RuntimeErrors
        return None, 0, "cannot be decoded"
    mono = audio.mean(axis=1)
    if not len(mono):
        return None, 0, "holds no samples"
    if not np.isfinite(mono).all():
        return None, 0, "holds NaN or infinite samples"
    return mono, int(rate_hz), ""


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def _shared(samples: Sequence[ShownSample]) -> tuple[dict[str, Any], list[str]]:
    """Settings and notes that all of several samples have; they stand above them, once."""
    if len(samples) < 2:
        return {}, []
    settings = {
        name: value
        for name, value in samples[0].settings.items()
        if all(name in sample.settings and sample.settings[name] == value for sample in samples)
    }
    return settings, [note for note in samples[0].notes if all(note in sample.notes for sample in samples)]


def _prompt(prompt: ShownPrompt, sounds: _Sounds, line: int) -> dict[str, Any]:
    sound, _, _ = sounds.take(prompt.audio, line)
    about = [f"{prompt.kind} prompt", prompt.source]
    about += [f"{prompt.seconds:.2f} s" if prompt.seconds else ""]
    return {
        "title": prompt.id,
        "kind": prompt.kind,
        "facts": " · ".join(filter(None, about)),
        "text": prompt.text,
        "sound": sound,
        "units": prompt.units,
        "units_title": f"{plural(len(prompt.units), 'unit')} of the prompt",
    }


def _sample(
    sample: ShownSample, sounds: _Sounds, line: int, settings: Mapping[str, Any], notes: Sequence[str]
) -> dict[str, Any]:
    """What the template shows of a continuation."""
    sound, audio, rate_hz = sounds.take(sample.audio, line)
    new_s = max(sample.seconds - sample.prompt_s, 0.0)
    about = [
        f"into {'speech and text' if sample.into == 'free' else sample.into}",
        f"{new_s:.2f} s" + (f" after {sample.prompt_s:.2f} s of prompt" if sample.prompt_s else "") if new_s else "",
        f"seed {sample.seed}",
        "ended by itself" if sample.ended else "cut at the limit",
    ]
    units = sum(len(span.units) for span in sample.spans)
    own = {name: _value(value) for name, value in sample.settings.items() if name not in settings}
    by = f", as heard by {sample.words_by}" if sample.words_by else ""
    return {
        "title": sample.id,
        "facts": " · ".join(filter(None, about)),
        "sound": sound,
        "strip": strip_of(sample, audio, rate_hz),
        "spans": [_span(span, said) for span, said in zip(sample.spans, said_in(sample), strict=True)],
        "notes": [note for note in sample.notes if note not in notes],
        "words": list(_words(sample)),
        "words_title": f"{plural(len(sample.words), 'word')} with times{by}",
        "units_title": plural(units, "unit") if units else "",
        "settings": own,
    }


def _span(span: ShownSpan, said: str) -> dict[str, Any]:
    timed = span.start_s is not None and span.end_s is not None
    where = time_range(span.start_s or 0.0, span.end_s or 0.0) if timed else "no time"
    return {
        "modality": span.modality,
        "text": said,
        "instead": f"{len(span.units)} units, words not known" if span.modality == "speech" else "no text",
        "units": span.units,
        "title": f"{len(span.units)} units, {where}",
    }


def _words(sample: ShownSample) -> Iterable[dict[str, str]]:
    for word in sample.words:
        if word.start_s is None or word.end_s is None:
            yield {"text": word.text, "time": "no time", "kind": "speech"}
            continue
        kind = "prompt" if (word.start_s + word.end_s) / 2 < sample.prompt_s else "speech"
        yield {"text": word.text, "time": time_range(word.start_s, word.end_s), "kind": kind}


def _value(value: Any) -> str:
    """A setting as text. Example: None -> "off", 0.8 -> "0.8" """
    if value is None:
        return "off"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
