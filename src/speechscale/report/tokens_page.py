"""Documents of tokens as one HTML page: colored words over the waveform, units under it, sound for every span.

Enters: `Seen` documents one by one, their audio where there is some. Leaves: a file that needs no network and no other
file. The one decision worth knowing: a document is written as it comes, so a page of a thousand costs the memory of
one; its own policy forbids the page to load anything.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from jaxtyping import Float

from speechscale.files import complete_file
from speechscale.report.sounds import PEAKS_PER_S, flac_uri, peaks
from speechscale.tokens.look_records import Part, Seen, SeenSpan, SeenWord, plural

AUDIO_BYTES = 24_000_000
"""Most audio in one page, as it stands in the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageDocument:
    """One document, and how it sounds; `audio` None: the page draws its units without sound. silence: why."""

    seen: Seen
    audio: Float[np.ndarray, " samples"] | None = None
    sample_rate_hz: int = 16_000
    silence: str = ""


def write_tokens_page(
    path: Path,
    documents: Iterable[PageDocument],
    *,
    title: str,
    facts: Mapping[str, str],
    audio_bytes: int = AUDIO_BYTES,
) -> list[str]:
    """Write the page; return what was left out of it, as it says at its end.

    Args:
        facts: label -> value, at the top. audio_bytes: documents beyond so much audio have a waveform and no sound.
    """
    assets = resources.files("speechscale.report") / "assets"
    css, js, template = (
        (assets / name).read_text(encoding="utf-8") for name in ("tokens.css", "tokens.js", "tokens.html.j2")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    parts: Any = environment.from_string(template).module
    room, silent, left_out = audio_bytes, list[str](), list[str]()
    with complete_file(Path(path)) as draft, draft.open("w", encoding="utf-8") as file:
        file.write(parts.head(title, facts, css))
        for number, document in enumerate(documents):
            sound = flac_uri(document.audio, document.sample_rate_hz) if document.audio is not None else ""
            if len(sound) > room:
                silent.append(document.seen.title)
                sound = ""
            room -= len(sound)
            if document.silence:
                left_out.append(f"No sound for {document.seen.title}: {document.silence}")
            file.write(parts.document(number, _document(document, sound)))
        if silent:
            left_out.append(
                f"Sound of {plural(len(silent), 'document')} is left out, because a page holds "
                f"{audio_bytes / 1e6:.3g} MB of it: "
                f"{', '.join(silent[:5])}{' ...' if len(silent) > 5 else ''}. Show fewer at a time."
            )
        file.write(parts.foot(left_out, js))
    return left_out


def _document(document: PageDocument, sound: str) -> dict[str, Any]:
    """What the template shows of a document."""
    seen = document.seen
    drawn = seen.frame_rate_hz is not None and bool(seen.units)
    return {
        "title": seen.title,
        "stream": seen.stream,
        "number": seen.number,
        "drawn": seen.drawn,
        "facts": seen.facts,
        "notes": seen.notes,
        "data": _data(document) if drawn else "",
        "audio": sound,
        "spans": [
            {
                "modality": span.modality,
                "marker": span.marker,
                "marker_id": span.marker_id,
                "play": bool(sound) and span.stop_frame > span.start_frame,
                "title": _range(seen, span.start_frame, span.stop_frame) if drawn else "",
                "parts": list(_parts(seen, span)),
            }
            for span in seen.spans
        ],
    }


def _parts(seen: Seen, span: SeenSpan) -> Iterator[dict[str, Any]]:
    speech, unit = span.modality == "speech", span.first_unit
    for part in span.parts:
        units = []
        if speech:
            for token, name in zip(part.ids, part.names, strict=True):
                stop = unit + name.count("+") + 1
                inside = seen.units[unit:stop]
                hint = f"id {token}" + (
                    f", frames {inside[0].start_frame}..{inside[-1].stop_frame}" if seen.frame_rate_hz else ""
                )
                units.append((name, any(u.spans > 1 for u in inside), hint))
                unit = stop
        yield {**_word(seen, part, speech), "units": units}


def _word(seen: Seen, part: Part, speech: bool) -> dict[str, Any]:
    """Text of a part, its class in the style sheet, and what hovering says."""
    if part.kind == "pause":
        known = seen.frame_rate_hz is not None
        length = seen.seconds(part.stop_frame - part.start_frame) if known else 0.0
        hint = _range(seen, part.start_frame, part.stop_frame) if known else ""
        return {"text": f"pause {length:.2f} s" if known else "pause", "look": "pause", "title": hint}
    ids = "" if speech else "ids " + " ".join(map(str, part.ids))
    look = "heard" if speech else "read"
    if part.word is None:
        return {"text": part.text, "look": look, "title": ids if len(part.ids) <= 50 else f"{len(part.ids)} ids"}
    word = seen.words[part.word]
    look += " untimed" * (not word.timed) + " demoted" * word.demoted
    return {"text": part.text, "look": look, "title": "; ".join(filter(None, (word_hint(word), ids)))}


def word_hint(word: SeenWord) -> str:
    """What is known of a word. Example: 'cat: 0.520..0.800 s'"""
    name = word.text + (f" (corpus: {word.spoken})" if word.spoken else "")
    if word.start_s is None or word.end_s is None:
        return f"{name}: {'has a time, not drawn' if word.timed else 'no time'}"
    about = "" if word.exact else "about "
    demoted = ", drawn as speech, got no unit" if word.demoted else ""
    return f"{name}: {about}{word.start_s:.3f}..{word.end_s:.3f} s{demoted}"


def _range(seen: Seen, start: int, stop: int) -> str:
    return f"frames {start}..{stop}, {seen.seconds(start):.3f}..{seen.seconds(stop):.3f} s"


def _data(document: PageDocument) -> str:
    """What the drawing needs, as JSON that can stand inside a <script> element."""
    seen = document.seen
    data: dict[str, Any] = {
        "rate": seen.frame_rate_hz,
        "frames": seen.units[-1].stop_frame,
        "sampleRate": document.sample_rate_hz,
        "peakRate": PEAKS_PER_S,
        "units": [(u.unit, u.start_frame, u.stop_frame, u.spans) for u in seen.units],
        "words": [
            {
                "text": word.spoken or word.text,
                "a": word.start_s,
                "b": word.end_s,
                "heard": word.heard,
                "demoted": word.demoted,
                "hint": word_hint(word),
            }
            for word in seen.words
        ],
        "spans": [_drawn_span(seen, span) for span in seen.spans],
        "peaks": "",
    }
    if document.audio is not None:
        data["peaks"] = base64.b64encode(peaks(document.audio, document.sample_rate_hz).tobytes()).decode("ascii")
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")


def _drawn_span(seen: Seen, span: SeenSpan) -> dict[str, Any]:
    """Where a span lies on the time axis: its cut, or from the first to the last timed word that is read."""
    if span.modality == "speech":
        return {"speech": True, "a": span.start_frame, "b": span.stop_frame}
    words = [seen.words[part.word] for part in span.parts if part.word is not None]
    times = [(word.start_s, word.end_s) for word in words if word.start_s is not None and word.end_s is not None]
    if not times or seen.frame_rate_hz is None:
        return {"speech": False, "a": 0, "b": 0}
    return {"speech": False, "a": times[0][0] * seen.frame_rate_hz, "b": times[-1][1] * seen.frame_rate_hz}
